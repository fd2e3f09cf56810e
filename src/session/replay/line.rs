//! The cursor of a session on one line of the log (sans-IO).

use crate::log::window::{Gap, RecentLog, Slice};
use crate::model::id::Id;
use crate::model::names::{EVERYBODY, Room};
use crate::model::offset::{Offset, Position};
use crate::session::changes;
use crate::session::changes::Change;
use crate::session::replay::step::{Missed, Missing, Step};
use std::collections::VecDeque;

/// Changes of rooms that may wait for the cursor. A session whose rooms change more often while it is behind has lost what
/// it has still to get.
const MAX_CHANGES: usize = 1024;
/// Stretches of the log that are looked at in one step. In most of them nothing is for the session.
const MAX_STRETCHES: usize = 16;

/// Where a session is on a line, and what of its rooms it has still to get there.
#[derive(Debug)]
pub(super) struct LineReplay {
    /// The session has, or had queued, everything of its rooms up to here.
    after: Offset,
    /// Its rooms there that the line has events of, with its own id and [`EVERYBODY`].
    rooms: Vec<Room>,
    /// How these changed after that, oldest first.
    changes: VecDeque<LineChange>,
    /// What it had asked for when it joined single rooms (`/ws` with `since`).
    pasts: Vec<Past>,
    /// Rooms of which it gets nothing more, up to the position given. It was in them all the same, so that events which except
    /// them are not for it.
    forgotten: Vec<(Room, Position)>,
    /// Where the shard was when the cursor began.
    begun: Position,
    /// Its rooms changed too often.
    overrun: bool,
}

/// A change of rooms as one line has it.
#[derive(Debug)]
struct LineChange {
    after: Position,
    room: Room,
    joined: bool,
}

/// A part of the line that was looked at.
#[derive(Debug)]
pub(super) struct Stretch {
    from: Position,
    /// What was missed is all up to here.
    up_to: Position,
    /// It counts for all rooms of the session, and not only for pasts of some.
    all: bool,
    /// What was missed, in the order of the line.
    pub(super) missed: VecDeque<Missed>,
}

/// The past of one room.
#[derive(Debug)]
struct Past {
    room: Room,
    after: Position,
    up_to: Position,
}

impl LineReplay {
    /// For a session that missed this. The shard is `here`.
    pub(super) fn new(own: &Id, missing: Missing, here: Position) -> Self {
        let Missing { after, mut rooms, changes } = missing;
        rooms.extend([own.to_string().into(), EVERYBODY.into()]);
        let (pasts, forgotten) = (Vec::new(), Vec::new());
        let mut line = Self { after, rooms, changes: VecDeque::new(), pasts, forgotten, begun: here, overrun: false };
        line.changes = changes.into_iter().filter_map(|change| line.change(change)).collect();
        line
    }

    /// A change as this line has it, if it has events of that room.
    fn change(&self, change: Change) -> Option<LineChange> {
        let after = change.on(self.after.line)?;
        Some(LineChange { after, room: change.room, joined: change.joined })
    }

    /// Continues a cursor that ended where this one begins.
    pub(super) fn append(&mut self, later: Self) {
        self.changes.extend(later.changes);
        self.forgotten.extend(later.forgotten);
        self.begun = later.begun;
    }

    /// Where it is: the session may have everything of single rooms only up to an earlier position.
    pub(super) fn after(&self) -> Offset {
        self.after
    }

    /// Up to where the session has everything of a room: of what was before it joined, it is to get only the past.
    pub(super) fn after_of(&self, room: &Room) -> Offset {
        let past = self.pasts.iter().find(|past| past.room == *room).map(|past| past.after);
        let live = self.live_from(room);
        Offset { position: past.unwrap_or(live).min(live), ..self.after }
    }

    /// Behind where the cursor brings a room's events, besides its past.
    fn live_from(&self, room: &Room) -> Position {
        let forgotten = self.forgotten.iter().filter(|(of, _)| of == room).map(|(_, up_to)| *up_to).max();
        if forgotten.is_none() && self.rooms.contains(room) {
            return self.after.position;
        }
        let joins = |change: &&LineChange| change.joined && change.room == *room && Some(change.after) >= forgotten;
        let joined = self.changes.iter().find(joins).map(|change| change.after);
        joined.unwrap_or(self.after.position).max(self.after.position)
    }

    /// Adds the past of a room, in (`after`, `up_to`].
    pub(super) fn add_past(&mut self, room: &Room, after: Position, up_to: Position) {
        if let Some(known) = self.pasts.iter_mut().find(|past| past.room == *room) {
            // Asked for twice: what is asked for now comes again.
            (known.after, known.up_to) = (known.after.min(after), known.up_to.max(up_to));
        } else if after < up_to {
            self.pasts.push(Past { room: room.clone(), after, up_to });
        }
    }

    /// Takes note that the session joined or left a room.
    pub(super) fn note(&mut self, change: Change) {
        let Some(change) = self.change(change) else { return };
        if self.changes.is_empty() && change.after <= self.after.position {
            return changes::set(&mut self.rooms, &change.room, change.joined);
        }
        self.changes.push_back(change);
        if self.overrun || self.changes.len() > MAX_CHANGES {
            self.overrun = true;
            (self.changes, self.forgotten) = Default::default();
        }
    }

    /// Nothing more of a room is for the session of what was up to here.
    pub(super) fn forget(&mut self, room: &Room, up_to: Position) {
        self.pasts.retain(|past| past.room != *room);
        self.forgotten.retain(|(of, _)| of != room);
        if up_to > self.after.position && !self.overrun {
            self.forgotten.push((room.clone(), up_to));
        }
    }

