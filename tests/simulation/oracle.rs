//! The oracle: it knows what was published, which rooms each session was in at each position of the log, and what every
//! client received. It uses no code under test except its types.

use roomcast::model::id::Id;
use roomcast::model::names::Room;
use roomcast::model::offset::{Offset, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A published event.
#[derive(Clone)]
pub(crate) struct Fact {
    pub serial: u64,
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
    after: Position,
    room: Room,
    joined: bool,
    answered: bool,
}

/// The time of a client between two notices that it may have missed something.
struct Stretch {
    start: Offset,
    session: Option<Id>,
    /// The losses that every node knew when it began; `None` if some node did not know all of them.
    losses: Option<u64>,
    changes: Vec<Change>,
    got: BTreeSet<u64>,
    /// Received under the name of another room.
    elsewhere: BTreeSet<u64>,
    newest: Option<Position>,
    /// Only events of this room are checked (`/ws`, which resumes each room by itself).
    only: Option<Room>,
}

/// A client, and for `/ws` one of its rooms.
pub(crate) type Who = (usize, Option<Room>);

#[derive(Default)]
pub(crate) struct Oracle {
    facts: BTreeMap<Position, Fact>,
    /// The commands of the backend: the client, the room, and whether it joins.
    commands: BTreeMap<Position, (usize, Room, bool)>,
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
    pub(crate) fn published(&mut self, fact: Fact) {
        self.facts.insert(fact.position, fact);
    }

    pub(crate) fn commanded(&mut self, client: usize, position: Position, room: Room, joined: bool) {
        self.commands.insert(position, (client, room, joined));
    }

    /// The log lost these events, so clients that missed them cannot get them any more. Trimmed entries are not lost.
    pub(crate) fn lost(&mut self, positions: impl Iterator<Item = Position>) {
        self.losses += 1;
        for position in positions {
            self.facts.remove(&position);
            self.commands.remove(&position);
        }
    }

    /// The log was deleted: a new one begins at the first position.
    pub(crate) fn lost_everything(&mut self) {
        self.losses += 1;
        self.facts.clear();
        self.commands.clear();
    }

    /// The client knows that it starts anew: what it missed before is excused.
    pub(crate) fn notified(&mut self, who: Who, start: Offset, session: Option<Id>, settled: bool) {
        self.notices += 1;
        let (losses, only) = (settled.then_some(self.losses), who.1.clone());
        let (got, elsewhere) = (BTreeSet::new(), BTreeSet::new());
        let stretch = Stretch { start, session, losses, changes: Vec::new(), got, elsewhere, newest: None, only };
        self.stretches.insert(who, stretch);
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
        after: Position,
        room: &Room,
        joined: bool,
    ) {
        if let Some(stretch) = self.stretches.get_mut(who).filter(|stretch| stretch.session == session) {
            let answered = id.is_none();
            stretch.changes.push(Change { id: id.unwrap_or(0), after, room: room.clone(), joined, answered });
        }
    }

    /// The client received the answer to its join or leave.
    pub(crate) fn answered(&mut self, who: &Who, id: u64) {
        if let Some(stretch) = self.stretches.get_mut(who) {
            stretch.changes.iter_mut().filter(|change| change.id == id).for_each(|change| change.answered = true);
        }
    }

    /// The client received a stored event.
    pub(crate) fn got(&mut self, who: &Who, fact: &Fact) {
        self.received += 1;
        let Some(stretch) = self.stretches.get(who) else { return };
        let serial = fact.serial;
        if stretch.elsewhere.contains(&serial) {
            return;
        }
        if stretch.got.contains(&serial) {
            return self.wrong(who, format!("got event {serial} twice"));
        }
        if stretch.newest.is_some_and(|newest| newest >= fact.position) {
            return self.wrong(who, format!("got event {serial} at {} out of order", fact.position));
        }
        // Until every node knows of a loss, a client may see the log before or after it; `finish` checks again.
        let sure = stretch.losses == Some(self.losses);
        if sure && self.entitled(who, stretch, fact) == Inside::No {
            return self.wrong(who, format!("got event {serial}, which was not for it"));
        }
        let missed = sure.then(|| self.missed(who, stretch, Some(fact.position))).flatten();
        if let Some(missed) = missed {
            return self.wrong(who, format!("got event {serial} but never {missed}"));
        }
        if let Some(stretch) = self.stretches.get_mut(who) {
            stretch.got.insert(serial);
            stretch.newest = Some(fact.position);
        }
    }

    /// An event that was received under the name of another room counts for this one.
    pub(crate) fn got_elsewhere(&mut self, who: &Who, serial: u64) {
        if let Some(stretch) = self.stretches.get_mut(who) {
            stretch.elsewhere.insert(serial);
        }
    }

    fn missed(&self, who: &Who, stretch: &Stretch, before: Option<Position>) -> Option<u64> {
        let later = |position: &Position| before.is_some_and(|before| *position >= before);
        let facts = self.facts.values().filter(|fact| fact.position > stretch.start.position);
        facts
            .take_while(|fact| !later(&fact.position))
            .filter(|fact| !stretch.got.contains(&fact.serial) && !stretch.elsewhere.contains(&fact.serial))
            .find(|fact| self.entitled(who, stretch, fact) == Inside::Yes)
            .map(|fact| fact.serial)
    }

    /// The run is over, and every client has read everything.
    pub(crate) fn finish(&mut self, epoch: &str) {
        let mut wrong = None;
        for (who, stretch) in &self.stretches {
            if let Some(missed) = self.missed(who, stretch, None) {
                wrong = Some((who.clone(), format!("never got event {missed} and was not notified")));
            } else if format!("{:x}", stretch.start.epoch.0) != epoch {
                wrong = Some((who.clone(), "was not notified of the new epoch of the log".into()));
            }
        }
        if let Some((who, what)) = wrong {
            self.wrong(&who, what);
        }
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
        let at = fact.position;
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
                (self.inside(who, stretch, only, at), any(&fact.except, &perhaps))
            }
        };
        match (member, excepted) {
            (Inside::No, _) | (_, Inside::Yes) => Inside::No,
            (Inside::Yes, Inside::No) => Inside::Yes,
            _ => Inside::Perhaps,
        }
    }

    fn inside(&self, who: &Who, stretch: &Stretch, room: &Room, at: Position) -> Inside {
        let own = stretch.changes.iter().filter(|change| change.room == *room && change.after < at);
        let own = own.map(|change| (change.after, 1, change.joined, change.answered));
        let begun = stretch.start.position;
        let commands = self.commands.range(..at).filter(|(position, (client, named, _))| {
            **position > begun && *client == who.0 && who.1.is_none() && named == room
        });
        let mut all: Vec<_> = own.chain(commands.map(|(position, command)| (*position, 0, command.2, true))).collect();
        // A shard at the position of a command has carried it out.
        all.sort_by_key(|(after, own, ..)| (*after, *own));
        all.into_iter().fold(Inside::No, |before, (_, _, joined, answered)| {
            let then = if joined { Inside::Yes } else { Inside::No };
            if answered || then == before { then } else { Inside::Perhaps }
        })
    }
}
