//! The oracle: it knows what was published, which rooms each session was in at each position of the log, and what every
//! client received. It uses no code under test except its types.

use roomcast::model::id::Id;
use roomcast::model::names::Room;
use roomcast::model::offset::Position;
use roomcast::model::partition::{Line, Partitions};
use roomcast::model::place::Place;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A published event.
#[derive(Clone)]
pub(crate) struct Fact {
    pub serial: u64,
    /// The node that it was published to.
    pub by: Option<usize>,
    pub line: Line,
    pub position: Position,
    pub rooms: Vec<Room>,
    pub except: Vec<Room>,
}

/// Whether a session was in a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Inside {
    No,
    /// The client asked for it and has no answer: both are correct.
    Perhaps,
    Yes,
}

struct Change {
    id: u64,
    after: Place,
    room: Room,
    joined: bool,
    answered: bool,
}

/// A command of the backend to one client.
struct Command {
    client: usize,
    room: Room,
    joined: bool,
    /// In the room's partition it counts from somewhere behind this.
    least: (Line, Position),
    /// And from here on at the latest: all nodes had carried it out.
    last: Option<Position>,
}

/// Whether a change counts for an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counts {
    No,
    /// It was made just then, and both are correct.
    Perhaps,
    Yes,
}

/// The time of a client between two notices that it may have missed something.
struct Stretch {
    start: Place,
    session: Option<Id>,
    /// The losses that every node knew when it began; `None` if some node did not know all of them.
    losses: Option<u64>,
    changes: Vec<Change>,
    /// With the node that each event came by.
    got: BTreeMap<u64, NodeName>,
    /// Socket.IO: the offset of a session before, which the client still names. What is up to there was published before it was
    /// notified.
    named: Place,
    /// Received under the name of another room.
    elsewhere: BTreeSet<u64>,
    newest: BTreeMap<Line, Position>,
    /// Only events of this room are checked (`/ws`, which resumes each room by itself).
    only: Option<Room>,
    /// It began with a `gap`, which names no offset: another node may still have what this one had lost, and give it to the
    /// client.
    after_gap: bool,
}

/// The name of a node, which the next one in its place does not have.
pub(crate) type NodeName = u32;

/// A client, and for `/ws` one of its rooms.
pub(crate) type Who = (usize, Option<Room>);

#[derive(Default)]
pub(crate) struct Oracle {
    facts: BTreeMap<(Line, Position), Fact>,
    /// The commands of the backend, by their positions on the control line.
    commands: BTreeMap<Position, Command>,
    partitions: Partitions,
    /// Delivered by these nodes before what they come after, because that line was behind.
    early: BTreeSet<(NodeName, Line, Position)>,
    losses: u64,
    stretches: BTreeMap<Who, Stretch>,
    /// Every room that a client has asked for.
    ever: BTreeMap<usize, BTreeSet<Room>>,
    /// The first violation.
    pub verdict: Option<String>,
    /// How many stored events were received.
    pub received: u64,
    /// How often a client was notified.
    pub notices: u64,
}

impl Oracle {
    pub(crate) fn new(partitions: Partitions) -> Self {
        Self { partitions, ..Self::default() }
    }

    pub(crate) fn published(&mut self, fact: Fact) {
        self.facts.insert((fact.line, fact.position), fact);
    }

    pub(crate) fn commanded(
        &mut self,
        client: usize,
        position: Position,
        room: Room,
        joined: bool,
        least: (Line, Position),
    ) {
        self.commands.insert(position, Command { client, room, joined, least, last: None });
    }

    /// A shard came to a command while it was here, which may be before where it was issued.
    pub(crate) fn carried_out(&mut self, position: Position, here: &Place) {
        if let Some(command) = self.commands.get_mut(&position)
            && let Some(here) = here.on(command.least.0)
        {
            command.least.1 = command.least.1.min(here.position);
        }
    }

    /// A node that is here takes up a session that had not got the commands after this position.
    pub(crate) fn taken_up(&mut self, after: Position, here: &Place) {
        let until = here.control().position;
        if after >= until {
            return;
        }
        let all: Vec<_> = self.commands.range(after..=until).map(|(position, _)| *position).collect();
        all.into_iter().for_each(|position| self.carried_out(position, here));
    }

