//! The recent part of the log, kept in memory by every node, from which clients resume
//! (docs/decisions/08-recovery-from-memory.md).

mod room_floors;
mod share;

use crate::log::Snapshot;
use crate::log::backfill::Past;
use crate::log::recent_commands::{Missing, RecentCommands};
use crate::log::window::room_floors::RoomFloors;
use crate::log::window::share::Share;
use crate::model::command::SessionCommand;
use crate::model::draft::Source;
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

/// A room with less than this fraction of the bytes never gives events away before others.
const LARGE_FRACTION: usize = 1024;
/// The index of what clients publish among the shares.
const OF_CLIENTS: usize = 1;

/// The events of the last minutes, bounded by age and bytes, with an index by room. Sans-IO.
///
/// Over the bytes, the share that has more than half of them, what clients publish or what all others do, gives away the
/// oldest event of a room that holds most of it. Then only sessions in that room have lost something. Where no room stands
/// out, the share's oldest event goes.
#[derive(Debug)]
pub struct Window {
    max_age_ms: u64,
    max_bytes: usize,
    line: Line,
    epoch: Epoch,
    floor: Position,
    head: Position,
    /// Up to here entries were read again. Shards get what comes after it live.
    filled_up_to: Position,
    /// The log no longer has what was before this, or more than may be read.
    unreadable: Position,
    /// Of all others, and of clients.
    shares: [Share; 2],
    floors: RoomFloors,
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
    /// An empty window; with an age or a size of zero it never keeps anything.
    pub fn new(max_age: Duration, max_bytes: usize) -> Self {
        let max_age_ms = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        let share = || Share::new(max_bytes / LARGE_FRACTION);
        Self {
            max_age_ms,
            max_bytes,
            line: Line::CONTROL,
            epoch: Epoch(0),
            floor: Position::default(),
            head: Position::default(),
            filled_up_to: Position::default(),
            unreadable: Position::default(),
            shares: [share(), share()],
            floors: RoomFloors::default(),
            commands: RecentCommands::new(max_age_ms, max_bytes / COMMANDS_FRACTION),
        }
    }

    /// Of each room at most so many bytes are kept.
    #[must_use]
    pub fn with_room_bytes(mut self, bytes: usize) -> Self {
        self.shares.iter_mut().for_each(|share| share.limit_rooms(bytes));
        self
    }

    /// Forgets everything and takes over a snapshot.
    pub fn reset(&mut self, snapshot: &Snapshot, now_ms: u64) {
        self.begin(snapshot, now_ms, |_| true);
        self.floor = self.floor.max(snapshot.floor);
    }

    /// The same with a part of the history. What is left out, and what was before it, is for the caller to know.
    pub fn begin(&mut self, snapshot: &Snapshot, now_ms: u64, is_kept: impl Fn(&Event) -> bool) {
        self.shares.iter_mut().for_each(Share::clear);
        self.floors = RoomFloors::default();
        self.line = snapshot.line;
        self.epoch = snapshot.epoch;
        self.floor = Position::default();
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
        Offset { epoch: self.epoch, position: self.floor, line: self.line }
    }

    /// Bytes of the kept events.
    pub fn bytes(&self) -> usize {
        self.shares.iter().map(Share::bytes).sum()
    }

    /// Number of kept events.
    pub fn len(&self) -> usize {
        self.shares.iter().map(Share::len).sum()
    }

    /// Whether no event is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of rooms in the index.
    pub fn rooms(&self) -> usize {
        self.shares.iter().map(Share::rooms).sum()
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
            let share = share_of(&event);
            if self.shares[share].push(event.clone(), now_ms) {
                self.evict_over(share, &event);
            }
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
        let mut shares: [Vec<_>; 2] = Default::default();
        for event in past.events.into_iter().filter(|event| !event.draft.volatile) {
            shares[share_of(&event)].push((pushed(event.offset.position), event));
        }
        let commands = past.commands.into_iter().map(|(at, command)| (pushed(at), at, command)).collect();
        self.commands.fill(past.after, past.up_to, commands, now_ms);
        for (share, events) in shares.into_iter().enumerate() {
            for event in self.shares[share].insert(events) {
                self.evict_over(share, &event);
            }
        }
        self.filled_up_to = self.filled_up_to.max(past.up_to);
        self.expire(now_ms);
    }

