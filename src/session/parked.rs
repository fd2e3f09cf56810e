//! A session whose connection is gone and that may resume (sans-IO).

use crate::auth::Identity;
use crate::auth::claims::ClaimsDigest;
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::{Offset, Position};
use crate::model::partition::{Line, Partitions};
use crate::model::place::Place;
use crate::model::provenance::Provenance;
use crate::session::changes::{Change, Changes};
use std::sync::Arc;

/// Claims of so many bytes are kept: they take hardly more than what replaces them.
const SHORT_CLAIMS: usize = 128;

/// For [`Parked::last`]: no place that a client names proves that it has the last event.
pub const UNPROVABLE: Position = Position { ms: u64::MAX, seq: u64::MAX };

/// What a resume needs.
#[derive(Clone, Debug)]
pub struct Parked {
    /// The Socket.IO sid it gets back.
    pub id: Id,
    /// Its namespace's index.
    pub namespace: NamespaceIndex,
    /// Whose it is; a resume by anybody else is a new session.
    pub identity: Arc<Identity>,
    /// Its rooms.
    pub rooms: Vec<Room>,
    /// Why it is in its rooms. Commands have put it into those that are not listed.
    pub provenances: Vec<(Room, Provenance)>,
    /// Digest of the claims that the backend decided on, where `identity` does not have them.
    pub decided_on: Option<ClaimsDigest>,
    /// How they changed, as far back as a resume may reach.
    pub changes: Changes,
    /// Where it began: the resume point of a client that received nothing yet.
    pub start: Place,
    /// The last stored event that was sent to it, or [`UNPROVABLE`].
    pub last: Position,
    /// Its line.
    pub last_line: Line,
    /// Where the log stood when its connection was lost, on each line that ever brought events to it. If it has the last
    /// event, it missed nothing before.
    pub at: Place,
    /// How often it was taken up on another connection.
    pub moves: u32,
}

impl Parked {
    /// Where the client continues, given the place it names. Between the last event that it was sent and the moment its
    /// connection was lost there was no event for it. `None`: it does not name a partition that the session came to so long
    /// ago that it is not known where that was. Partitions that only the client names are in the place too: a command may have
    /// brought the session there after this was written.
    pub fn resume_from(&self, named: Option<&Place>) -> Option<Place> {
        let mut place = Place::default();
        for at in self.at.offsets() {
            // The stock client may still have the offset of an older session, or of an older epoch of the log
            // (docs/protocol/socketio.md section 4.2); then it has received nothing of this session.
            let named = named.and_then(|named| named.on(at.line));
            place.set(match (self.began_on(at), named) {
                (Some(began), Some(named)) if named.epoch == began.epoch => later(began, named),
                (Some(began), _) => began,
                (None, named) => named?,
            });
        }
        let only_named = |named: &Offset| self.at.on(named.line).is_none();
        named.iter().flat_map(|named| named.offsets()).filter(only_named).for_each(|named| place.set(named));
        if self.has_all(named, &place) {
            for at in self.at.offsets() {
                if let Some(known) = place.on(at.line).filter(|known| known.epoch == at.epoch) {
                    place.set(later(known, at));
                }
            }
        }
        Some(place)
    }

    /// Whether the client had the last event that was sent to it, and so what was sent before it on other lines. An offset that
    /// names more lines than the session has is not of an event that it was sent: a publisher got it, and it says nothing of what
    /// was sent before.
    fn has_all(&self, named: Option<&Place>, place: &Place) -> bool {
        let lines = self.at.lines();
        let is_own = named.is_none_or(|named| named.lines().partitions().all(|line| lines.contains(line)));
        let has_last = place.on(self.last_line).is_some_and(|offset| offset.position >= self.last);
        has_last && (is_own || self.last == Position::default())
    }

