//! Sees the copies come out of the log, on their way to the hub.

use crate::bridge::copy_tracker::{AHEAD, Content, Digest};
use crate::bridge::redis::Emitters;
use crate::bridge::request::Directive;
use crate::log::{Pending, Sink, Snapshot};
use crate::model::clock::unix_ms;
use crate::model::command::{Selector, SessionCommand};
use crate::model::draft::Source;
use crate::model::event::{Batch, Event};
use crate::model::offset::Position;
use std::sync::Arc;

/// A sink before another.
pub struct Watch {
    emitters: Arc<Emitters>,
    next: Arc<dyn Sink>,
}

impl Watch {
    /// Watches what goes to `next`.
    pub fn new(emitters: Arc<Emitters>, next: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(Self { emitters, next })
    }

    fn saw(&self, copies: impl Iterator<Item = Digest>) {
        let now = self.emitters.now_ms();
        let mut heard = self.emitters.heard();
        copies.for_each(|copy| heard.saw_copy(copy, now));
    }
}

impl Sink for Watch {
    fn reset(&self, snapshot: Snapshot) {
        // A copy that was made between the subscription and now; older ones are of what nobody heard here.
        let since = unix_ms().saturating_sub(AHEAD);
        let events = snapshot.history.iter().filter(|event| event.accepted_us / 1000 >= since);
        self.saw(events.filter_map(|event| of_event(event)));
        let orders = snapshot.commands.iter().filter(|(position, _)| position.ms >= since);
        self.saw(orders.filter_map(|(_, order)| of_order(order)));
        self.next.reset(snapshot);
    }

    fn deliver(&self, batch: Batch) -> Pending<'_, ()> {
        self.saw(batch.events.iter().filter_map(|event| of_event(event)));
        self.saw(batch.commands.iter().filter_map(|placed| of_order(&placed.command)));
        self.emitters.probing.send_if_modified(|probe| {
            let came = probe.is_some_and(|probe| batch.probes.contains(&probe));
            if came {
                *probe = None;
            }
            came
        });
        self.next.deliver(batch)
    }

    fn has_room(&self) -> bool {
        self.next.has_room()
    }

    fn advanced_to(&self, position: Position) {
        self.next.advanced_to(position);
    }
}

/// Of a copy of something heard: entries of streams have ids.
fn of_event(event: &Event) -> Option<Digest> {
    let draft = &event.draft;
    let copied = draft.source == Source::Emitter && !draft.volatile && draft.id.is_none();
    copied.then(|| Content::Event(draft.clone()).digest())
}

/// Nobody else selects like this.
fn of_order(order: &SessionCommand) -> Option<Digest> {
    let SessionCommand { selector, namespace, action: act, .. } = order;
    let namespace = namespace.clone()?;
    let copied = matches!(selector, Selector::RoomsExcept { .. });
    copied.then(|| {
        Content::SessionCommand(Directive { namespace, selector: selector.clone(), action: act.clone() }).digest()
    })
}
