//! The recent part of the log, kept in memory by every node, from which clients resume
//! (docs/decisions/08-recovery-from-memory.md).

use crate::log::Snapshot;
use crate::log::recent_commands::RecentCommands;
use crate::model::command::SessionCommand;
use crate::model::event::Event;
use crate::model::names::{Namespace, Room};
use crate::model::offset::{Epoch, Offset, Position};
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Session commands may use this fraction of the bytes of events.
const COMMANDS_FRACTION: usize = 16;

/// The events of the last minutes, bounded by age and bytes, with an index by room. Sans-IO.
#[derive(Debug)]
pub struct Window {
    max_age_ms: u64,
    max_bytes: usize,
    epoch: Epoch,
    floor: Position,
    head: Position,
    events: VecDeque<Kept>,
    /// The serial number of the front of `events`; serials count the kept events and never repeat.
    first_serial: u64,
    bytes: usize,
    index: HashMap<Namespace, HashMap<Room, Serials>>,
    commands: RecentCommands,
}

#[derive(Debug)]
struct Kept {
    event: Arc<Event>,
    /// When it was pushed, by the caller's clock.
    pushed_ms: u64,
}

/// The kept events of one room, oldest first. Most rooms see one event within a window.
#[derive(Debug)]
enum Serials {
    One(u64),
    Many(VecDeque<u64>),
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

/// The recent log as replays read it.
pub trait RecentLog {
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
            Self::Future => "future",
        }
    }
}

impl Window {
    /// An empty window; with an age or a size of zero it never keeps anything.
    pub fn new(max_age: Duration, max_bytes: usize) -> Self {
        let max_age_ms = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        Self {
            max_age_ms,
            max_bytes,
            epoch: Epoch(0),
            floor: Position::default(),
            head: Position::default(),
            events: VecDeque::new(),
            first_serial: 0,
            bytes: 0,
            index: HashMap::new(),
            commands: RecentCommands::new(max_age_ms, max_bytes / COMMANDS_FRACTION),
        }
    }

    /// Forgets everything and takes over a snapshot.
    pub fn reset(&mut self, snapshot: &Snapshot, now_ms: u64) {
        self.events.clear();
        self.index.clear();
        self.bytes = 0;
        self.epoch = snapshot.epoch;
        self.floor = snapshot.floor;
        self.head = snapshot.floor;
        for event in &snapshot.history {
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
        Offset { epoch: self.epoch, position: self.head }
    }

    /// The oldest position from which a resume is complete.
    pub fn floor(&self) -> Offset {
        Offset { epoch: self.epoch, position: self.floor }
    }

    /// Bytes of the kept events.
    pub fn bytes(&self) -> usize {
        self.bytes
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
        self.index.values().map(HashMap::len).sum()
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
            let serial = self.first_serial + self.events.len() as u64;
            self.note_rooms(&event, serial);
            self.bytes += event.size();
            self.events.push_back(Kept { event, pushed_ms: now_ms });
        }
        self.expire(now_ms);
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
        self.commands.after(after.position).ok_or(Gap::TooOld)
    }

    /// Drops what is too old, also while there are no events.
    pub fn expire(&mut self, now_ms: u64) {
        self.commands.expire(now_ms);
        while let Some(oldest) = self.events.front() {
            let old = now_ms.saturating_sub(oldest.pushed_ms) >= self.max_age_ms;
            if !old && self.bytes <= self.max_bytes {
                break;
            }
            self.evict();
        }
    }

