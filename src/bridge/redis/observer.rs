//! A sink before the shards' that notes copies as they come out of the log.

use crate::bridge::copy_tracker::{Content, Digest, EARLY_COPY_MS};
use crate::bridge::redis::EmitterBridge;
use crate::bridge::request::Directive;
use crate::log::{BoxFuture, Sink, Snapshot};
use crate::model::clock::unix_ms;
use crate::model::command::{Selector, SessionCommand};
use crate::model::draft::Source;
use crate::model::event::{Batch, Event};
use crate::model::id::Id;
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use std::sync::Arc;

/// See the module.
pub struct CopyObserver {
    bridge: Arc<EmitterBridge>,
    next: Arc<dyn Sink>,
}

impl CopyObserver {
    /// Observes what goes to `next`.
    pub fn new(bridge: Arc<EmitterBridge>, next: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(Self { bridge, next })
    }

    fn apply(&self, observed: Observed) {
        self.note(observed.copies.into_iter());
        self.bridge.probing.send_if_modified(|probe| {
            let came = probe.is_some_and(|probe| observed.probes.contains(&probe));
            if came {
                *probe = None;
            }
            came
        });
    }

    fn note(&self, copies: impl Iterator<Item = Digest>) {
        let now = self.bridge.now_ms();
        let mut tracker = self.bridge.tracker();
        copies.for_each(|copy| tracker.saw_copy(copy, now));
    }
}

/// What is noted of a batch.
struct Observed {
    copies: Vec<Digest>,
    probes: Vec<Id>,
}

impl Observed {
    fn of(batch: &Batch) -> Self {
        let events = batch.events.iter().filter_map(|event| of_event(event));
        let commands = batch.commands.iter().filter_map(|placed| of_command(&placed.command));
        Self { copies: events.chain(commands).collect(), probes: batch.probes.clone() }
    }
}

impl Sink for CopyObserver {
    fn reset(&self, snapshot: Snapshot) {
        // Copies made since the subscription began; older ones are of messages that this node did not receive.
        let since = unix_ms().saturating_sub(EARLY_COPY_MS);
        let events = snapshot.history.iter().filter(|event| event.accepted_us / 1000 >= since);
        self.note(events.filter_map(|event| of_event(event)));
        let commands = snapshot.commands.iter().filter(|(position, _)| position.ms >= since);
        self.note(commands.filter_map(|(_, command)| of_command(command)));
        self.next.reset(snapshot);
    }

    fn renewed(&self, snapshot: Snapshot) {
        self.next.renewed(snapshot);
    }

    fn wants(&self, namespace: &str, room: &str, at: Offset) -> bool {
        let is_wanted = self.next.wants(namespace, room, at);
        // Any event of the control line may be the copy of a message that this node received.
        is_wanted || at.line == Line::CONTROL
    }

    fn foresee(&self, command: &SessionCommand) {
        self.next.foresee(command);
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, ()> {
        self.apply(Observed::of(&batch));
        self.next.deliver(batch)
    }

    fn try_deliver(&self, batch: Batch) -> Result<(), Batch> {
        let observed = Observed::of(&batch);
        self.next.try_deliver(batch)?;
        self.apply(observed);
        Ok(())
    }

    fn advanced_to(&self, line: Line, position: Position) {
        self.next.advanced_to(line, position);
    }
}

/// The digest of a copy of a received message. Copies of streams' entries have ids.
fn of_event(event: &Event) -> Option<Digest> {
    let draft = &event.draft;
    let copied = draft.source == Source::Emitter && !draft.volatile && draft.id.is_none();
    copied.then(|| Content::Event(draft.clone()).digest())
}

/// The digest of a copy of a command: only emitters select like this.
fn of_command(command: &SessionCommand) -> Option<Digest> {
    let SessionCommand { selector, namespace, action, .. } = command;
    let namespace = namespace.clone()?;
    let copied = matches!(selector, Selector::RoomsExcept { .. });
    copied.then(|| {
        Content::SessionCommand(Directive { namespace, selector: selector.clone(), action: action.clone() }).digest()
    })
}
