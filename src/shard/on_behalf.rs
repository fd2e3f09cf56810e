//! Deliveries that another thread makes while the shard's own thread sleeps. To wake it costs some 30 µs, of which most is
//! the kernel's: a write to an eventfd, the return of `epoll_wait`, two changes of context. A write to a client costs 5 µs.
//! So whoever hands out an event writes it to a few clients itself, and where a shard has none in the event's rooms, only
//! moves its position.
//!
//! Why nothing is lost, doubled or out of order: of each line of the log there is one such thread at a time, because two calls
//! of a [`crate::log::Sink`] for one line never run at once; it has the tables for itself, because it has their lock
//! ([`crate::shard::hub_cell`]); and it uses them only where the shard has carried out all that it was sent of that line before
//! ([`crate::shard::handle::Backlog`]), which nobody else adds to. So the shard is at the position before these events, as it
//! would be when it took them from its queue: a session has joined a room before, and gets them, or joins behind them.
//!
//! The thread that hands out may be the shard's own. Where nothing uses its tables at the moment, all of the above holds for it, too.
//! It is awake, so it leaves the writing to the end of its turn.

use crate::model::event::Delivery;
use crate::model::millis::Millis;
use crate::model::names::{EVERYBODY, Room};
use crate::model::namespaces::NamespaceIndex;
use crate::session::outbox;
use crate::shard::hub::Hub;
use std::sync::Arc;

/// Receivers of all events of one such delivery: so long the shard's thread may have to wait when it wakes meanwhile.
const MAX_RECEIVERS: usize = 16;
/// Bytes that are written to them at most. More would hold up whoever hands out events, and the shard's core can do it meanwhile.
const MAX_BYTES: usize = 256 << 10;
/// Sessions in the rooms that the events except, each of which is marked.
const MAX_EXCEPTED: usize = 256;
/// Events of one such delivery. More come under load, and then the shard's own core should do its part.
const MAX_EVENTS: usize = 16;

/// What a delivery takes.
#[derive(Default)]
struct Work {
    receivers: usize,
    excepted: usize,
    bytes: usize,
}

impl Work {
    fn add(&mut self, receivers: usize, excepted: usize, size: usize) {
        self.receivers += receivers;
        self.excepted += excepted;
        self.bytes += receivers * size;
    }

    fn is_small(&self) -> bool {
        self.receivers <= MAX_RECEIVERS && self.excepted <= MAX_EXCEPTED && self.bytes <= MAX_BYTES
    }
}

impl Hub {
    /// Delivers events and writes them, if they and their receivers are few; whether it did.
    pub(super) fn deliver_on_behalf(&mut self, events: &[Arc<Delivery>], now: Millis) -> bool {
        if !self.is_little_work(events) {
            return false;
        }
        let ((), changed) = outbox::on_behalf(|| {
            self.flusher.attend(true);
            events.iter().for_each(|delivery| self.deliver_and_note(delivery, now));
            self.flush_slice(MAX_RECEIVERS, now);
            self.flusher.attend(false);
        });
        self.outbox_totals = self.outbox_totals.plus(changed);
        self.advanced.notify_waiters();
        true
    }

    /// Delivers events, if they and their receivers are few; whether it did. The shard's own thread writes them at the end of its
    /// turn, together with what else comes until then.
    pub(super) fn deliver_few(&mut self, events: &[Arc<Delivery>], now: Millis) -> bool {
        let is_little = self.is_little_work(events);
        if is_little {
            events.iter().for_each(|delivery| self.deliver_and_note(delivery, now));
            self.advanced.notify_waiters();
        }
        is_little
    }

    fn is_little_work(&self, events: &[Arc<Delivery>]) -> bool {
        if events.len() > MAX_EVENTS {
            return false;
        }
        let mut work = Work::default();
        events.iter().for_each(|delivery| self.count_work(delivery, &mut work));
        work.is_small()
    }

    /// Adds what it takes, at most, to deliver an event.
    fn count_work(&self, delivery: &Delivery, work: &mut Work) {
        let draft = &delivery.event.draft;
        let Some(namespace) = self.context.namespaces.find(&draft.namespace) else { return };
        let count = |rooms: &[Room]| -> usize { rooms.iter().map(|room| self.count_members(namespace, room)).sum() };
        work.add(count(&draft.rooms), count(&draft.except), delivery.event.size());
    }

    fn count_members(&self, namespace: NamespaceIndex, room: &str) -> usize {
        if room == EVERYBODY {
            return self.sessions.by_namespace().get(namespace.place()).map_or(0, |count| *count as usize);
        }
        // A room that nobody is in may be a session's own.
        self.rooms.find(namespace, room).map_or(1, |room| self.rooms.members(room).len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_receivers_of_little_and_few_that_are_excepted_are_small() {
        let is_small = |events: &[(usize, usize, usize)]| {
            let mut work = Work::default();
            events.iter().for_each(|&(receivers, excepted, size)| work.add(receivers, excepted, size));
            work.is_small()
        };
        assert!(is_small(&[(MAX_RECEIVERS, 1, 128)]));
        assert!(!is_small(&[(MAX_RECEIVERS, 1, 128), (1, 0, 128)]));
        assert!(!is_small(&[(1, MAX_EXCEPTED + 1, 128)]), "each of a large room that is excepted is marked");
        assert!(is_small(&[(0, 0, 1 << 20), (1, 0, MAX_BYTES)]), "what nobody here gets is not written");
        assert!(!is_small(&[(2, 0, MAX_BYTES)]));
    }
}
