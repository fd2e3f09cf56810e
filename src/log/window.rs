//! The recent part of the log, kept in memory by every node, from which clients resume
//! (docs/decisions/08-recovery-from-memory.md).

use crate::log::Snapshot;
use crate::log::backfill::Past;
use crate::log::config::Bounds;
use crate::log::recent_commands::{Missing, RecentCommands};
use crate::log::recent_events::{FloorCount, RecentEvents};
use crate::model::command::SessionCommand;
use crate::model::event::Event;
use crate::model::names::Room;
use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::{Line, Partitions};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;
use std::time::Duration;

/// Session commands may use this fraction of the bytes of events.
const COMMANDS_FRACTION: usize = 16;

/// The events of the last minutes, bounded by age and bytes, with an index by room. Sans-IO.
#[derive(Debug)]
pub struct Window {
    max_age_ms: u64,
    line: Line,
    epoch: Epoch,
    head: Position,
    /// Up to here entries were read again. Shards get what comes after it live.
    filled_up_to: Position,
    /// The log no longer has what was before this, or more than may be read.
    unreadable: Position,
    events: RecentEvents,
    commands: RecentCommands,
}

/// How much is taken from the window at once. The last event may go over the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Number of events.
    pub events: usize,
    /// Bytes of them.
    pub bytes: usize,
}

/// Events from the window.
#[derive(Debug)]
pub struct Pulled {
    /// In log order.
    pub events: Vec<Arc<Event>>,
    /// These are all up to here.
    pub up_to: Position,
}

/// The recent log as replays read it: of each line, which an offset names, the part that is kept.
pub trait RecentLog {
    /// Which line has the events of a room.
    fn partitions(&self) -> Partitions {
        Partitions::ONE
    }

    /// See [`Window::covers`].
    ///
    /// # Errors
    /// When that cannot be proven.
    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap>;

    /// See [`Window::pull`].
    ///
    /// # Errors
    /// When it cannot be proven that these are all.
    fn pull(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room], max: Slice) -> Result<Pulled, Gap>;

    /// See [`Window::commands`].
    ///
    /// # Errors
    /// When it cannot be proven that these are all.
    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap>;

    /// See [`Window::filled_up_to`].
    fn filled_up_to(&self, line: Line) -> Position;
}

impl RecentLog for Window {
    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        self.covers(after, namespace, rooms)
    }

    fn pull(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room], max: Slice) -> Result<Pulled, Gap> {
        self.pull(after, up_to, namespace, rooms, max)
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        self.commands(after).map(|commands| commands.map(|(at, command)| (at, command.clone())).collect())
    }

    fn filled_up_to(&self, _line: Line) -> Position {
        self.filled_up_to()
    }
}

/// Why it is unknown what a client missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// The offset is of another epoch, or of another log.
    #[error("the offset belongs to another epoch of the log")]
    ForeignEpoch,
    /// Events after the offset are no longer kept.
    #[error("the offset is older than what is kept (`recovery.window`, `recovery.window_bytes`)")]
    TooOld,
    /// This node did not keep them, because no session here wanted them. The log may still have them.
    #[error("the offset is older than what this node kept of its rooms, and the log could not be read in time")]
    NotKept,
    /// The offset is ahead of everything this node has read.
    #[error("the offset is ahead of the log")]
    Future,
}

impl Gap {
    /// A metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::ForeignEpoch => "foreign_epoch",
            Self::TooOld => "too_old",
            Self::NotKept => "not_kept",
            Self::Future => "future",
        }
    }
}

impl Window {
    /// An empty window; with an age or a size of zero it never keeps anything. Rooms have no bound of their own.
    pub fn new(max_age: Duration, max_bytes: usize) -> Self {
        Self::within(max_age, Bounds { bytes: max_bytes, room_bytes: usize::MAX, tenant_segments: 0 })
    }

    /// The same within these bounds.
    pub fn within(max_age: Duration, bounds: Bounds) -> Self {
        Self::of_line(max_age, bounds, &FloorCount::of(1))
    }

