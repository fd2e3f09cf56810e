//! Reading a part of the log again for sessions that come back to rooms whose events this node did not keep (sans-IO). All
//! sessions that wait share one pass over the log; who comes while it runs waits for the next one.

pub mod budget;

use crate::log::backfill::budget::{PassBudget, Used};
use crate::log::config::Bounds;
use crate::log::interest::{Interest, is_always_wanted};
use crate::log::recent_events::RecentEvents;
use crate::model::command::SessionCommand;
use crate::model::event::Event;
use crate::model::names::{EVERYBODY, Namespace, Room};
use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::Line;
use std::collections::HashMap;
use std::sync::Arc;

/// Rooms, and from where on each is needed.
pub type Rooms = HashMap<Namespace, HashMap<Room, Position>>;

/// What one session needs of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The oldest position.
    pub after: Option<Position>,
    /// Rooms, of which everything after the position is needed.
    pub rooms: Vec<(Room, Position)>,
}

impl Needs {
    /// Adds a room.
    pub fn add(&mut self, room: &Room, after: Position) {
        self.add_commands(after);
        self.rooms.push((room.clone(), after));
    }

    /// Adds the commands to sessions, which every pass reads.
    pub fn add_commands(&mut self, after: Position) {
        self.after = Some(self.after.map_or(after, |known| known.min(after)));
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.after.is_none()
    }
}

/// A part of the log to be read: the events of these rooms, of rooms that are always wanted, and commands to sessions.
#[derive(Clone, Debug)]
pub struct PastRange {
    /// The line of the log.
    pub line: Line,
    /// The generation that the positions belong to.
    pub epoch: Epoch,
    /// Where it begins.
    pub after: Position,
    /// Where it ends.
    pub up_to: Position,
    /// What is looked for.
    pub rooms: Arc<Rooms>,
    /// The events of all other rooms too.
    pub all: bool,
    /// What is taken at most: the newest, and the oldest of others before those of a flood.
    pub bounds: Bounds,
    /// What passes over all lines may hold together, where there are others.
    pub budget: Option<Arc<PassBudget>>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// The line of the log.
    pub line: Line,
    /// The generation that the positions belong to.
    pub epoch: Epoch,
    /// From where it was asked for, or could have been: what is missing after it cannot be read.
    pub asked_after: Position,
    /// It is complete after this position.
    pub after: Position,
    /// It is complete up to this position.
    pub up_to: Position,
    /// The rooms that were looked for, and from where on.
    pub rooms: Rooms,
    /// Of them, and of those that are always wanted, those of which more was found than is kept, each with the position up to
    /// which it is left out.
    pub full: Rooms,
    /// Oldest first.
    pub events: Vec<Arc<Event>>,
    /// Oldest first.
    pub commands: Vec<(Position, Arc<SessionCommand>)>,
    /// How many entries of the log were read.
    pub entries: u64,
}

/// Sessions that wait for the next pass.
#[derive(Debug)]
pub struct Waiting {
    next: Needed,
    /// The number of the next pass.
    number: u64,
}

/// Why the past could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log could not be read: {0}")]
pub struct PastUnavailable(pub String);

/// What all sessions need that wait for one pass.
#[derive(Clone, Debug, Default)]
pub struct Needed {
    after: Option<Position>,
    rooms: Rooms,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { next: Needed::default(), number: 1 }
    }
}

impl Waiting {
    /// A session waits. Answers the number of the pass that reads what it needs.
    pub fn add(&mut self, namespace: &Namespace, needs: &Needs) -> u64 {
        self.next.add(namespace, needs);
        self.number
    }

    /// Begins a pass, if anybody waits for one.
    pub fn begin(&mut self) -> Option<(u64, Needed)> {
        self.next.after?;
        self.number += 1;
        Some((self.number - 1, std::mem::take(&mut self.next)))
    }
}

impl Needed {
    fn add(&mut self, namespace: &Namespace, needs: &Needs) {
        let Some(after) = needs.after else { return };
        self.after = Some(self.after.map_or(after, |known| known.min(after)));
        if needs.rooms.is_empty() {
            return;
        }
        let rooms = self.rooms.entry(namespace.clone()).or_default();
        for (room, after) in &needs.rooms {
            let known = rooms.entry(room.clone()).or_insert(*after);
            *known = (*after).min(*known);
        }
    }

