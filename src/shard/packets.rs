//! The packets of a client, one at a time and within its rate.

use crate::model::millis::Millis;
use crate::protocol::socketio::max_attached;
use crate::session::connection::{ConnectionKey, SessionKey};
use crate::session::pending_packets::Inbound;
use crate::shard::hub::Hub;
use std::time::Duration;

/// When to retry while the queue is full. A guess: the backend's time is not known.
const QUEUE_RETRY: Duration = Duration::from_secs(1);

/// What is done with a packet that has arrived.
pub enum Begun {
    /// It is handled now, which is when it arrived.
    Work(Inbound, Millis),
    /// It is the first that waits for the connection's rate: the caller must start working off the queue.
    Defer,
    /// It waits behind others, or the connection is gone.
    Wait,
    /// It finds no room, or is over the rate and its sender waits for an answer; how many wait for the rate before it.
    Refuse(Inbound, usize),
}

/// What follows a packet that is done.
pub enum Next {
    /// The next one, and when it arrived.
    Packet(Inbound, Millis),
    /// The next one may begin after this time.
    Later(Duration),
    /// Nothing.
    Done,
}

/// What a client that was refused is answered.
pub struct RefusedTurn {
    /// When it may retry; `None` if it goes on despite refusals and is to be closed.
    pub retry: Option<Duration>,
    /// Whether it is the first refusal after a pause.
    pub is_first: bool,
    /// One of the connection's sessions.
    pub session: Option<SessionKey>,
}

impl Hub {
    /// Counts a message against the connection's rate; `None` when the connection is closing.
    pub(super) fn take_turn(&mut self, key: ConnectionKey, now: Millis) -> Option<bool> {
        let connection = self.connections.get_mut(key).filter(|connection| connection.closing.is_none())?;
        Some(connection.bucket.take(now, self.context.limits.rate()))
    }

    /// Takes a packet.
    pub(super) fn begin_packet(&mut self, key: ConnectionKey, packet: Inbound, now: Millis) -> Begun {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.closing.is_none()) else {
            return Begun::Wait;
        };
        // Order is kept: it must not overtake packets that wait for the rate.
        let ahead = connection.pending.as_ref().map_or(0, |pending| pending.deferred());
        let in_rate = ahead == 0 && connection.bucket.take(now, self.context.limits.rate());
        if !in_rate && packet.wants_answer() {
            return Begun::Refuse(packet, ahead);
        }
        let pending = connection.pending.get_or_insert_default();
        let idle = !pending.is_working;
        pending.is_working = true;
        if in_rate && idle {
            return Begun::Work(packet, now);
        }
        // A client without a session has nothing to send that is larger than one message.
        let max_payload = self.context.socketio.max_payload;
        let max_bytes = if connection.sessions.is_empty() { max_payload } else { max_attached(max_payload) };
        match pending.push(packet, !in_rate, now, max_bytes) {
            Ok(()) if idle => Begun::Defer,
            Ok(()) => Begun::Wait,
            Err(packet) => Begun::Refuse(packet, ahead),
        }
    }

    /// The packet behind the one that is done.
    pub(super) fn next_packet(&mut self, key: ConnectionKey, now: Millis) -> Next {
        let Some(connection) = self.connections.get_mut(key) else { return Next::Done };
        let rate = self.context.limits.rate();
        let deferred = connection.pending.as_ref().is_some_and(|pending| pending.is_next_deferred());
        if deferred && !connection.bucket.take(now, rate) {
            return Next::Later(connection.bucket.wait(rate).max(Duration::from_millis(1)));
        }
        let Some(pending) = &mut connection.pending else { return Next::Done };
        match pending.pop(now) {
            Some((packet, arrived)) => Next::Packet(packet, arrived),
            None => {
                pending.is_working = false;
                if !pending.is_asking {
                    connection.pending = None;
                }
                Next::Done
            }
        }
    }

    /// Notes whether packets of the connection wait for the backend: it stays on this node as long as they do.
    pub(super) fn set_asking(&mut self, key: ConnectionKey, is_asking: bool) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.closing.is_none()) else {
            return;
        };
        let pending = connection.pending.get_or_insert_default();
        pending.is_asking = is_asking;
        if !is_asking && !pending.is_working {
            connection.pending = None;
        }
    }

    /// Notes that a message was refused while `ahead` others wait for the rate.
    pub(super) fn refuse_turn(&mut self, key: ConnectionKey, ahead: usize, now: Millis) -> Option<RefusedTurn> {
        let connection = self.connections.get_mut(key).filter(|connection| connection.closing.is_none())?;
        let rate = self.context.limits.rate();
        // In its rate, a packet found no room because earlier ones wait for the backend or the log.
        let least = if connection.bucket.wait(rate).is_zero() { QUEUE_RETRY } else { Duration::ZERO };
        let retry = connection.bucket.refuse(now, rate, ahead).map(|retry| retry.max(least));
        let is_first = connection.bucket.is_first_refusal();
        Some(RefusedTurn { retry, is_first, session: connection.sessions.first().copied() })
    }
}
