//! The sessions of a shard that may resume (sans-IO), each for one window, within a limit of bytes. Over it, the owner who
//! holds most loses the oldest of theirs.

use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::session::parked::Parked;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

/// An owner with less than this fraction of the limit does not stand out. Where nobody does, the oldest session goes.
const LARGE_FRACTION: usize = 64;

/// Whose sessions they are: a hash of the user, or of the address of a client without one.
type Owner = u64;

/// Parked sessions by pid.
#[derive(Default)]
pub struct ParkedSessions {
    by_pid: HashMap<Id, Entry>,
    /// In order of their end: every session is parked for the same time.
    ends: BTreeSet<(Millis, Id)>,
    by_owner: BTreeSet<(Owner, Millis, Id)>,
    shares: HashMap<Owner, usize>,
    /// The owners by their bytes.
    largest: BTreeSet<(usize, Owner)>,
    bytes: usize,
    hasher: RandomState,
    /// Pids of those that were not taken in time.
    dropped: Vec<Id>,
}

struct Entry {
    until: Millis,
    owner: Owner,
    parked: Parked,
}

impl ParkedSessions {
    /// Keeps a session until `until`. `address` is where its client was, if that is known.
    pub fn park(&mut self, pid: Id, mut parked: Parked, address: Option<IpAddr>, until: Millis, max: usize) {
        parked.drop_claims();
        self.remove(pid);
        let owner = match &parked.identity.user {
            Some(user) => self.hasher.hash_one(user.as_str()),
            None => self.hasher.hash_one(address),
        };
        self.ends.insert((until, pid));
        self.by_owner.insert((owner, until, pid));
        let own = self.shares.get(&owner).copied().unwrap_or_default();
        self.note_share(owner, own, own + parked.size());
        self.by_pid.insert(pid, Entry { until, owner, parked });
        while self.bytes > max && !self.is_empty() {
            self.drop_one(max / LARGE_FRACTION);
        }
    }

    /// Takes a session for a resume.
    pub fn take(&mut self, pid: Id, now: Millis) -> Option<Parked> {
        self.expire(now);
        self.remove(pid)
    }

    /// Forgets those whose time is over.
    pub fn expire(&mut self, now: Millis) {
        while let Some(&(_, pid)) = self.ends.first().filter(|(end, _)| *end <= now) {
            self.remove(pid);
            self.dropped.push(pid);
        }
    }

    /// Drops some until so many bytes are free.
    pub fn drop_bytes(&mut self, bytes: usize) {
        let kept = self.bytes.saturating_sub(bytes);
        while self.bytes > kept && !self.is_empty() {
            self.drop_one(kept / LARGE_FRACTION);
        }
    }

    /// Drops the oldest session of the owner who holds most; of all, if that is less than `large`.
    fn drop_one(&mut self, large: usize) {
        let oldest_of = |owner| self.by_owner.range((owner, Millis::new(1), Id::MIN)..).next();
        let largest = self.largest.last().filter(|(bytes, _)| *bytes >= large);
        let of_largest = largest.and_then(|(_, owner)| oldest_of(*owner)).map(|(_, _, pid)| *pid);
        if let Some(pid) = of_largest.or_else(|| self.ends.first().map(|(_, pid)| *pid)) {
            self.remove(pid);
            self.dropped.push(pid);
        }
    }

    fn remove(&mut self, pid: Id) -> Option<Parked> {
        let Entry { until, owner, parked } = self.by_pid.remove(&pid)?;
        self.ends.remove(&(until, pid));
        self.by_owner.remove(&(owner, until, pid));
        let own = self.shares.get(&owner).copied().unwrap_or_default();
        self.note_share(owner, own, own - parked.size());
        Some(parked)
    }

    fn note_share(&mut self, owner: Owner, before: usize, now: usize) {
        self.bytes = self.bytes - before + now;
        self.largest.remove(&(before, owner));
        if now == 0 {
            self.shares.remove(&owner);
        } else {
            self.shares.insert(owner, now);
            self.largest.insert((now, owner));
        }
    }