    /// Whether everything after `after` is still here for these rooms.
    ///
    /// # Errors
    /// When that cannot be proven.
    pub fn covers<R: AsRef<str>>(&self, after: Offset, _namespace: &str, _rooms: &[R]) -> Result<(), Gap> {
        if after.epoch != self.epoch {
            return Err(Gap::ForeignEpoch);
        }
        if after.position > self.head {
            return Err(Gap::Future);
        }
        if after.position < self.floor { Err(Gap::TooOld) } else { Ok(()) }
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
        let Some(index) = self.index.get(namespace) else { return Ok(pulled) };
        let (from, to) = (self.serial_after(after.position), self.serial_after(up_to));
        let lists: Vec<_> = rooms.iter().filter_map(|room| index.get(room.as_ref())).collect();
        let first = |(list, serials): (usize, &&Serials)| {
            let at = serials.first_from(from);
            serials.get(at).map(|serial| Reverse((serial, list, at)))
        };
        let mut heads: BinaryHeap<_> = lists.iter().enumerate().filter_map(first).collect();
        let (mut bytes, mut last) = (0, None);
        while let Some(mut head) = heads.peek_mut() {
            let Reverse((serial, list, at)) = *head;
            if serial >= to {
                break;
            }
            if last.replace(serial) != Some(serial)
                && let Some(event) = self.get(serial)
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
            match lists[list].get(at + 1) {
                Some(next) => *head = Reverse((next, list, at + 1)),
                None => drop(PeekMut::pop(head)),
            }
        }
        Ok(pulled)
    }

    fn get(&self, serial: u64) -> Option<&Arc<Event>> {
        let at = usize::try_from(serial.checked_sub(self.first_serial)?).ok()?;
        self.events.get(at).map(|kept| &kept.event)
    }

    /// The serial number of the first kept event after a position.
    fn serial_after(&self, position: Position) -> u64 {
        self.first_serial + self.events.partition_point(|kept| kept.event.offset.position <= position) as u64
    }

    fn note_rooms(&mut self, event: &Event, serial: u64) {
        let rooms = self.index.entry(event.draft.namespace.clone()).or_default();
        for room in &event.draft.rooms {
            rooms.entry(room.clone()).and_modify(|serials| serials.push(serial)).or_insert(Serials::One(serial));
        }
    }

    fn evict(&mut self) {
        let Some(Kept { event, .. }) = self.events.pop_front() else { return };
        let serial = self.first_serial;
        self.first_serial += 1;
        self.bytes -= event.size();
        self.floor = event.offset.position;
        shrink_if_sparse(self.events.len(), self.events.capacity(), |max| self.events.shrink_to(max));
        let Some(rooms) = self.index.get_mut(&event.draft.namespace) else { return };
        for room in &event.draft.rooms {
            if rooms.get_mut(room).is_some_and(|serials| !serials.drop_up_to(serial)) {
                rooms.remove(room);
            }
        }
        shrink_if_sparse(rooms.len(), rooms.capacity(), |max| rooms.shrink_to(max));
        if rooms.is_empty() {
            self.index.remove(&event.draft.namespace);
        }
    }
}

/// Gives memory back after a peak, seldom enough that its cost does not count.
fn shrink_if_sparse(len: usize, capacity: usize, shrink: impl FnOnce(usize)) {
    if capacity > 1024 && len < capacity / 8 {
        shrink(len * 2);
    }
}

impl Serials {
    /// The same serial twice, from a draft that names a room twice, is kept once.
    fn push(&mut self, serial: u64) {
        match self {
            Self::One(only) if *only == serial => {}
            Self::One(only) => *self = Self::Many(VecDeque::from([*only, serial])),
            Self::Many(serials) if serials.back() == Some(&serial) => {}
            Self::Many(serials) => serials.push_back(serial),
        }
    }

    /// Forgets serials up to and including this one; false when none is left.
    fn drop_up_to(&mut self, serial: u64) -> bool {
        match self {
            Self::One(only) => *only > serial,
            Self::Many(serials) => {
                while serials.front().is_some_and(|&first| first <= serial) {
                    serials.pop_front();
                }
                shrink_if_sparse(serials.len(), serials.capacity(), |max| serials.shrink_to(max));
                !serials.is_empty()
            }
        }
    }

    /// Where the serials from this one on begin.
    fn first_from(&self, from: u64) -> usize {
        match self {
            Self::One(only) => usize::from(*only < from),
            Self::Many(serials) => serials.partition_point(|&serial| serial < from),
        }
    }

    fn get(&self, at: usize) -> Option<u64> {
        match self {
            Self::One(only) => (at == 0).then_some(*only),
            Self::Many(serials) => serials.get(at).copied(),
        }
    }
}

#[cfg(test)]
mod tests;