    /// Notes what a pass over the log could not read, so that nobody asks for it again and again.
    pub fn note_unreadable(&mut self, past: &Past) {
        if past.after > past.asked_after {
            self.unreadable = self.unreadable.max(past.after);
        }
        for (namespace, rooms) in &past.full {
            rooms.iter().for_each(|(room, at)| self.floors.raise_room(namespace, room, *at, self.floor));
            self.bound_floors();
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
        self.shares.iter().find_map(|share| share.event_at(position))
    }

    /// Drops what is too old or too much, also while there are no events.
    pub fn expire(&mut self, now_ms: u64) {
        self.commands.expire(now_ms);
        self.evict_old(now_ms);
        while self.bytes() > self.max_bytes {
            self.evict();
        }
    }

    /// Drops what is too old. Only its rooms have lost something: who was in other ones all the time may have an older offset.
    fn evict_old(&mut self, now_ms: u64) {
        let max_age_ms = self.max_age_ms;
        let is_old = |_, pushed_ms: u64| now_ms.saturating_sub(pushed_ms) >= max_age_ms;
        for share in 0..self.shares.len() {
            while let Some(event) = self.shares[share].evict_oldest(is_old) {
                if max_age_ms == 0 {
                    // Nothing is ever kept: it is not worth knowing of which rooms.
                    self.floor = self.floor.max(event.offset.position);
                    continue;
                }
                self.floors.raise(&event, self.floor);
                self.bound_floors();
            }
        }
    }

    /// Drops the oldest events of those of an event's rooms that have too much.
    fn evict_over(&mut self, share: usize, event: &Event) {
        for room in &event.draft.rooms {
            while let Some(gone) = self.shares[share].evict_over(&event.draft.namespace, room) {
                self.floors.raise(&gone, self.floor);
                self.bound_floors();
            }
        }
    }

    /// Drops one event.
    fn evict(&mut self) {
        let over = usize::from(self.shares[OF_CLIENTS].bytes() > self.max_bytes / 2);
        let other = self.shares[1 - over].oldest();
        if let Some(event) = self.shares[over].evict_of_largest() {
            self.floors.raise(&event, self.floor);
        } else {
            let mut is_first = false;
            let oldest = self.shares[over].evict_oldest(|position, _| {
                is_first = other.is_none_or(|other| position < other);
                true
            });
            match oldest {
                Some(event) if is_first => self.floor = self.floor.max(event.offset.position),
                Some(event) => self.floors.raise(&event, self.floor),
                None => {}
            }
        }
        self.bound_floors();
    }

    /// Where too many rooms have a floor of their own, all lose what lies before some of these.
    fn bound_floors(&mut self) {
        if let Some(up_to) = self.floors.overflow() {
            for share in &mut self.shares {
                while share.evict_oldest(|position, _| position <= up_to).is_some() {}
            }
            self.floor = self.floor.max(up_to);
            self.floors.forget_up_to(self.floor);
        }
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
        let covered = |room: &R| self.floors.covers(after.position, namespace, room.as_ref());
        if after.position < self.floor || !self.floors.is_empty() && !rooms.iter().all(covered) {
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
        let of_room = |room: &R| self.shares.each_ref().map(|share| share.room(namespace, room.as_ref()));
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

/// Which of the shares an event belongs to.
fn share_of(event: &Event) -> usize {
    if event.draft.source == Source::Client { OF_CLIENTS } else { 0 }
}

#[cfg(test)]
mod tests;
