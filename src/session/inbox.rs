//! Packets of one connection that wait while an earlier one is being worked on (sans-IO): order is kept.

use crate::protocol::{json, socketio};
use std::collections::VecDeque;

/// Packets that may wait; more closes the connection as over its rate.
const MOST: usize = 1_024;

/// What a client sent.
pub enum Inbound {
    /// A Socket.IO packet.
    SocketIo(socketio::Packet),
    /// A `/ws` message.
    Json(json::ClientMessage),
}

/// The queue; exists only while something is in work.
#[derive(Default)]
pub struct Inbox {
    queue: VecDeque<(Inbound, usize)>,
    bytes: usize,
}

impl Inbox {
    /// Adds a packet of `size` bytes; `false` when more than `most_bytes` or too many would wait.
    pub fn push(&mut self, packet: Inbound, size: usize, most_bytes: usize) -> bool {
        if self.queue.len() >= MOST || (self.bytes > 0 && self.bytes + size > most_bytes) {
            return false;
        }
        self.bytes += size;
        self.queue.push_back((packet, size));
        true
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<Inbound> {
        let (packet, size) = self.queue.pop_front()?;
        self.bytes -= size;
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_in_bytes_and_count() {
        let mut inbox = Inbox::default();
        let ping = || Inbound::Json(json::ClientMessage::Ping);
        assert!(inbox.push(ping(), 2_000, 1_000), "one packet always fits");
        assert!(!inbox.push(ping(), 1, 1_000));
        assert!(inbox.pop().is_some());
        assert_eq!((0..2_000).filter(|_| inbox.push(ping(), 0, 1_000)).count(), MOST);
    }
}
