//! Packets of one connection that wait while an earlier one is being worked on (sans-IO): order is kept.

use crate::protocol::{plain_ws, socketio};
use std::collections::VecDeque;

/// Packets that may wait; more closes the connection as over its rate.
const MOST: usize = 1_024;

/// What a client sent.
pub enum Inbound {
    /// A Socket.IO packet.
    SocketIo(socketio::Packet),
    /// A `/ws` message.
    PlainWs(plain_ws::ClientMessage),
}

impl Inbound {
    /// Bytes it holds, near enough for limits.
    fn size(&self) -> usize {
        use plain_ws::ClientMessage;
        use socketio::Packet;
        64 + match self {
            Self::SocketIo(Packet::Event { args, .. } | Packet::Ack { args, .. })
            | Self::PlainWs(ClientMessage::Event { args, .. }) => args.len(),
            Self::SocketIo(Packet::Connect { auth, .. }) => auth.as_ref().map_or(0, |auth| auth.len()),
            Self::PlainWs(ClientMessage::Auth { token }) => token.len(),
            Self::PlainWs(ClientMessage::Join { room, .. } | ClientMessage::Leave { room, .. }) => room.len(),
            Self::SocketIo(Packet::Disconnect { .. }) | Self::PlainWs(ClientMessage::Ping) => 0,
        }
    }
}

/// The queue; exists only while something is in work.
#[derive(Default)]
pub struct PendingPackets {
    queue: VecDeque<Inbound>,
    bytes: usize,
}

impl PendingPackets {
    /// Adds a packet; `false` when more than `most_bytes` or too many would wait.
    pub fn push(&mut self, packet: Inbound, most_bytes: usize) -> bool {
        let size = packet.size();
        if self.queue.len() >= MOST || (self.bytes > 0 && self.bytes + size > most_bytes) {
            return false;
        }
        self.bytes += size;
        self.queue.push_back(packet);
        true
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<Inbound> {
        let packet = self.queue.pop_front()?;
        self.bytes -= packet.size();
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_in_bytes_and_count() {
        let mut inbox = PendingPackets::default();
        let auth = |bytes: usize| Inbound::PlainWs(plain_ws::ClientMessage::Auth { token: "x".repeat(bytes) });
        assert!(inbox.push(auth(2_000), 1_000), "one packet always fits");
        assert!(!inbox.push(auth(1), 1_000));
        assert!(inbox.pop().is_some());
        assert_eq!(inbox.bytes, 0);
        assert_eq!((0..2_000).filter(|_| inbox.push(auth(0), 1_000_000)).count(), MOST);
    }
}