    /// It is taken up to continue from here. Of two connections that resume it from one offset, the client may listen to the
    /// one that is served first, and name a place that it got there, in an order between lines that the second one does not
    /// have. Until the second one brings something new, that place says of no line what the client has on the others.
    pub fn note_resumed(&mut self, after: &Place) {
        let has_all = self.at.offsets().all(|at| after.on(at.line) == Some(at));
        if self.moves > 0 && !has_all && !self.at.lines().is_empty() {
            self.last = UNPROVABLE;
        }
    }

    /// Where a line began to bring events to it. A place of an earlier moment does not name a partition that came later.
    fn began_on(&self, at: Offset) -> Option<Offset> {
        match self.start.on(at.line) {
            Some(start) => Some(start),
            // It may have left the room at once, before anything came.
            None => self.changes.first_on(at.line).ok().map(|first| first.unwrap_or(at)),
        }
    }

    /// Its rooms, and why it is in them.
    pub fn memberships(&self) -> impl Iterator<Item = (&Room, Provenance)> {
        self.rooms.iter().enumerate().map(|(index, room)| {
            // Nearly always the same order.
            let near = self.provenances.get(index).filter(|(known, _)| known == room);
            let known = near.or_else(|| self.provenances.iter().find(|(known, _)| known == room));
            (room, known.map_or(Provenance::Command, |(_, by)| *by))
        })
    }

    /// Keeps only these of its rooms, and of the rooms that it has left those whose events it may still get. It was in the others
    /// all the same: events that except them are not for it.
    pub fn keep_rooms(
        &mut self,
        kept: Vec<(Room, Provenance)>,
        partitions: Partitions,
        may_have: impl Fn(&Room) -> bool,
    ) {
        let before = std::mem::take(&mut self.rooms);
        self.rooms = kept.iter().map(|(room, _)| room.clone()).collect();
        self.provenances = kept;
        let has_left = |change: &&Change| !before.contains(&change.room) && !may_have(&change.room);
        let mut left: Vec<Change> = Vec::new();
        for change in self.changes.list().rev().filter(has_left) {
            if left.iter().all(|known| known.room != change.room) {
                left.push(change.clone());
            }
        }
        for room in before.iter().filter(|room| !self.rooms.contains(room)) {
            let partition = self.at.on(partitions.of(room)).filter(|at| at.line != Line::CONTROL);
            let after = self.at.control().position;
            left.push(Change { after, partition, room: room.clone(), joined: false });
        }
        left.into_iter().for_each(|change| self.changes.lose(change));
    }

    /// Digest of the claims that its rooms were decided on.
    pub fn deciding_claims(&self) -> ClaimsDigest {
        self.decided_on.unwrap_or_else(|| self.identity.deciding_claims())
    }

    /// Forgets the claims, which may be most of it: a resume brings a token along.
    pub fn drop_claims(&mut self) {
        if self.identity.claims.len() > SHORT_CLAIMS {
            self.decided_on = Some(self.deciding_claims());
            let Identity { user, grants, .. } = &*self.identity;
            let (user, grants) = (user.clone(), grants.clone());
            self.identity = Arc::new(Identity { user, grants, ..Identity::anonymous() });
        }
    }

    /// Bytes it holds, near enough for limits.
    pub fn size(&self) -> usize {
        280 + self.identity.claims.len()
            + self.identity.grants.as_text().len()
            + self.changes.size()
            + self.provenances.len() * 24
            + self.rooms.iter().map(|room| room.len() + 32).sum::<usize>()
    }
}

