//! The window that a server judges by, where a rule may be left out.

use roomcast::log::shared_window::SharedWindow;
use roomcast::log::window::{Gap, Pulled, RecentLog, Slice};
use roomcast::model::command::SessionCommand;
use roomcast::model::event::Event;
use roomcast::model::names::Room;
use roomcast::model::offset::{Offset, Position};
use roomcast::model::partition::{Line, Partitions};
use std::sync::Arc;

/// The window, without the rule that is left out.
pub(crate) struct Judged<'a> {
    pub window: &'a SharedWindow,
    pub lives_early: bool,
    pub replays_never_wait: bool,
    pub replays_have_no_clock: bool,
}

impl<'a> Judged<'a> {
    pub(crate) fn of(window: &'a SharedWindow) -> Self {
        Self { window, lives_early: false, replays_never_wait: false, replays_have_no_clock: false }
    }

    fn judged(&self, event: &Event) -> Event {
        Event {
            offset: event.offset,
            draft: event.draft.clone(),
            accepted_us: if self.replays_have_no_clock { 0 } else { event.accepted_us },
            after: event.after.clone().filter(|_| !self.replays_never_wait),
        }
    }
}

impl RecentLog for Judged<'_> {
    fn partitions(&self) -> Partitions {
        self.window.partitions()
    }

    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        self.window.covers(after, namespace, rooms)
    }

    fn pull(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room], max: Slice) -> Result<Pulled, Gap> {
        let mut pulled = self.window.pull(after, up_to, namespace, rooms, max)?;
        if self.replays_never_wait || self.replays_have_no_clock {
            pulled.events.iter_mut().for_each(|event| *event = Arc::new(self.judged(event)));
        }
        Ok(pulled)
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        self.window.commands(after)
    }

    fn filled_up_to(&self, line: Line) -> Position {
        if self.lives_early { Position::default() } else { self.window.filled_up_to(line) }
    }
}
