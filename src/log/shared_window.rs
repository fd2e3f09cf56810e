//! The recent log as the tail writes it and replays read it.

use crate::log::Snapshot;
use crate::log::backfill::Past;
use crate::log::interest::Interest;
use crate::log::window::{Gap, Pulled, RecentLog, Slice, Window};
use crate::model::command::SessionCommand;
use crate::model::event::Event;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
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

    /// The newest known position.
    pub fn head(&self) -> Offset {
        self.window.read().head()
    }

    /// Number of kept events.
    pub fn len(&self) -> usize {
        self.window.read().len()
    }

    /// Whether no event is kept.
    pub fn is_empty(&self) -> bool {
        self.window.read().is_empty()
    }

    /// The event at this position, if it is kept.
    pub fn event_at(&self, position: Position) -> Option<Arc<Event>> {
        self.window.read().event_at(position).cloned()
    }

    /// For the tail.
    pub fn write(&self) -> RwLockWriteGuard<'_, Window> {
        self.window.write()
    }

    /// Begins anew with what is wanted of a snapshot.
    pub fn reset(&self, snapshot: &Snapshot, now_ms: u64) {
        let mut window = self.window.write();
        if self.interest.is_everything() {
            return window.reset(snapshot, now_ms);
        }
        self.interest.reset(snapshot.floor);
        window.begin(snapshot, now_ms, |event| self.interest.wants_event(event));
    }

    /// Takes a part of the log that was read again: what is wanted of it is covered from then on.
    pub fn fill(&self, mut past: Past, now_ms: u64) {
        let mut window = self.window.write();
        if past.epoch != window.head().epoch {
            return;
        }
        window.note_unreadable(&past);
        let (after, up_to, rooms) = (past.after, past.up_to, std::mem::take(&mut past.rooms));
        window.fill(past, now_ms);
        // Only now: what is covered must be there.
        for (namespace, rooms) in &rooms {
            for (room, since) in rooms {
                self.interest.fill(namespace, room, after.max(*since), up_to);
            }
        }
        self.interest.fill_always(after, up_to);
    }
}

impl RecentLog for SharedWindow {
    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        let window = self.window.read();
        window.covers(after, namespace, rooms)?;
        self.kept(&window, after, namespace, rooms)
    }

    fn pull(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room], max: Slice) -> Result<Pulled, Gap> {
        let window = self.window.read();
        let pulled = window.pull(after, up_to, namespace, rooms, max)?;
        self.kept(&window, after, namespace, rooms)?;
        Ok(pulled)
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        RecentLog::commands(&*self.window.read(), after)
    }

    fn filled_up_to(&self) -> Position {
        self.window.read().filled_up_to()
    }
}

impl SharedWindow {
    /// Whether everything of these rooms was to be kept.
    fn kept(&self, window: &Window, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        match rooms.iter().all(|room| self.interest.covers(namespace, room, after.position)) {
            true => Ok(()),
            false if after.position < window.unreadable() => Err(Gap::TooOld),
            false => Err(Gap::NotKept),
        }
    }
}
