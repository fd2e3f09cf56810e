//! The recent log as the tails write it and replays read it.

mod budget;

use crate::log::Snapshot;
use crate::log::backfill::Past;
use crate::log::config::Bounds;
use crate::log::interest::lines::Interests;
use crate::log::recent_events::FloorCount;
use crate::log::shared_window::budget::Budget;
use crate::log::window::{Gap, Pulled, RecentLog, Slice, Window};
use crate::model::command::SessionCommand;
use crate::model::event::Event;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::model::partition::{Line, Partitions};
use parking_lot::{RwLock, RwLockWriteGuard};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

/// A [`Window`] for each line, behind a lock that nobody holds for longer than a [`Slice`] takes, and what is to be in it.
/// The windows have their bytes together.
pub struct SharedWindow {
    lines: Box<[RwLock<Window>]>,
    budget: Budget,
    partitions: Partitions,
    interest: Arc<Interests>,
}

impl SharedWindow {
    /// An empty window of each line, which have so many bytes together. Events are kept for so long.
    pub fn new(partitions: Partitions, max_age: Duration, bounds: Bounds, interest: Interests) -> Self {
        let floors = FloorCount::of(partitions.lines().len());
        let of_line = |_| RwLock::new(Window::of_line(max_age, bounds, &floors));
        let lines = partitions.lines().map(of_line).collect();
        Self { lines, budget: Budget::new(bounds.bytes), partitions, interest: Arc::new(interest) }
    }

    /// Which line has the events of a room.
    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// The window of a line; of the control line where there is no such line.
    fn of(&self, line: Line) -> &RwLock<Window> {
        self.lines.get(line.index()).unwrap_or(&self.lines[0])
    }

    /// The rooms whose events it keeps.
    pub fn interest(&self) -> &Arc<Interests> {
        &self.interest
    }

    /// The newest known position of the control line.
    pub fn head(&self) -> Offset {
        self.head_of(Line::CONTROL)
    }

    /// The newest known position of a line.
    pub fn head_of(&self, line: Line) -> Offset {
        self.of(line).read().head()
    }

    /// Number of kept events.
    pub fn len(&self) -> usize {
        self.lines.iter().map(|window| window.read().len()).sum()
    }

    /// Bytes of the kept events.
    pub fn bytes(&self) -> usize {
        self.budget.used()
    }

    /// Whether no event is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The event at the offset's position on its line, if it is kept.
    pub fn event_at(&self, offset: Offset) -> Option<Arc<Event>> {
        self.of(offset.line).read().event_at(offset.position).cloned()
    }

    /// For the tail of a line. Once it is dropped, the windows of all lines together are within their bytes again. Nobody has
    /// two of them at once.
    pub fn write(&self, line: Line) -> WindowWriter<'_> {
        let window = self.of(line).write();
        WindowWriter { before: window.bytes(), window, over: Over(self) }
    }

    /// Begins anew with what is wanted of a snapshot.
    pub fn reset(&self, snapshot: &Snapshot, now_ms: u64) {
        let mut window = self.write(snapshot.line);
        if self.interest.is_everything() {
            return window.reset(snapshot, now_ms);
        }
        self.interest.of(snapshot.line).reset(snapshot.floor);
        window.begin(snapshot, now_ms, |event| self.interest.wants_event(event));
    }

    /// Takes a part of the log that was read again: what is wanted of it is covered from then on.
    pub fn fill(&self, mut past: Past, now_ms: u64) {
        let interest = self.interest.of(past.line);
        let mut window = self.write(past.line);
        if past.epoch != window.head().epoch {
            return;
        }
        window.note_unreadable(&past);
        let (after, up_to, rooms) = (past.after, past.up_to, std::mem::take(&mut past.rooms));
        window.fill(past, now_ms);
        // Only now: what is covered must be there.
        for (namespace, rooms) in &rooms {
            for (room, since) in rooms {
                interest.fill(namespace, room, after.max(*since), up_to);
            }
        }
        interest.fill_always(after, up_to);
    }
}

/// The window of a line, for its tail.
pub struct WindowWriter<'a> {
    window: RwLockWriteGuard<'a, Window>,
    before: usize,
    /// Dropped after the lock is free.
    over: Over<'a>,
}

impl Deref for WindowWriter<'_> {
    type Target = Window;

    fn deref(&self) -> &Window {
        &self.window
    }
}

impl DerefMut for WindowWriter<'_> {
    fn deref_mut(&mut self) -> &mut Window {
        &mut self.window
    }
}

impl Drop for WindowWriter<'_> {
    fn drop(&mut self) {
        self.over.0.budget.note(self.before, self.window.bytes());
    }
}

/// Sees to it that the lines are within their bytes.
struct Over<'a>(&'a SharedWindow);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.budget.settle(&self.0.lines);
    }
}

impl RecentLog for SharedWindow {
    fn partitions(&self) -> Partitions {
        self.partitions()
    }

    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        let window = self.of(after.line).read();
        window.covers(after, namespace, rooms)?;
        self.kept(&window, after, namespace, rooms)
    }

    fn pull(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room], max: Slice) -> Result<Pulled, Gap> {
        let window = self.of(after.line).read();
        let pulled = window.pull(after, up_to, namespace, rooms, max)?;
        self.kept(&window, after, namespace, rooms)?;
        Ok(pulled)
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        RecentLog::commands(&*self.of(Line::CONTROL).read(), after)
    }

    fn filled_up_to(&self, line: Line) -> Position {
        self.of(line).read().filled_up_to()
    }
}

impl SharedWindow {
    /// Whether everything of these rooms was to be kept.
    fn kept(&self, window: &Window, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        match self.interest.covers(after, namespace, rooms) {
            true => Ok(()),
            false if after.position < window.unreadable() => Err(Gap::TooOld),
            false => Err(Gap::NotKept),
        }
    }
}

#[cfg(test)]
mod tests;
