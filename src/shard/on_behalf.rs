//! Deliveries that another thread makes while the shard's own thread sleeps. To wake it costs some 30 µs, of which most is
//! the kernel's: a write to an eventfd, the return of `epoll_wait`, two changes of context. A write to a client costs 5 µs.
//! So whoever hands out an event writes it to a few clients itself, and where a shard has none in the event's rooms, only
//! moves its position.
//!
//! Why nothing is lost, doubled or out of order: there is one such thread at a time, because two calls of a
//! [`crate::log::Sink`] never run at once; it has the tables for itself, because it has their lock
//! ([`crate::shard::hub_cell`]); and it uses them only where the shard has carried out all that it was sent before
//! ([`crate::shard::handle::Backlog`]), which nobody else adds to. So the shard is at the position before these events, as it
//! would be when it took them from its queue: a session has joined a room before, and gets them, or joins behind them.

use crate::model::event::Delivery;
use crate::model::millis::Millis;
use crate::model::names::EVERYBODY;
use crate::model::namespaces::NamespaceIndex;
use crate::session::outbox;
use crate::shard::hub::Hub;
use std::sync::Arc;

/// Receivers of all events of one such delivery: so long the shard's thread may have to wait when it wakes meanwhile.
const MAX_RECEIVERS: usize = 16;
/// Events of one such delivery. More come under load, and then the shard's own core should do its part.
const MAX_EVENTS: usize = 4;

impl Hub {
    /// Delivers events and writes them, if they and their receivers are few; whether it did.
    pub(super) fn deliver_on_behalf(&mut self, events: &[Arc<Delivery>], now: Millis) -> bool {
        if events.len() > MAX_EVENTS {
            return false;
        }
        let receivers: usize = events.iter().map(|delivery| self.count_receivers(delivery)).sum();
        if receivers > MAX_RECEIVERS {
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

    /// How many sessions an event is for, at most.
    fn count_receivers(&self, delivery: &Delivery) -> usize {
        let draft = &delivery.event.draft;
        let Some(namespace) = self.context.namespaces.find(&draft.namespace) else { return 0 };
        draft.rooms.iter().map(|room| self.count_members(namespace, room)).sum()
    }

    fn count_members(&self, namespace: NamespaceIndex, room: &str) -> usize {
        if room == EVERYBODY {
            return self.sessions.by_namespace().get(namespace.place()).map_or(0, |count| *count as usize);
        }
        // A room that nobody is in may be a session's own.
        self.rooms.find(namespace, room).map_or(1, |room| self.rooms.members(room).len())
    }
}