    /// That of one of several lines, which may have the bytes together: see [`RecentEvents::of_line`].
    pub(super) fn of_line(max_age: Duration, bounds: Bounds, floors: &FloorCount) -> Self {
        let max_age_ms = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        Self {
            max_age_ms,
            line: Line::CONTROL,
            epoch: Epoch(0),
            head: Position::default(),
            filled_up_to: Position::default(),
            unreadable: Position::default(),
            events: RecentEvents::of_line(bounds, floors),
            commands: RecentCommands::new(max_age_ms, bounds.bytes / COMMANDS_FRACTION),
        }
    }

    /// Forgets everything and takes over a snapshot.
    pub fn reset(&mut self, snapshot: &Snapshot, now_ms: u64) {
        self.begin(snapshot, now_ms, |_| true);
        self.events.raise_floor(snapshot.floor);
    }

    /// The same with a part of the history. What is left out, and what was before it, is for the caller to know.
    pub fn begin(&mut self, snapshot: &Snapshot, now_ms: u64, is_kept: impl Fn(&Event) -> bool) {
        self.events.clear();
        self.line = snapshot.line;
        self.epoch = snapshot.epoch;
        self.filled_up_to = Position::default();
        self.unreadable = Position::default();
        self.head = snapshot.floor;
        for event in snapshot.history.iter().filter(|event| is_kept(event)) {
            self.push(event.clone(), now_ms);
        }
        self.commands.reset(snapshot.floor);
        for (position, command) in &snapshot.commands {
            self.commands.push(*position, command.clone(), now_ms);
        }
        self.advance(snapshot.head);
    }

    /// The newest known position. A later offset may be valid: a client can have it from a node that is ahead.
    pub fn head(&self) -> Offset {
        Offset { epoch: self.epoch, position: self.head, line: self.line }
    }

    /// The oldest position from which a resume may be complete. A room may have a later one: see [`Self::covers`].
    pub fn floor(&self) -> Offset {
        Offset { epoch: self.epoch, position: self.events.floor(), line: self.line }
    }

    /// The kept events.
    pub(super) fn events(&self) -> &RecentEvents {
        &self.events
    }

    /// The same, for whoever drops some.
    pub(super) fn events_mut(&mut self) -> &mut RecentEvents {
        &mut self.events
    }

    /// Bytes of the kept events.
    pub fn bytes(&self) -> usize {
        self.events.bytes()
    }

    /// Number of kept events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether no event is kept.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Number of rooms in the index.
    pub fn rooms(&self) -> usize {
        self.events.rooms()
    }

    /// The log was read up to this position; all events up to it were pushed.
    pub fn advance(&mut self, position: Position) {
        self.head = self.head.max(position);
    }

    /// Takes the next event in log order and drops what is too old or too much. Volatile events are not kept. `now_ms` must
    /// not go back.
    pub fn push(&mut self, event: Arc<Event>, now_ms: u64) {
        if !event.draft.volatile {
            self.advance(event.offset.position);
            self.events.push(event, now_ms);
        }
        self.expire(now_ms);
    }

    /// Takes what was read again of the log, in (`past.after`, `past.up_to`]: events that are not kept yet, and commands.
    pub fn fill(&mut self, past: Past, now_ms: u64) {
        if past.epoch != self.epoch {
            return;
        }
        let age = |position: Position| past.up_to.ms.max(self.head.ms).saturating_sub(position.ms);
        let pushed = |position: Position| now_ms.saturating_sub(age(position));
        let events = past.events.into_iter().filter(|event| !event.draft.volatile);
        let commands = past.commands.into_iter().map(|(at, command)| (pushed(at), at, command)).collect();
        self.commands.fill(past.after, past.up_to, commands, now_ms);
        self.events.insert(events.map(|event| (pushed(event.offset.position), event)));
        self.filled_up_to = self.filled_up_to.max(past.up_to);
        self.expire(now_ms);
    }