    /// All nodes have carried out the commands up to here, and the lines end there.
    pub(crate) fn settled(&mut self, position: Position, ends: &[Position]) {
        for command in self.commands.range_mut(..=position).map(|(_, command)| command) {
            command.last.get_or_insert(ends[command.least.0.index()]);
        }
    }

    /// A line lost these events, so clients that missed them cannot get them any more. Trimmed entries are not lost.
    pub(crate) fn lost(&mut self, line: Line, positions: impl Iterator<Item = Position>) {
        self.losses += 1;
        for position in positions {
            self.facts.remove(&(line, position));
            if line == Line::CONTROL {
                self.commands.remove(&position);
            }
        }
    }

    /// A line was deleted: a new one begins at the first position.
    pub(crate) fn lost_everything(&mut self, line: Line) {
        self.losses += 1;
        self.facts.retain(|(of, _), _| *of != line);
        if line == Line::CONTROL {
            self.commands.clear();
        }
    }

    /// The client knows that it starts anew: what it missed before is excused.
    pub(crate) fn notified(&mut self, who: Who, start: Place, session: Option<Id>, settled: bool) {
        self.notices += 1;
        let (losses, only) = (settled.then_some(self.losses), who.1.clone());
        let (got, newest, elsewhere, changes) = Default::default();
        let named = Place::default();
        let stretch =
            Stretch { start, session, losses, changes, got, named, elsewhere, newest, only, after_gap: false };
        self.stretches.insert(who, stretch);
    }

    /// The client still names an offset of before.
    pub(crate) fn names(&mut self, who: &Who, named: Place) {
        if let Some(stretch) = self.stretches.get_mut(who) {
            stretch.named = named;
        }
    }

    /// The notice was a `gap` in a room.
    pub(crate) fn began_with_gap(&mut self, who: &Who) {
        if let Some(stretch) = self.stretches.get_mut(who) {
            stretch.after_gap = true;
        }
    }

    /// The client says that its session continues.
    pub(crate) fn recovered(&mut self, who: &Who, session: Id) {
        if self.stretches.get(who).is_none_or(|stretch| stretch.session != Some(session)) {
            self.wrong(who, "was recovered as another session".into());
        }
    }

    pub(crate) fn asks(&mut self, client: usize, room: &Room) {
        self.ever.entry(client).or_default().insert(room.clone());
    }

    /// The client has left: nothing is due.
    pub(crate) fn forget(&mut self, who: &Who) {
        self.stretches.remove(who);
    }

    /// The client's session joined or left a room while its shard was at `after`.
    pub(crate) fn change(
        &mut self,
        who: &Who,
        session: Option<Id>,
        id: Option<u64>,
        after: &Place,
        room: &Room,
        joined: bool,
    ) {
        if let Some(stretch) = self.stretches.get_mut(who).filter(|stretch| stretch.session == session) {
            let answered = id.is_none();
            stretch.changes.push(Change {
                id: id.unwrap_or(0),
                after: after.clone(),
                room: room.clone(),
                joined,
                answered,
            });
        }
    }

    /// The client received the answer to its join or leave.
    pub(crate) fn answered(&mut self, who: &Who, id: u64) {
        if let Some(stretch) = self.stretches.get_mut(who) {
            stretch.changes.iter_mut().filter(|change| change.id == id).for_each(|change| change.answered = true);
        }
    }

