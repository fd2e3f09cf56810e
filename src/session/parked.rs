//! Sessions whose connection is gone and that may resume (sans-IO).

use crate::auth::Identity;
use crate::auth::claims::ClaimsDigest;
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::{Offset, Position};
use crate::model::provenance::Provenance;
use crate::session::changes::Changes;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

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
    pub start: Offset,
    /// The last stored event that was sent to it.
    pub last: Position,
    /// Where the log stood when its connection was lost. If it has the last event, it missed nothing before.
    pub at: Position,
    /// How often it was taken up on another connection.
    pub moves: u32,
}

impl Parked {
    /// Where the client continues, given the offset it names. Between the last event that it was sent and the moment its
    /// connection was lost there was no event for it.
    pub fn resume_from(&self, offset: Option<Offset>) -> Offset {
        // The stock client may still have the offset of an older session, or of an older epoch of the log
        // (docs/protocol/socketio.md section 4.2); then it has received nothing of this session.
        let named =
            offset.filter(|offset| offset.epoch == self.start.epoch).map_or(self.start.position, |o| o.position);
        let position = named.max(self.start.position);
        Offset {
            epoch: self.start.epoch,
            position: if position >= self.last { position.max(self.at) } else { position },
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

    /// Keeps only these of its rooms, and of the rooms that it has left those whose events it may still get.
    pub fn keep_rooms(&mut self, kept: Vec<(Room, Provenance)>, may_have: impl Fn(&Room) -> bool) {
        self.rooms = kept.iter().map(|(room, _)| room.clone()).collect();
        let rooms = &self.rooms;
        let changes = self.changes.list().filter(|change| rooms.contains(&change.room) || may_have(&change.room));
        self.changes = Changes::known(self.changes.floor(), changes.cloned().collect::<Vec<_>>());
        self.provenances = kept;
    }

    /// Digest of the claims that its rooms were decided on.
    pub fn deciding_claims(&self) -> ClaimsDigest {
        self.decided_on.unwrap_or_else(|| self.identity.deciding_claims())
    }

    /// Bytes it holds, near enough for limits.
    fn size(&self) -> usize {
        184 + self.identity.claims.len()
            + self.changes.size()
            + self.provenances.len() * 24
            + self.rooms.iter().map(|room| room.len() + 32).sum::<usize>()
    }
}

/// Parked sessions by pid, each for one window, within a limit of bytes.
#[derive(Default)]
pub struct ParkedSessions {
    by_pid: HashMap<Id, (Millis, Parked)>,
    /// In order of their end: every session is parked for the same time.
    ends: VecDeque<(Millis, Id)>,
    bytes: usize,
    /// Pids of those that were not taken in time.
    dropped: Vec<Id>,
}

impl ParkedSessions {
    /// Keeps a session until `until`; the oldest go when more than `max` bytes would be kept.
    pub fn park(&mut self, pid: Id, parked: Parked, until: Millis, max: usize) {
        self.bytes += parked.size();
        if let Some((_, old)) = self.by_pid.insert(pid, (until, parked)) {
            self.bytes -= old.size();
        }
        self.ends.push_back((until, pid));
        // Entries of sessions that were taken count too: a client that comes and goes must not pile them up.
        while self.bytes + self.ends.len() * 32 > max && !self.ends.is_empty() {
            self.drop_oldest();
        }
    }

    /// Takes a session for a resume.
    pub fn take(&mut self, pid: Id, now: Millis) -> Option<Parked> {
        self.expire(now);
        let (_, parked) = self.by_pid.remove(&pid)?;
        self.bytes -= parked.size();
        Some(parked)
    }

    /// Forgets those whose time is over.
    pub fn expire(&mut self, now: Millis) {
        while self.ends.front().is_some_and(|(end, _)| *end <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((end, pid)) = self.ends.pop_front() else { return };
        // The same pid may have been taken and parked again since.
        if self.by_pid.get(&pid).is_some_and(|(until, _)| *until == end) {
            self.bytes -= self.by_pid.remove(&pid).map_or(0, |(_, parked)| parked.size());
            self.dropped.push(pid);
        }
    }

    /// Drops the oldest until so many bytes are free.
    pub fn drop_bytes(&mut self, bytes: usize) {
        let kept = self.bytes.saturating_sub(bytes);
        while self.bytes > kept && !self.ends.is_empty() {
            self.drop_oldest();
        }
    }

    /// Bytes they hold, near enough for limits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Looks at a session.
    pub fn get(&self, pid: Id) -> Option<&Parked> {
        self.by_pid.get(&pid).map(|(_, parked)| parked)
    }

    /// The pids of all that are kept.
    pub fn pids(&self) -> impl Iterator<Item = Id> {
        self.by_pid.keys().copied()
    }

    /// The pids of those that were not taken in time, since the last call.
    pub fn take_dropped(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.dropped)
    }

    /// When the next one ends.
    pub fn next(&self) -> Option<Millis> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.by_pid.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::model::offset::Epoch;
    use crate::session::changes::Change;

    fn at(ms: u64) -> Position {
        Position { ms, seq: 0 }
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
            start: Offset { epoch: Epoch(7), position: at(10) },
            last: at(20),
            at: at(50),
            moves: 0,
        }
    }

    #[test]
    fn kept_for_the_window_and_taken_once() {
        let (mut sessions, pid, other) = (ParkedSessions::default(), Id::random(), Id::random());
        sessions.park(pid, parked(), Millis::new(100), 10_000);
        sessions.park(other, parked(), Millis::new(110), 10_000);
        assert!(sessions.get(pid).is_some());
        assert!(sessions.take(pid, Millis::new(99)).is_some());
        assert!(sessions.take(pid, Millis::new(99)).is_none());
        sessions.park(pid, parked(), Millis::new(120), 10_000);
        sessions.expire(Millis::new(110));
        assert_eq!(sessions.len(), 1);
        assert!(sessions.take(pid, Millis::new(119)).is_some());
        sessions.expire(Millis::new(120));
        assert_eq!((sessions.next(), sessions.is_empty(), sessions.bytes), (None, true, 0));
    }

    #[test]
    fn bounded_in_bytes() {
        let mut sessions = ParkedSessions::default();
        for n in 0..1_000 {
            sessions.park(Id::random(), parked(), Millis::new(100 + n), 2_000);
        }
        assert!((5..20).contains(&sessions.len()), "{}", sessions.len());
        let pid = Id::random();
        for n in 0..1_000 {
            sessions.park(pid, parked(), Millis::new(1_100 + n), 2_000);
            sessions.take(pid, Millis::new(0));
        }
        assert!(sessions.ends.len() < 100, "taken sessions leave nothing behind");
    }

    #[test]
    fn a_quiet_client_continues_from_where_it_went() {
        let parked = parked();
        let from = |epoch, ms| parked.resume_from(Some(Offset { epoch: Epoch(epoch), position: at(ms) })).position;
        assert_eq!(from(7, 15), at(15), "it did not get the last event");
        assert_eq!(from(7, 20), at(50), "it has all that was its own");
        assert_eq!(from(7, 60), at(60), "it has seen more, by another node");
        assert_eq!(from(7, 5), at(10), "an offset of a session before");
        assert_eq!(from(8, 99), at(10), "an offset of another life of the log");
        assert_eq!(parked.resume_from(None).position, at(10), "it received nothing of what was sent");
        let quiet = Parked { last: Position::default(), ..parked };
        assert_eq!(quiet.resume_from(None).position, at(50), "nothing was sent");
    }

    #[test]
    fn rooms_that_are_not_kept_leave_no_trace() {
        let change = |room: &str, joined| Change { after: at(20), room: room.into(), joined };
        let mut parked = Parked {
            rooms: vec!["a".into(), "b".into(), "c".into()],
            provenances: vec![("b".into(), Provenance::Rule), ("a".into(), Provenance::Grant)],
            changes: Changes::known(
                at(5),
                [change("a", true), change("b", true), change("x", false), change("y", false)],
            ),
            ..parked()
        };
        let by: Vec<_> = parked.memberships().map(|(room, by)| format!("{room} {by:?}")).collect();
        assert_eq!(by, ["a Grant", "b Rule", "c Command"]);
        parked.keep_rooms(vec![("b".into(), Provenance::Rule)], |room| &**room == "y");
        assert_eq!(parked.rooms.join(" "), "b");
        let changed: Vec<_> = parked.changes.list().map(|change| &*change.room).collect();
        assert_eq!((changed, parked.changes.floor()), (vec!["b", "y"], at(5)));
    }
}