/// The later of two offsets of an epoch.
fn later(one: Offset, other: Offset) -> Offset {
    Offset { position: one.position.max(other.position), ..one }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::model::offset::Epoch;

    fn at(ms: u64) -> Position {
        Position { ms, seq: 0 }
    }

    fn offset(epoch: u32, ms: u64) -> Offset {
        Offset { epoch: Epoch(epoch), position: at(ms), line: Line::CONTROL }
    }

    fn parked() -> Parked {
        Parked {
            id: Id::random(),
            namespace: NamespaceIndex::default(),
            identity: Arc::new(Identity::anonymous()),
            rooms: Vec::new(),
            provenances: Vec::new(),
            decided_on: None,
            changes: Changes::default(),
            start: offset(7, 10).into(),
            last: at(20),
            last_line: Line::CONTROL,
            at: offset(7, 50).into(),
            moves: 0,
        }
    }

    #[test]
    fn claims_are_not_kept_but_what_was_decided_on_them_is_known() {
        let claims: Box<str> = format!(r#"{{"org":"acme","exp":5,"filler":"{}"}}"#, "x".repeat(6_000)).into();
        let mut parked = Parked { identity: Arc::new(Identity { claims, ..Identity::anonymous() }), ..parked() };
        let (before, digest) = (parked.size(), parked.deciding_claims());
        parked.drop_claims();
        assert!(parked.deciding_claims() == digest && before > 6_000 && parked.size() < 400);
        parked.drop_claims();
        assert!(parked.deciding_claims() == digest);
    }

    #[test]
    fn a_quiet_client_continues_from_where_it_went() {
        let parked = parked();
        let named =
            |parked: &Parked, named: Option<Place>| parked.resume_from(named.as_ref()).unwrap().control().position;
        let from = |epoch, ms| named(&parked, Some(offset(epoch, ms).into()));
        assert_eq!(from(7, 15), at(15), "it did not get the last event");
        assert_eq!(from(7, 20), at(50), "it has all that was its own");
        assert_eq!(from(7, 60), at(60), "it has seen more, by another node");
        assert_eq!(from(7, 5), at(10), "an offset of a session before");
        assert_eq!(from(8, 99), at(10), "an offset of another life of the log");
        assert_eq!(named(&parked, None), at(10), "it received nothing of what was sent");
        let quiet = Parked { last: Position::default(), ..parked.clone() };
        assert_eq!(named(&quiet, None), at(50), "nothing was sent");
    }

    #[test]
    fn a_place_from_before_a_partition_came_does_not_name_it() {
        let line = |number| Line::new(number).unwrap();
        let on = |number, ms| Offset { line: line(number), ..offset(7, ms) };
        let place = |offsets: &[Offset]| {
            let mut place = Place::default();
            offsets.iter().for_each(|offset| place.set(*offset));
            place
        };
        let change = Change { after: at(30), partition: Some(on(2, 5)), room: "b".into(), joined: true };
        let parked = Parked {
            start: place(&[on(0, 10), on(1, 4)]),
            changes: Changes::known(Place::default(), [change]),
            last: at(9),
            last_line: line(2),
            at: place(&[on(0, 50), on(1, 8), on(2, 12)]),
            ..parked()
        };
        let from = |named: &[Offset]| parked.resume_from(Some(&place(named))).unwrap();
        assert_eq!(from(&[on(0, 20), on(1, 6)]), place(&[on(0, 20), on(1, 6), on(2, 5)]));
        assert_eq!(from(&[on(0, 30), on(1, 6), on(2, 8)]), place(&[on(0, 30), on(1, 6), on(2, 8)]));
        assert_eq!(from(&[on(0, 30), on(1, 6), on(2, 9)]), parked.at, "it has the last event");
        let forgotten = Parked { changes: Changes::known(place(&[on(0, 30), on(2, 5)]), []), ..parked.clone() };
        assert_eq!(forgotten.resume_from(Some(&place(&[on(0, 30)]))), None);
        assert!(forgotten.resume_from(Some(&place(&[on(0, 30), on(2, 6)]))).is_some());
    }

    #[test]
    fn an_offset_of_a_publisher_says_nothing_of_what_was_sent_before_it() {
        let on = |number, ms| Offset { line: Line::new(number).unwrap(), ..offset(7, ms) };
        let place = |offsets: &[Offset]| {
            let mut place = Place::default();
            offsets.iter().for_each(|offset| place.set(*offset));
            place
        };
        let parked = Parked {
            start: place(&[on(0, 10), on(1, 4), on(2, 5)]),
            last: at(9),
            last_line: Line::new(2).unwrap(),
            at: place(&[on(0, 50), on(1, 8), on(2, 12)]),
            ..parked()
        };
        let from = |parked: &Parked, named: &Place| parked.resume_from(Some(named)).unwrap();
        let (own, publisher) =
            (place(&[on(0, 20), on(1, 6), on(2, 9)]), place(&[on(0, 20), on(1, 6), on(2, 9), on(3, 1)]));
        assert_eq!(from(&parked, &own), parked.at, "it got the last event");
        assert_eq!(from(&parked, &publisher), publisher, "it knows of the last event");
        let quiet = Parked { last: Position::default(), ..parked };
        assert_eq!(from(&quiet, &publisher).only(own.lines()), quiet.at, "nothing was sent");
    }

    #[test]
    fn who_is_served_twice_from_one_offset_is_believed_line_by_line() {
        let on = |number, ms| Offset { line: Line::new(number).unwrap(), ..offset(7, ms) };
        let place = |offsets: [Offset; 2]| {
            let mut place = Place::default();
            offsets.into_iter().for_each(|offset| place.set(offset));
            place
        };
        let once = Parked {
            start: place([on(0, 10), on(1, 10)]),
            last: at(40),
            last_line: Line::CONTROL,
            at: place([on(0, 50), on(1, 50)]),
            ..parked()
        };
        // By the first connection it got what is at 40, and not yet 30 on line 1, which the second one brought before that.
        let (first, named) = (place([on(0, 10), on(1, 10)]), place([on(0, 40), on(1, 20)]));
        let mut twice = Parked { moves: 1, ..once.clone() };
        twice.note_resumed(&first);
        assert_eq!(twice.resume_from(Some(&named)), Some(named.clone()));
        let mut again = once.clone();
        again.note_resumed(&first);
        assert_eq!(
            again.resume_from(Some(&named)),
            Some(again.at.clone()),
            "no connection before it resumed the session"
        );
        let mut had_all = Parked { moves: 1, ..once };
        had_all.note_resumed(&had_all.at.clone());
        assert_eq!(had_all.last, at(40), "the one before had brought nothing more");
        let mut of_one_line = Parked { moves: 1, ..parked() };
        of_one_line.note_resumed(&offset(7, 15).into());
        assert_eq!(of_one_line.last, parked().last);
    }

    #[test]
    fn rooms_that_are_not_kept_are_lost() {
        let change = |room: &str, joined| Change { after: at(20), partition: None, room: room.into(), joined };
        let mut parked = Parked {
            rooms: vec!["a".into(), "b".into(), "c".into()],
            provenances: vec![("b".into(), Provenance::Rule), ("a".into(), Provenance::Grant)],
            changes: Changes::known(
                offset(0, 5).into(),
                [change("a", true), change("b", true), change("x", false), change("y", false)],
            ),
            ..parked()
        };
        let by: Vec<_> = parked.memberships().map(|(room, by)| format!("{room} {by:?}")).collect();
        assert_eq!(by, ["a Grant", "b Rule", "c Command"]);
        parked.keep_rooms(vec![("b".into(), Provenance::Rule)], Partitions::ONE, |room| &**room == "y");
        assert_eq!(parked.rooms.join(" "), "b");
        let lost: Vec<_> = parked.changes.lost().map(|change| (&*change.room, change.after.ms)).collect();
        assert_eq!((lost, parked.changes.floor()), (vec![("x", 20), ("a", 50), ("c", 50)], offset(0, 5).into()));
        let was_in = parked.changes.rooms_at(offset(0, 21), &parked.rooms, Partitions::ONE).unwrap();
        assert_eq!(was_in.join(" "), "b c a");
    }
}