    /// The client received a stored event.
    pub(crate) fn got(&mut self, who: &Who, fact: &Fact, node: NodeName) {
        self.received += 1;
        let Some(stretch) = self.stretches.get(who) else { return };
        let serial = fact.serial;
        if stretch.elsewhere.contains(&serial) {
            return;
        }
        if stretch.got.contains_key(&serial) {
            return self.wrong(who, format!("got event {serial} twice"));
        }
        if stretch.newest.get(&fact.line).is_some_and(|newest| *newest >= fact.position) {
            return self.wrong(who, format!("got event {serial} at {} out of order", fact.position));
        }
        // Until every node knows of a loss, a client may see the log before or after it; `finish` checks again.
        let sure = stretch.losses == Some(self.losses);
        if sure && self.entitled(who, stretch, fact) == Inside::No {
            return self.wrong(who, format!("got event {serial}, which was not for it"));
        }
        let missed = sure.then(|| self.missed(who, stretch, fact.line, Some(fact.position))).flatten();
        if let Some(missed) = missed {
            return self.wrong(who, format!("got event {serial} but never {missed}"));
        }
        if let Some(later) = sure.then(|| self.overtaken(who, stretch, fact)).flatten() {
            return self.wrong(who, format!("got event {serial} after {later}, which was published later"));
        }
        if let Some(stretch) = self.stretches.get_mut(who) {
            stretch.got.insert(serial, node);
            stretch.newest.insert(fact.line, fact.position);
        }
    }

    /// An event that was received under the name of another room counts for this one.
    pub(crate) fn got_elsewhere(&mut self, who: &Who, serial: u64) {
        if let Some(stretch) = self.stretches.get_mut(who) {
            stretch.elsewhere.insert(serial);
        }
    }

    fn missed(&self, who: &Who, stretch: &Stretch, line: Line, before: Option<Position>) -> Option<u64> {
        let later = |position: &Position| before.is_some_and(|before| *position >= before);
        let start = stretch.start.on(line).unwrap_or_default();
        let named = stretch.named.on(line).filter(|named| named.epoch == start.epoch);
        let start = start.position.max(named.unwrap_or_default().position);
        let end = Position { ms: u64::MAX, seq: u64::MAX };
        let facts = self.facts.range((line, Position::default())..=(line, end)).map(|(_, fact)| fact);
        facts
            .filter(|fact| fact.position > start)
            .take_while(|fact| !later(&fact.position))
            .filter(|fact| !stretch.got.contains_key(&fact.serial) && !stretch.elsewhere.contains(&fact.serial))
            .find(|fact| self.entitled(who, stretch, fact) == Inside::Yes)
            .map(|fact| fact.serial)
    }

    /// An event that was published before, and came after this one in a room of both.
    fn overtaken(&self, who: &Who, stretch: &Stretch, fact: &Fact) -> Option<u64> {
        let was_early = |fact: &Fact| {
            stretch.got.get(&fact.serial).is_some_and(|node| self.early.contains(&(*node, fact.line, fact.position)))
        };
        let is_sure = |fact: &Fact, room: &Room| {
            fact.rooms.contains(room)
                && self.inside(who, stretch, room, (fact.line, fact.position)) == Inside::Yes
                && stretch.only.as_ref().is_none_or(|only| only == room)
        };
        let later = self.facts.values().filter(|later| {
            let is_of_one = later.by.is_some() && later.by == fact.by;
            is_of_one
                && later.serial > fact.serial
                && later.line != fact.line
                && stretch.got.contains_key(&later.serial)
        });
        let in_one_room = |later: &&Fact| fact.rooms.iter().any(|room| is_sure(fact, room) && is_sure(later, room));
        later.filter(|later| !was_early(later)).find(in_one_room).map(|later| later.serial)
    }

    /// A node delivered this entry without what it comes after.
    pub(crate) fn was_early(&mut self, node: NodeName, (line, position): (Line, Position)) {
        self.early.insert((node, line, position));
    }

    /// The run is over, and every client has read everything.
    pub(crate) fn finish(&mut self, epochs: &[String]) {
        let mut wrong = None;
        for (who, stretch) in &self.stretches {
            let missed = self.partitions.lines().find_map(|line| self.missed(who, stretch, line, None));
            if let Some(missed) = missed {
                wrong = Some((who.clone(), format!("never got event {missed} and was not notified")));
            } else if let Some(line) = self.forgotten_line(stretch, epochs) {
                wrong = Some((who.clone(), format!("was not notified of the new epoch of line {line}")));
            }
        }
        if let Some((who, what)) = wrong {
            self.wrong(&who, what);
        }
    }

