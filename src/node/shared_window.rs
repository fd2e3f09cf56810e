//! The recent log as the tail writes it and resuming clients read it.

use crate::log::window::{Gap, Window};
use crate::model::command::SessionCommand;
use crate::model::event::Event;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::session::recovery::RecentLog;
use parking_lot::{RwLock, RwLockWriteGuard};
use std::sync::Arc;

/// Events of the log looked at under one lock, so that a long replay does not hold up the tail: some 0.1 ms.
const SLICE: usize = 4_096;

/// A [`Window`] behind a lock that nobody holds for long.
pub struct SharedWindow(RwLock<Window>);

impl SharedWindow {
    /// Shares a window.
    pub fn new(window: Window) -> Self {
        Self(RwLock::new(window))
    }

    /// For the tail.
    pub fn write(&self) -> RwLockWriteGuard<'_, Window> {
        self.0.write()
    }
}

impl RecentLog for SharedWindow {
    /// Events that leave the window meanwhile are a gap.
    fn replay(
        &self,
        mut after: Offset,
        up_to: Position,
        namespace: &str,
        rooms: &[Room],
    ) -> Result<Vec<Arc<Event>>, Gap> {
        let mut missed = Vec::new();
        loop {
            let window = self.0.read();
            let end = window.slice_after(after.position, SLICE).filter(|end| *end < up_to);
            missed.extend(window.replay(after, end.unwrap_or(up_to), namespace, rooms)?);
            match end {
                Some(end) => after.position = end,
                None => return Ok(missed),
            }
        }
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        self.0.read().commands(after).map(|commands| commands.map(|(at, command)| (at, command.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Snapshot;
    use crate::model::args::Args;
    use crate::model::draft::{Draft, Source};
    use crate::model::offset::Epoch;
    use std::time::Duration;

    #[test]
    fn slices_make_the_same_replay() {
        let at = |ms| Position { ms, seq: 0 };
        let offset = |ms| Offset { epoch: Epoch(7), position: at(ms) };
        let mut window = Window::new(Duration::from_secs(1_000), 1 << 30);
        window.reset(
            &Snapshot { epoch: Epoch(7), floor: at(0), head: at(0), history: Vec::new(), commands: Vec::new() },
            0,
        );
        let last = 3 * SLICE as u64 + 5;
        for ms in 1..=last {
            let draft = Draft::new(if ms % 3 == 0 { "a" } else { "b" }, "e", Args::none(), Source::Http);
            window.push(Arc::new(Event { offset: offset(ms), draft, accepted_us: 0 }), 0);
        }
        let shared = SharedWindow::new(window);
        let rooms: [Room; 1] = ["a".into()];
        let positions = |after, up_to| -> Vec<u64> {
            let missed = shared.replay(offset(after), at(up_to), "/", &rooms).unwrap();
            missed.iter().map(|event| event.offset.position.ms).collect()
        };
        assert_eq!(positions(0, last), (1..=last).filter(|ms| ms % 3 == 0).collect::<Vec<_>>());
        assert_eq!(positions(SLICE as u64, 2 * SLICE as u64).len(), SLICE / 3);
        assert_eq!(shared.replay(offset(last + 1), at(last + 2), "/", &rooms).unwrap_err(), Gap::Future);
    }
}
