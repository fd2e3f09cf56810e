//! What a session has still to get from the recent log (sans-IO): a cursor, not a copy. The session's connection pulls from
//! it as its socket takes more. While it is behind, live events are not queued: the cursor comes to them.

use crate::log::window::{Gap, RecentLog, Slice};
use crate::model::event::Event;
use crate::model::id::Id;
use crate::model::names::{EVERYBODY, Room};
use crate::model::offset::{Offset, Position};
use crate::session::changes;
use crate::session::changes::Change;
use std::collections::VecDeque;
use std::sync::Arc;

/// Changes of rooms that may wait for the cursor. A session whose rooms change more often while it is behind has lost what
/// it has still to get.
const MAX_CHANGES: usize = 1024;
/// Stretches of the log that are looked at in one step. In most of them nothing is for the session.
const MAX_STRETCHES: usize = 16;

/// The cursor of one session.
#[derive(Debug)]
pub struct Replay {
    /// The session has, or had queued, everything of its rooms up to here.
    after: Offset,
    /// Its rooms there, with its own id and [`EVERYBODY`].
    rooms: Vec<Room>,
    /// How its rooms changed after that, oldest first.
    changes: VecDeque<Change>,
    /// What it had asked for when it joined single rooms (`/ws` with `since`).
    pasts: Vec<Past>,
    /// Rooms that it left, up to the position given, before it had their past: of those it gets nothing more, or what came
    /// after the hole would hide it.
    left: Vec<(Room, Position)>,
    /// Where the shard was when the cursor began.
    begun: Position,
    /// Its rooms changed too often.
    overrun: bool,
}

/// The past of one room.
#[derive(Debug)]
struct Past {
    room: Room,
    after: Position,
    up_to: Position,
}

/// An event for the session.
#[derive(Debug)]
pub struct Missed {
    /// The event.
    pub event: Arc<Event>,
    /// The index of the first of the event's rooms that the session is in: `/ws` clients get the event under its name.
    pub room: usize,
    /// Whether it came after the cursor began, so that the session would have got it live.
    pub is_late: bool,
}

/// What a step of the cursor brings.
#[derive(Debug)]
pub enum Step {
    /// The next events; none where the step led through a part of the log with nothing for the session.
    Events(Vec<Missed>),
    /// Events up to this position are no longer kept, of this room, or without a room of any of the session's. The cursor has
    /// gone past them.
    Lost(Gap, Option<Room>, Position),
    /// The window begins anew, and the shard is about to.
    Reset,
}

impl Replay {
    /// For a session with these rooms at `after`, which changed like this since. The shard is `here`.
    pub fn new(own: &Id, mut rooms: Vec<Room>, after: Offset, changes: Vec<Change>, here: Position) -> Self {
        rooms.extend([own.to_string().into(), EVERYBODY.into()]);
        Self { after, rooms, changes: changes.into(), pasts: Vec::new(), left: Vec::new(), begun: here, overrun: false }
    }

    /// Continues a cursor that ended where this one begins.
    pub fn append(&mut self, later: Self) {
        self.changes.extend(later.changes);
        self.begun = later.begun;
    }

    /// Adds the past of a room, in (`after`, `up_to`].
    pub fn add_past(&mut self, room: &Room, after: Position, up_to: Position) {
        if let Some(known) = self.pasts.iter_mut().find(|past| past.room == *room) {
            // Asked for twice: what is asked for now comes again.
            (known.after, known.up_to) = (known.after.min(after), known.up_to.max(up_to));
        } else if after < up_to {
            self.pasts.push(Past { room: room.clone(), after, up_to });
        }
    }

    /// Takes note that the session joined or left a room.
    pub fn note(&mut self, change: Change) {
        let pasts = self.pasts.len();
        if !change.joined {
            // The client has left: it wants no more of it.
            self.pasts.retain(|past| past.room != change.room);
        }
        if self.pasts.len() < pasts && change.after > self.after.position {
            self.left.push((change.room.clone(), change.after));
        }
        if self.changes.is_empty() && change.after <= self.after.position {
            return changes::set(&mut self.rooms, &change.room, change.joined);
        }
        self.changes.push_back(change);
        if self.overrun || self.changes.len() > MAX_CHANGES {
            self.overrun = true;
            self.changes = VecDeque::new();
        }
    }

