//! Packets of one connection that wait while an earlier one is being worked on (sans-IO): order is kept. Those that wait for
//! the backend are elsewhere, so that the others do not wait behind them.

use crate::model::millis::Millis;
use crate::protocol::{plain_ws, socketio};
use std::collections::VecDeque;

/// Packets that may wait; more are refused.
const MAX_PACKETS: usize = 1_024;

/// What a client sent.
pub enum Inbound {
    /// A Socket.IO packet.
    SocketIo(socketio::Packet),
    /// A `/ws` message.
    PlainWs(plain_ws::ClientMessage),
}

impl Inbound {
    /// Whether its sender waits for an answer, so that it can get an error and come again later. Others wait for their turn here.
    pub fn wants_answer(&self) -> bool {
        use plain_ws::ClientMessage;
        match self {
            Self::SocketIo(socketio::Packet::Event { ack, .. }) => ack.is_some(),
            Self::PlainWs(ClientMessage::Event { id, .. }) => id.is_some(),
            Self::PlainWs(ClientMessage::Join { .. } | ClientMessage::Leave { .. }) => true,
            _ => false,
        }
    }

    /// Whether something is lost without it; pings and disconnects are no messages.
    pub fn is_message(&self) -> bool {
        use plain_ws::ClientMessage;
        !matches!(self, Self::SocketIo(socketio::Packet::Disconnect { .. }) | Self::PlainWs(ClientMessage::Ping))
    }

    /// Bytes it holds, near enough for limits.
    pub fn size(&self) -> usize {
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

/// The queue; exists only while something is in work, waits for its turn, or waits for the backend.
#[derive(Default)]
pub struct PendingPackets {
    queue: VecDeque<Pending>,
    bytes: usize,
    /// Of the queue.
    deferred: usize,
    /// A task works on a packet, and then on the queue.
    pub is_working: bool,
    /// The bytes of the connection's packets that wait for the backend, elsewhere; `None` if none do.
    pub asking: Option<usize>,
}

struct Pending {
    packet: Inbound,
    /// It has not been counted against the connection's rate yet.
    deferred: bool,
    arrived: Millis,
}

impl PendingPackets {
    /// Adds a packet, unless more than `max_bytes` or too many would wait. `deferred`: it waits until the connection's rate
    /// allows it.
    ///
    /// # Errors
    /// The packet that found no room.
    pub fn push(&mut self, packet: Inbound, deferred: bool, arrived: Millis, max_bytes: usize) -> Result<(), Inbound> {
        let size = packet.size();
        if self.queue.len() >= MAX_PACKETS || (self.bytes > 0 && self.bytes + size > max_bytes) {
            return Err(packet);
        }
        self.bytes += size;
        self.deferred += usize::from(deferred);
        self.queue.push_back(Pending { packet, deferred, arrived });
        Ok(())
    }

    /// The next one, and when it arrived. One that waited for the connection's rate arrives `now`.
    pub fn pop(&mut self, now: Millis) -> Option<(Inbound, Millis)> {
        let Pending { packet, deferred, arrived } = self.queue.pop_front()?;
        self.bytes -= packet.size();
        self.deferred -= usize::from(deferred);
        Some((packet, if deferred { now } else { arrived }))
    }

    /// Bytes that wait, near enough for limits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages wait.
    pub fn messages(&self) -> usize {
        self.queue.iter().filter(|pending| pending.packet.is_message()).count()
    }

    /// How many wait for the connection's rate.
    pub fn deferred(&self) -> usize {
        self.deferred
    }

    /// The bytes of the next one, where it waits for the connection's rate.
    pub fn next_deferred(&self) -> Option<usize> {
        self.queue.front().filter(|pending| pending.deferred).map(|pending| pending.packet.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_in_bytes_and_count() {
        let mut pending = PendingPackets::default();
        let auth = |bytes: usize| Inbound::PlainWs(plain_ws::ClientMessage::Auth { token: "x".repeat(bytes) });
        let now = Millis::new(1);
        assert!(pending.push(auth(2_000), true, now, 1_000).is_ok(), "one packet always fits");
        assert!(pending.push(auth(1), false, now, 1_000).is_err());
        assert!(pending.next_deferred().is_some());
        let later = Millis::new(9);
        assert_eq!(pending.pop(later).map(|(_, arrived)| arrived), Some(later), "the rate let it in just now");
        assert!(pending.push(auth(1), false, now, 1_000).is_ok());
        assert_eq!(pending.pop(later).map(|(_, arrived)| arrived), Some(now));
        assert_eq!((pending.bytes, pending.deferred()), (0, 0));
        let fits = (0..2_000).filter(|_| pending.push(auth(0), false, now, 1_000_000).is_ok()).count();
        assert_eq!(fits, MAX_PACKETS);
    }
}
