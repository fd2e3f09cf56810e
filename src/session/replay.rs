//! What a session has still to get from the recent log (sans-IO): a cursor, not a copy. The session's connection pulls from
//! it as its socket takes more. While it is behind, live events are not queued: the cursor comes to them.
//!
//! A session with rooms in several partitions has a position on each of their lines, and is behind until it has caught up on
//! all. What is replayed has the order that is promised across lines ([`merge`]).

mod line;
mod merge;
mod step;

use crate::log::window::{RecentLog, Slice};
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::model::partition::{Line, Partitions};
use crate::model::place::Place;
use crate::session::changes::Change;
use crate::session::parked::UNPROVABLE;
use crate::session::replay::line::LineReplay;

pub use step::{Missed, Missing, Step};

/// The cursor of one session.
#[derive(Debug)]
pub struct Replay {
    own: Id,
    /// The control line's first.
    lines: Vec<LineReplay>,
    /// Its client goes on in each room by itself.
    by_room: bool,
    /// Some of what the session missed was no longer kept, and the cursor went past it.
    has_lost: bool,
}

impl Replay {
    /// For a session that missed this. The shard is `here`.
    pub fn new(own: &Id, missing: Vec<Missing>, here: &Place) -> Self {
        let line = |missing: Missing| {
            let begun = here.on(missing.after.line).map_or(missing.after.position, |here| here.position);
            LineReplay::new(own, missing, begun)
        };
        Self { own: *own, lines: missing.into_iter().map(line).collect(), by_room: false, has_lost: false }
    }

    /// For a client that goes on in each room by itself (`/ws`): with an event it has everything of that room alone.
    pub fn by_room(self) -> Self {
        Self { by_room: true, ..self }
    }

    /// For a session that has had these rooms since `after`.
    pub fn of_rooms(own: &Id, rooms: &[Room], partitions: Partitions, after: &Place, here: &Place) -> Self {
        let missing = after.offsets().map(|after| {
            let rooms = rooms.iter().filter(|room| partitions.may_bring(after.line, room)).cloned().collect();
            Missing { after, rooms, changes: Vec::new() }
        });
        Self::new(own, missing.collect(), here)
    }

    /// Continues a cursor that ended where this one begins.
    pub fn append(&mut self, later: Self) {
        for line in later.lines {
            match self.find(line.after().line) {
                Some(at) => self.lines[at].append(line),
                None => self.lines.push(line),
            }
        }
    }

    /// Adds the past of a room, in (`after`, `up_to`] of each line that has events of it.
    pub fn add_past(&mut self, room: &Room, after: &Place, up_to: &Place) {
        for line in &mut self.lines {
            if let (Some(after), Some(up_to)) = (after.on(line.after().line), up_to.on(line.after().line)) {
                line.add_past(room, after.position, up_to.position);
            }
        }
    }

    /// Takes note that the session joined or left a room.
    pub fn note(&mut self, change: &Change) {
        if let Some(after) = change.partition.filter(|partition| self.find(partition.line).is_none()) {
            // Everything before is live, or it was in no room there.
            let missing = Missing { after, rooms: Vec::new(), changes: Vec::new() };
            self.lines.push(LineReplay::new(&self.own, missing, after.position));
        }
        self.lines.iter_mut().for_each(|line| line.note(change.clone()));
    }

    /// Nothing more of this room is for the session of what was before its shard was `here`, on any line: what came on one would
    /// hide that it is missing on another. Its client left it, joins it anew, or may not be in it any more.
    pub fn forget(&mut self, room: &Room, here: &Place) {
        for line in &mut self.lines {
            if let Some(here) = here.on(line.after().line) {
                line.forget(room, here.position);
            }
        }
    }

    /// The session has everything of a line up to here, where it is behind.
    pub fn position_on(&self, line: Line) -> Option<Position> {
        self.find(line).map(|at| self.lines[at].position())
    }

    /// The session has everything up to here, where its shard is `here`.
    pub fn place(&self, here: &Place) -> Place {
        let mut place = here.clone();
        for line in &self.lines {
            place.set(Offset { position: line.position(), ..line.after() });
        }
        place
    }

    /// The same for one of its rooms, whose past it may have asked for.
    pub fn place_of(&self, room: &Room, here: &Place) -> Place {
        let mut place = here.clone();
        self.lines.iter().for_each(|line| place.set(line.after_of(room)));
        place
    }

    /// Whether the session has everything up to where its shard is, so that it continues live.
    pub fn is_over(&self, here: &Place) -> bool {
        self.lines.iter().all(|line| is_over(line, here))
    }

    /// The last event for the session, where that is not the last that was queued. While it is behind on a line, any event up to
    /// where its shard is may be: its client cannot be there yet. With a gap, no event is; nor behind on several lines, for the
    /// client may come to where the shard is on one, and break off before it is there on another.
    pub fn last_possible(&self, here: &Place) -> Option<(Line, Position)> {
        let mut all_behind = self.lines.iter().filter(|line| !is_over(line, here));
        let behind = all_behind.next();
        if self.has_lost || all_behind.next().is_some() {
            return Some((Line::CONTROL, UNPROVABLE));
        }
        let behind = behind?;
        let last = here.on(behind.after().line).unwrap_or(here.control());
        Some((last.line, last.position))
    }

    /// Bytes that it holds, near enough for limits.
    pub fn size(&self) -> usize {
        self.lines.iter().map(LineReplay::size).sum()
    }

    /// Goes on towards where the shard is, by at most `max`.
    pub fn step(&mut self, log: &impl RecentLog, here: &Place, namespace: &str, max: Slice) -> Step {
        let is_current =
            |line: &LineReplay| here.on(line.after().line).is_some_and(|on| on.epoch == line.after().epoch);
        if !self.lines.iter().all(is_current) {
            return Step::Reset;
        }
        let step = match &mut self.lines[..] {
            [line] => line.step(log, here.on(line.after().line).unwrap_or_default(), namespace, max),
            lines => merge::step(lines, self.by_room, log, here, namespace, max),
        };
        self.has_lost |= matches!(step, Step::Lost { .. });
        step
    }

    fn find(&self, line: Line) -> Option<usize> {
        self.lines.iter().position(|known| known.after().line == line)
    }
}

/// Where the client is once it has an event: in all of its rooms, or `by_room` in the event's alone. In that room nothing is
/// missing on a line before the session joins it there; in its other rooms something may be.
fn place_at(lines: &[LineReplay], by_room: bool, missed: &Missed) -> Place {
    let room = missed.event.draft.rooms.get(missed.room).filter(|_| by_room);
    let mut place = Place::default();
    for line in lines {
        place.set(room.map_or(line.after(), |room| line.after_of(room)));
    }
    place.set(missed.event.offset);
    place
}

fn is_over(line: &LineReplay, here: &Place) -> bool {
    here.on(line.after().line).is_some_and(|here| line.is_over(here.position))
}

#[cfg(test)]
mod tests;
