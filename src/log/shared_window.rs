//! The recent log as the tail writes it and replays read it.

use crate::log::interest::Interest;
use crate::log::window::{Gap, Pulled, RecentLog, Slice, Window};
use crate::model::command::SessionCommand;
use crate::model::event::Event;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::model::partition::Partitions;
use parking_lot::{RwLock, RwLockWriteGuard};
use std::sync::Arc;

/// A [`Window`] behind a lock that nobody holds for longer than a [`Slice`] takes, and what is to be in it.
pub struct SharedWindow {
    window: RwLock<Window>,
    interest: Arc<Interest>,
}

impl SharedWindow {
    /// Shares a window.
    pub fn new(window: Window, interest: Interest) -> Self {
        Self { window: RwLock::new(window), interest: Arc::new(interest) }
    }

    /// The rooms whose events it keeps.
    pub fn interest(&self) -> &Arc<Interest> {
        &self.interest
    }

    /// Which line has the events of a room.
    pub fn partitions(&self) -> Partitions {
        Partitions::ONE
    }

    /// The newest known position.
    pub fn head(&self) -> Offset {
        self.window.read().head()
    }

    /// The event at this position, if it is kept.
    pub fn event_at(&self, position: Position) -> Option<Arc<Event>> {
        self.window.read().event_at(position).cloned()
    }

    /// For the tail.
    pub fn write(&self) -> RwLockWriteGuard<'_, Window> {
        self.window.write()
    }
}

impl RecentLog for SharedWindow {
    fn partitions(&self) -> Partitions {
        self.partitions()
    }

    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        self.window.read().covers(after, namespace, rooms)
    }

    fn pull(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room], max: Slice) -> Result<Pulled, Gap> {
        self.window.read().pull(after, up_to, namespace, rooms, max)
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        RecentLog::commands(&*self.window.read(), after)
    }
}