    /// The session has everything up to here.
    pub(super) fn position(&self) -> Position {
        self.pasts.iter().map(|past| past.after).min().unwrap_or(self.after.position).min(self.after.position)
    }

    /// Whether the session has everything up to where its shard is, so that it continues live.
    pub(super) fn is_over(&self, here: Position) -> bool {
        self.pasts.is_empty() && self.after.position >= here
    }

    /// Bytes that it holds, near enough for limits.
    pub(super) fn size(&self) -> usize {
        let changes = self.changes.iter().map(|change| &change.room);
        let names = self.rooms.iter().chain(changes).chain(self.forgotten.iter().map(|(room, _)| room));
        size_of::<Self>() + names.map(|room| room.len() + 48).sum::<usize>() + self.pasts.len() * 64
    }

    /// Goes on towards where the shard is, by at most `max`.
    pub(super) fn step(&mut self, log: &impl RecentLog, here: Offset, namespace: &str, max: Slice) -> Step {
        for _ in 0..MAX_STRETCHES {
            if self.is_over(here.position) {
                break;
            }
            match self.look(log, here, namespace, max) {
                Ok(mut stretch) => {
                    self.advance(&mut stretch, None);
                    if !stretch.missed.is_empty() {
                        return Step::Events(stretch.missed.into());
                    }
                }
                Err(gap) => return self.fail(gap, log, here, namespace),
            }
        }
        Step::Events(Vec::new())
    }

    /// The next stretch of the log, in which the same rooms count, by at most `max`. The cursor stays where it is.
    pub(super) fn look(
        &mut self,
        log: &impl RecentLog,
        here: Offset,
        namespace: &str,
        max: Slice,
    ) -> Result<Stretch, Gap> {
        if self.overrun {
            return Err(Gap::TooOld);
        }
        let from = Offset { position: self.position(), ..self.after };
        let all = self.after.position == from.position;
        while let Some(change) = self.changes.pop_front_if(|change| all && change.after <= from.position) {
            changes::set(&mut self.rooms, &change.room, change.joined);
        }
        let mut rooms = if all { self.rooms.clone() } else { Vec::new() };
        if all {
            self.forgotten.retain(|(_, up_to)| *up_to > from.position);
            rooms.retain(|room| !self.forgotten.iter().any(|(of, _)| of == room));
        }
        let mut up_to = if all { here.position } else { self.after.position };
        if all {
            let change = self.changes.front().map(|change| change.after);
            let ends = self.forgotten.iter().map(|(_, up_to)| *up_to).chain(change);
            up_to = ends.fold(up_to, Position::min);
        }
        for past in &self.pasts {
            if past.after == from.position {
                up_to = up_to.min(past.up_to);
                rooms.push(past.room.clone());
            } else {
                up_to = up_to.min(past.after);
            }
        }
        let pulled = log.pull(from, up_to, namespace, &rooms, max)?;
        let is_in = |room: &Room| rooms.contains(room);
        let missed = pulled.events.into_iter().filter(|event| {
            // A session in an excepted room, whichever room it is, does not get the event.
            !event.draft.except.iter().any(|except| is_in(except) || self.rooms.contains(except))
        });
        let missed = missed.map(|event| Missed {
            room: event.draft.rooms.iter().position(is_in).unwrap_or(0),
            is_late: event.offset.position > self.begun,
            place: None,
            event,
        });
        Ok(Stretch { from: from.position, up_to: pulled.up_to, all, missed: missed.collect() })
    }

    /// The session has what it missed up to an event of a stretch, or all of that.
    pub(super) fn advance(&mut self, stretch: &mut Stretch, event: Option<Position>) {
        let (from, up_to) = (stretch.from, event.unwrap_or(stretch.up_to));
        if stretch.all {
            self.after.position = up_to;
        }
        self.pasts.iter_mut().filter(|past| past.after == from).for_each(|past| past.after = up_to);
        self.pasts.retain(|past| past.after < past.up_to);
        stretch.from = up_to;
    }

    /// There is no next stretch: finds out what is no longer kept, and goes past it.
    pub(super) fn fail(&mut self, gap: Gap, log: &impl RecentLog, here: Offset, namespace: &str) -> Step {
        match gap {
            _ if self.overrun => self.give_up(here),
            Gap::TooOld | Gap::NotKept => self.pass_over(log, here, namespace),
            Gap::ForeignEpoch | Gap::Future => Step::Reset,
        }
    }

    fn pass_over(&mut self, log: &impl RecentLog, here: Offset, namespace: &str) -> Step {
        let from = Offset { position: self.position(), ..self.after };
        let lost = |past: &Past| {
            past.after == from.position && log.covers(from, namespace, std::slice::from_ref(&past.room)).is_err()
        };
        if let Some(at) = self.pasts.iter().position(lost) {
            let past = self.pasts.swap_remove(at);
            return self.lost(Some(past.room), past.up_to);
        }
        self.give_up(here)
    }

    fn give_up(&mut self, here: Offset) -> Step {
        self.pasts.clear();
        self.changes.clear();
        self.forgotten.clear();
        self.after.position = here.position;
        self.lost(None, here.position)
    }

    fn lost(&self, room: Option<Room>, up_to: Position) -> Step {
        Step::Lost { gap: Gap::TooOld, room, up_to: Offset { position: up_to, ..self.after } }
    }
}