    /// The part of the log to be read, which was read up to `head`: up to where everything is kept. `None` where nothing is missing any more.
    pub fn range(self, interest: &Interest, head: Offset, bounds: Bounds) -> Option<PastRange> {
        let after = self.after?;
        let rooms = self.rooms.iter().flat_map(|(namespace, rooms)| rooms.keys().map(move |room| (namespace, room)));
        let since = rooms.filter_map(|(namespace, room)| interest.since(namespace, room));
        let up_to = since.chain(interest.since("/", EVERYBODY)).max()?;
        let Offset { line, epoch, .. } = head;
        let range = || {
            let rooms = Arc::new(self.rooms);
            PastRange { line, epoch, after, up_to, rooms, all: false, bounds, budget: None }
        };
        (after < up_to).then(range)
    }
}

/// What was found so far, newest first.
pub struct PastFinder<'a> {
    range: &'a PastRange,
    /// Within its bounds as in the window: who holds most loses first, and all others are looked for further on.
    events: RecentEvents,
    used: Option<Used>,
    command_bytes: usize,
    past: Past,
}

impl<'a> PastFinder<'a> {
    /// Nothing yet.
    pub fn new(range: &'a PastRange) -> Self {
        let past = Past {
            line: range.line,
            epoch: range.epoch,
            asked_after: range.after,
            after: range.up_to,
            up_to: range.up_to,
            ..Past::default()
        };
        let used = range.budget.clone().map(Used::new);
        Self { range, events: RecentEvents::new(range.bounds), used, command_bytes: 0, past }
    }

    /// Whether the event of this room at this position is looked for.
    pub fn wants(&self, namespace: &str, room: &str, at: Position) -> bool {
        let sought = self.range.rooms.get(namespace).and_then(|rooms| rooms.get(room));
        let is_sought = self.range.all || sought.is_some_and(|after| at > *after) || is_always_wanted(room);
        is_sought && self.events.floor_of(namespace, room).is_none_or(|floor| at > floor)
    }

    /// Takes the next older event; `false` where that is too much.
    pub fn take(&mut self, event: Event) -> bool {
        let at = event.offset.position;
        let namespace = &event.draft.namespace;
        let is_wanted = || event.draft.rooms.iter().any(|room| self.wants(namespace, room, at));
        event.draft.volatile || !is_wanted() || self.events.push_oldest(Arc::new(event))
    }

    /// Takes the next older command.
    pub fn take_command(&mut self, at: Position, command: SessionCommand) -> bool {
        self.command_bytes += command.size();
        self.past.commands.push((at, Arc::new(command)));
        self.command_bytes <= self.range.bounds.bytes
    }

    /// Everything after this position was looked at.
    pub fn reached(&mut self, after: Position) {
        if let Some(used) = &mut self.used {
            let bytes = used.note(self.events.bytes());
            self.events.set_bytes(bytes.min(self.range.bounds.bytes));
            used.note(self.events.bytes());
        }
        self.past.after = after.min(self.past.after);
    }

    /// Whether it has come anywhere.
    pub fn has_some(&self) -> bool {
        self.past.after < self.range.up_to
    }

    /// So many entries were looked at.
    pub fn count(&mut self, entries: usize) {
        self.past.entries += entries as u64;
    }

    /// What was found before the log failed. The rest may be read another time.
    pub fn finish_early(self) -> Past {
        let past = self.finish();
        Past { asked_after: past.after, ..past }
    }

    /// What was found, in the order of the log.
    pub fn finish(self) -> Past {
        let Self { range, events, mut past, .. } = self;
        past.after = past.after.max(events.floor());
        past.full = full(range, &events);
        past.events = events.into_events();
        past.commands.reverse();
        past.rooms.clone_from(&range.rooms);
        past
    }
}

/// The rooms that lost some of what was found, as far as somebody relies on them.
fn full(range: &PastRange, events: &RecentEvents) -> Rooms {
    let mut full = Rooms::new();
    let sought = range.rooms.iter().flat_map(|(namespace, rooms)| rooms.keys().map(move |room| (namespace, room)));
    for (namespace, room) in sought.chain(events.rooms_with_floors().filter(|(_, room)| is_always_wanted(room))) {
        if let Some(floor) = events.floor_of(namespace, room) {
            full.entry(namespace.clone()).or_default().insert(room.clone(), floor);
        }
    }
    full
}

#[cfg(test)]
mod tests;