    /// The session's new token does not give it this room: nothing more of it is for the session, also of before.
    pub fn forget(&mut self, room: &Room) {
        self.rooms.retain(|known| known != room);
        self.pasts.retain(|past| past.room != *room);
        self.changes.retain(|change| change.room != *room);
    }

    /// The session has everything up to here.
    pub fn position(&self) -> Position {
        self.pasts.iter().map(|past| past.after).min().unwrap_or(self.after.position).min(self.after.position)
    }

    /// Whether the session has everything up to where its shard is, so that it continues live.
    pub fn is_over(&self, here: Position) -> bool {
        self.pasts.is_empty() && self.after.position >= here
    }

    /// Bytes that it holds, near enough for limits.
    pub fn size(&self) -> usize {
        let names = self.rooms.iter().chain(self.changes.iter().map(|change| &change.room));
        size_of::<Self>() + names.map(|room| room.len() + 48).sum::<usize>() + self.pasts.len() * 64
    }

    /// Goes on towards where the shard is, by at most `max`.
    pub fn step(&mut self, log: &impl RecentLog, here: Offset, namespace: &str, max: Slice) -> Step {
        if self.after.epoch != here.epoch {
            return Step::Reset;
        }
        if self.overrun {
            return self.give_up(here);
        }
        for _ in 0..MAX_STRETCHES {
            if self.is_over(here.position) {
                break;
            }
            match self.stretch(log, here, namespace, max) {
                Step::Events(missed) if missed.is_empty() => {}
                step => return step,
            }
        }
        Step::Events(Vec::new())
    }

    /// One stretch of the log, in which the same rooms count.
    fn stretch(&mut self, log: &impl RecentLog, here: Offset, namespace: &str, max: Slice) -> Step {
        let from = Offset { position: self.position(), ..self.after };
        let all = self.after.position == from.position;
        while let Some(change) = self.changes.pop_front_if(|change| all && change.after <= from.position) {
            changes::set(&mut self.rooms, &change.room, change.joined);
        }
        let mut rooms = if all { self.rooms.clone() } else { Vec::new() };
        if all {
            self.left.retain(|(_, up_to)| *up_to > from.position);
            rooms.retain(|room| !self.left.iter().any(|(left, _)| left == room));
        }
        let mut up_to = if all { here.position } else { self.after.position };
        if let Some(change) = self.changes.front().filter(|_| all) {
            up_to = up_to.min(change.after);
        }
        for past in &self.pasts {
            if past.after == from.position {
                up_to = up_to.min(past.up_to);
                rooms.push(past.room.clone());
            } else {
                up_to = up_to.min(past.after);
            }
        }
        let pulled = match log.pull(from, up_to, namespace, &rooms, max) {
            Ok(pulled) => pulled,
            Err(Gap::TooOld | Gap::NotKept) => return self.pass_over(log, from, here, namespace),
            Err(Gap::ForeignEpoch | Gap::Future) => return Step::Reset,
        };
        if all {
            self.after.position = pulled.up_to;
        }
        self.pasts.iter_mut().filter(|past| past.after == from.position).for_each(|past| past.after = pulled.up_to);
        self.pasts.retain(|past| past.after < past.up_to);
        let is_in = |room: &Room| rooms.contains(room);
        let missed = pulled.events.into_iter().filter(|event| {
            // A session in an excepted room, whichever room it is, does not get the event.
            !event.draft.except.iter().any(|except| is_in(except) || self.rooms.contains(except))
        });
        let missed = missed.map(|event| Missed {
            room: event.draft.rooms.iter().position(is_in).unwrap_or(0),
            is_late: event.offset.position > self.begun,
            event,
        });
        Step::Events(missed.collect())
    }

    /// Something after `from` is no longer kept: finds out what, and goes past it.
    fn pass_over(&mut self, log: &impl RecentLog, from: Offset, here: Offset, namespace: &str) -> Step {
        let lost = |past: &Past| {
            past.after == from.position && log.covers(from, namespace, std::slice::from_ref(&past.room)).is_err()
        };
        if let Some(at) = self.pasts.iter().position(lost) {
            let past = self.pasts.swap_remove(at);
            return Step::Lost(Gap::TooOld, Some(past.room), past.up_to);
        }
        self.give_up(here)
    }

    fn give_up(&mut self, here: Offset) -> Step {
        self.pasts.clear();
        self.changes.clear();
        self.left.clear();
        self.after.position = here.position;
        Step::Lost(Gap::TooOld, None, here.position)
    }
}

#[cfg(test)]
mod tests;
