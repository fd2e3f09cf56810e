//! The recent log as the tail writes it and replays read it.

use crate::log::window::{Gap, Pulled, RecentLog, Slice, Window};
use crate::model::command::SessionCommand;
use crate::model::event::Event;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use parking_lot::{RwLock, RwLockWriteGuard};
use std::sync::Arc;

/// A [`Window`] behind a lock that nobody holds for longer than a [`Slice`] takes.
pub struct SharedWindow(RwLock<Window>);

impl SharedWindow {
    /// Shares a window.
    pub fn new(window: Window) -> Self {
        Self(RwLock::new(window))
    }

    /// The newest known position.
    pub fn head(&self) -> Offset {
        self.0.read().head()
    }

    /// The event at this position, if it is kept.
    pub fn event_at(&self, position: Position) -> Option<Arc<Event>> {
        self.0.read().event_at(position).cloned()
    }

    /// For the tail.
    pub fn write(&self) -> RwLockWriteGuard<'_, Window> {
        self.0.write()
    }
}

impl RecentLog for SharedWindow {
    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        self.0.read().covers(after, namespace, rooms)
    }

    fn pull(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room], max: Slice) -> Result<Pulled, Gap> {
        self.0.read().pull(after, up_to, namespace, rooms, max)
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        RecentLog::commands(&*self.0.read(), after)
    }
}