    /// Bytes they hold, near enough for limits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Looks at a session.
    pub fn get(&self, pid: Id) -> Option<&Parked> {
        self.by_pid.get(&pid).map(|entry| &entry.parked)
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
        self.ends.first().map(|(end, _)| *end)
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
    use crate::auth::Identity;
    use crate::auth::identity::UserId;
    use crate::model::namespaces::NamespaceIndex;
    use crate::model::offset::Position;
    use crate::model::partition::Line;
    use crate::model::place::Place;
    use crate::session::changes::Changes;
    use std::sync::Arc;

    fn parked(user: &str, rooms: usize) -> Parked {
        let user = UserId::from_claim(Some(&user.into())).ok();
        Parked {
            id: Id::random(),
            namespace: NamespaceIndex::default(),
            identity: Arc::new(Identity { user, ..Identity::anonymous() }),
            rooms: (0..rooms).map(|room| format!("room:{room}").into()).collect(),
            provenances: Vec::new(),
            decided_on: None,
            changes: Changes::default(),
            start: Place::default(),
            last: Position::default(),
            last_line: Line::CONTROL,
            at: Place::default(),
            moves: 0,
        }
    }

    fn park(sessions: &mut ParkedSessions, pid: Id, parked: Parked, until: u64, max: usize) {
        sessions.park(pid, parked, None, Millis::new(until), max);
    }

    #[test]
    fn kept_for_the_window_and_taken_once() {
        let (mut sessions, pid, other) = (ParkedSessions::default(), Id::random(), Id::random());
        park(&mut sessions, pid, parked("a", 0), 100, 10_000);
        park(&mut sessions, other, parked("a", 0), 110, 10_000);
        assert!(sessions.get(pid).is_some());
        assert!(sessions.take(pid, Millis::new(99)).is_some());
        assert!(sessions.take(pid, Millis::new(99)).is_none());
        park(&mut sessions, pid, parked("a", 0), 120, 10_000);
        sessions.expire(Millis::new(110));
        assert_eq!((sessions.len(), sessions.take_dropped()), (1, vec![other]));
        assert!(sessions.take(pid, Millis::new(119)).is_some());
        sessions.expire(Millis::new(120));
        assert_eq!((sessions.next(), sessions.is_empty(), sessions.bytes), (None, true, 0));
        let left = (sessions.ends.len(), sessions.by_owner.len(), sessions.shares.len(), sessions.largest.len());
        assert_eq!(left, (0, 0, 0, 0));
    }

    #[test]
    fn bounded_in_bytes() {
        let mut sessions = ParkedSessions::default();
        for n in 0..1_000 {
            park(&mut sessions, Id::random(), parked(&format!("u{n}"), 0), 100 + n, 3_000);
            assert!(sessions.bytes() <= 3_000);
        }
        assert!((5..20).contains(&sessions.len()), "{}", sessions.len());
        let pid = Id::random();
        let others = sessions.len();
        for n in 0..1_000 {
            park(&mut sessions, pid, parked("c", 0), 2_000 + n, 1_000_000);
            sessions.take(pid, Millis::new(0));
        }
        assert_eq!((sessions.len(), sessions.ends.len()), (others, others), "taken sessions leave nothing behind");
    }

    #[test]
    fn who_holds_most_loses_first() {
        let (mut sessions, max) = (ParkedSessions::default(), 100_000);
        let victims: Vec<Id> = (0..50).map(|_| Id::random()).collect();
        for (n, pid) in (0..).zip(&victims) {
            park(&mut sessions, *pid, parked(&format!("u{n}"), 2), 100, max);
        }
        let flood: Vec<Id> = (0..1_000).map(|_| Id::random()).collect();
        (200..).zip(&flood).for_each(|(until, pid)| park(&mut sessions, *pid, parked("flood", 10), until, max));
        assert!(victims.iter().all(|pid| sessions.get(*pid).is_some()), "a victim lost its session");
        assert!(sessions.get(flood[999]).is_some() && sessions.get(flood[0]).is_none());
        sessions.drop_bytes(max / 2);
        assert!(victims.iter().all(|pid| sessions.get(*pid).is_some()) && sessions.bytes() <= max / 2);
    }

    #[test]
    fn where_nobody_stands_out_the_oldest_goes() {
        let (mut sessions, max) = (ParkedSessions::default(), 64_000);
        let pids: Vec<Id> = (0..400).map(|_| Id::random()).collect();
        for (n, pid) in (0..).zip(&pids) {
            let rooms = usize::from(n % 3 == 0);
            park(&mut sessions, *pid, parked(&format!("u{n}"), rooms), 100 + n, max);
        }
        let kept = sessions.len();
        assert!(pids[400 - kept..].iter().all(|pid| sessions.get(*pid).is_some()));
    }
}