    /// A line with another epoch than when the client began there, or joined its last room there.
    fn forgotten_line(&self, stretch: &Stretch, epochs: &[String]) -> Option<Line> {
        let is_old = |line: Line, place: &Place| {
            place.on(line).is_some_and(|known| format!("{:x}", known.epoch.0) != epochs[line.index()])
        };
        if is_old(Line::CONTROL, &stretch.start) {
            return Some(Line::CONTROL);
        }
        let last_of = |change: &&Change| {
            !stretch
                .changes
                .iter()
                .rev()
                .take_while(|c| c.id != change.id || change.id == 0)
                .any(|later| later.room == change.room && !std::ptr::eq(later, *change))
        };
        let joined = stretch.changes.iter().filter(|change| change.joined && change.answered).filter(last_of);
        joined
            .map(|change| (self.partitions.of(&change.room), &change.after))
            .find(|(line, at)| is_old(*line, at))
            .map(|(line, _)| line)
    }

    pub(crate) fn wrong(&mut self, who: &Who, what: String) {
        let mut verdict = format!("client {}", who.0);
        if let Some(room) = &who.1 {
            let _ = write!(verdict, " in {room}");
        }
        let _ = write!(verdict, " {what}");
        self.verdict.get_or_insert(verdict);
    }

    fn entitled(&self, who: &Who, stretch: &Stretch, fact: &Fact) -> Inside {
        let at = (fact.line, fact.position);
        let any = |rooms: &[Room], inside: &dyn Fn(&Room) -> Inside| {
            let states = rooms.iter().map(inside);
            states.fold(Inside::No, |max, state| if max == Inside::Yes || state == Inside::No { max } else { state })
        };
        let (member, excepted) = match &stretch.only {
            None => (
                any(&fact.rooms, &|room| self.inside(who, stretch, room, at)),
                any(&fact.except, &|room| self.inside(who, stretch, room, at)),
            ),
            Some(only) if !fact.rooms.contains(only) => (Inside::No, Inside::No),
            Some(only) => {
                // The client joins its other rooms one after the other, before or after this replay.
                let ever = self.ever.get(&who.0);
                let perhaps = |room: &Room| match ever.is_some_and(|ever| ever.contains(room)) {
                    true if room == only => Inside::Yes,
                    true => Inside::Perhaps,
                    false => Inside::No,
                };
                let is_before = stretch.start.on(fact.line).is_some_and(|start| fact.position <= start.position);
                let member = match stretch.after_gap && is_before {
                    true => Inside::Perhaps,
                    false => self.inside(who, stretch, only, at),
                };
                (member, any(&fact.except, &perhaps))
            }
        };
        match (member, excepted) {
            (Inside::No, _) | (_, Inside::Yes) => Inside::No,
            (Inside::Yes, Inside::No) => Inside::Yes,
            _ => Inside::Perhaps,
        }
    }

    fn inside(&self, who: &Who, stretch: &Stretch, room: &Room, (line, at): (Line, Position)) -> Inside {
        let counts = |position: Position| if position < at { Counts::Yes } else { Counts::No };
        let own = stretch.changes.iter().filter(|change| change.room == *room).map(|change| {
            let control = change.after.control().position;
            let on = change.after.on(line).map_or(Position::default(), |on| on.position);
            (control, 1, change.joined, change.answered, counts(on))
        });
        let begun = stretch.start.control().position;
        let commands = self.commands.iter().filter(|(position, command)| {
            **position > begun && command.client == who.0 && who.1.is_none() && command.room == *room
        });
        let commands = commands.map(|(position, command)| {
            let counts = match line {
                Line::CONTROL => counts(*position),
                _ if at <= command.least.1 => Counts::No,
                _ if command.last.is_some_and(|last| at > last) => Counts::Yes,
                _ => Counts::Perhaps,
            };
            (*position, 0, command.joined, true, counts)
        });
        let mut all: Vec<_> = own.chain(commands).collect();
        // A shard at the position of a command has carried it out.
        all.sort_by_key(|(control, own, ..)| (*control, *own));
        all.into_iter().fold(Inside::No, |before, (_, _, joined, answered, counts)| {
            let then = if joined { Inside::Yes } else { Inside::No };
            match counts {
                Counts::No => before,
                Counts::Yes if answered => then,
                _ if then == before => then,
                _ => Inside::Perhaps,
            }
        })
    }
}
