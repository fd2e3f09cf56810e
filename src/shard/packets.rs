//! The packets of a client, one at a time and within its rate.

use crate::model::close::CloseReason;
use crate::model::millis::Millis;
use crate::session::connection::ConnectionKey;
use crate::session::pending_packets::Inbound;
use crate::shard::hub::Hub;

impl Hub {
    /// Counts a message against the connection's rate; `false` when the connection is closing, for this or another reason.
    pub(super) fn take_turn(&mut self, key: ConnectionKey, now: Millis) -> bool {
        let open = self.connections.get_mut(key).filter(|connection| connection.closing.is_none());
        let Some(connection) = open else { return false };
        let allowed = connection.bucket.take(now, self.context.limits.events_per_second);
        if !allowed {
            self.close(key, CloseReason::RateLimit, now);
        }
        allowed
    }

    /// Takes a packet to be worked on now; `None` when it waits behind an earlier one, or the connection is gone.
    pub(super) fn begin_packet(&mut self, key: ConnectionKey, packet: Inbound, now: Millis) -> Option<Inbound> {
        let connection = self.connections.get_mut(key)?;
        let Some(pending) = &mut connection.inbox else {
            connection.inbox = Some(Box::default());
            return Some(packet);
        };
        if !pending.push(packet, self.context.socketio.max_payload) {
            self.close(key, CloseReason::RateLimit, now);
        }
        None
    }

    /// The packet behind the one that is done.
    pub(super) fn next_packet(&mut self, key: ConnectionKey) -> Option<Inbound> {
        let connection = self.connections.get_mut(key)?;
        let next = connection.inbox.as_mut().and_then(|pending| pending.pop());
        if next.is_none() {
            connection.inbox = None;
        }
        next
    }
}