    /// Notes what a pass over the log could not read, so that nobody asks for it again and again.
    pub fn note_unreadable(&mut self, past: &Past) {
        if past.after > past.asked_after {
            self.unreadable = self.unreadable.max(past.after);
        }
        for (namespace, rooms) in &past.full {
            rooms.iter().for_each(|(room, at)| self.events.raise_room(namespace, room, *at));
        }
    }

    /// Nothing before this position can be read again.
    pub fn unreadable(&self) -> Position {
        self.unreadable
    }

    /// Who continues before this position would miss what was read again.
    pub fn filled_up_to(&self) -> Position {
        self.filled_up_to
    }

    /// Takes the session command at this position.
    pub fn push_command(&mut self, position: Position, command: Arc<SessionCommand>, now_ms: u64) {
        self.advance(position);
        self.commands.push(position, command, now_ms);
    }

    /// The session commands after `after`, for a session whose rooms are known as of `after`.
    ///
    /// # Errors
    /// When it is unknown whether these are all.
    pub fn commands(&self, after: Offset) -> Result<impl Iterator<Item = (Position, &Arc<SessionCommand>)>, Gap> {
        if after.epoch != self.epoch {
            return Err(Gap::ForeignEpoch);
        }
        self.commands.after(after.position).map_err(|missing| match missing {
            Missing::Dropped => Gap::TooOld,
            Missing::NotRead => Gap::NotKept,
        })
    }

    /// The event at this position, if it is kept.
    pub fn event_at(&self, position: Position) -> Option<&Arc<Event>> {
        self.events.event_at(position)
    }

    /// Drops what is too old or too much, also while there are no events.
    pub fn expire(&mut self, now_ms: u64) {
        self.commands.expire(now_ms);
        self.events.evict_old(self.max_age_ms, now_ms);
        self.events.bound();
    }

    /// Whether everything after `after` is still here for these rooms.
    ///
    /// # Errors
    /// When that cannot be proven.
    pub fn covers<R: AsRef<str>>(&self, after: Offset, namespace: &str, rooms: &[R]) -> Result<(), Gap> {
        if after.epoch != self.epoch {
            return Err(Gap::ForeignEpoch);
        }
        if after.position > self.head {
            return Err(Gap::Future);
        }
        if !self.events.covers(after.position, namespace, rooms) {
            return Err(Gap::TooOld);
        }
        Ok(())
    }

    /// The first events in (`after`, `up_to`] for any of the rooms, in log order, each once, as many as `max` allows. What
    /// an event excepts is not looked at.
    ///
    /// # Errors
    /// When it is unknown whether these are all.
    pub fn pull<R: AsRef<str>>(
        &self,
        after: Offset,
        up_to: Position,
        namespace: &str,
        rooms: &[R],
        max: Slice,
    ) -> Result<Pulled, Gap> {
        self.covers(after, namespace, rooms)?;
        let mut pulled = Pulled { events: Vec::new(), up_to };
        let of_room = |room: &R| self.events.room(namespace, room.as_ref());
        let lists: Vec<_> = rooms.iter().flat_map(of_room).flatten().collect();
        let head = |list: usize, at: usize| Some(Reverse((lists[list].get(at)?.offset.position, list, at)));
        let first = |list: usize| head(list, lists[list].first_after(after.position));
        let mut heads: BinaryHeap<_> = (0..lists.len()).filter_map(first).collect();
        let (mut bytes, mut last) = (0, None);
        while let Some(mut top) = heads.peek_mut() {
            let Reverse((position, list, at)) = *top;
            if position > up_to {
                break;
            }
            if last.replace(position) != Some(position)
                && let Some(event) = lists[list].get(at)
            {
                if let Some(previous) = pulled.events.last()
                    && (pulled.events.len() >= max.events || bytes >= max.bytes)
                {
                    pulled.up_to = previous.offset.position;
                    break;
                }
                bytes += event.size();
                pulled.events.push(event.clone());
            }
            match head(list, at + 1) {
                Some(next) => *top = next,
                None => drop(PeekMut::pop(top)),
            }
        }
        Ok(pulled)
    }
}

#[cfg(test)]
mod tests;
