//! Which records of sessions are to be written to Redis, and when (see [`crate::shard::persist`]).

use crate::cluster::{Owner, Record, RecordChange};
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::session::parked::Parked;
use crate::session::record_parts::{RecordText, WrittenParts};
use crate::shard::deadlines::Deadlines;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Records written before others get their turn: some 2 µs each.
const RECORDS_PER_TURN: usize = 500;

/// Which sessions have changed since their records were written. Each session is in each of its tables once, so that none grows while Redis
/// is away.
pub(super) struct SessionPersister {
    changed: HashSet<Id>,
    /// When each record is written again. It tells where the log stood when it was written, and must not get too old to
    /// resume from.
    due: HashMap<Id, Millis>,
    deadlines: Deadlines<Id>,
    /// What was written of those with large records.
    parts: HashMap<Id, WrittenParts>,
    /// How many parts Redis may have of a session's record, where that is any.
    part_counts: HashMap<Id, u8>,
    /// Sessions that another node may have taken up while this one was away.
    stale: HashSet<Id>,
    /// Whether others can reach this node and ask it for sessions. If not, all are stale.
    reachable: bool,
    /// All records are being written again, for this round.
    rewriting: Option<u64>,
    /// After this time a record is written again.
    refresh: Duration,
    wake: Arc<Notify>,
}

impl SessionPersister {
    /// For this recovery window.
    pub(super) fn new(window: Duration) -> Self {
        Self {
            changed: HashSet::new(),
            due: HashMap::new(),
            deadlines: Deadlines::default(),
            parts: HashMap::new(),
            part_counts: HashMap::new(),
            stale: HashSet::new(),
            reachable: false,
            rewriting: None,
            // The window holds a quarter more than itself (`RecoveryConfig::kept`).
            refresh: window / 5,
            wake: Arc::default(),
        }
    }

    /// Completes a wait when there is something to write.
    pub(super) fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// The session with this pid has changed.
    pub(super) fn note(&mut self, pid: Id) {
        if self.changed.is_empty() {
            self.wake.notify_one();
        }
        self.changed.insert(pid);
    }

    /// Another node may have taken up these sessions.
    pub(super) fn mark_stale(&mut self, pids: Vec<Id>) {
        self.stale.extend(pids);
    }

    /// Notes whether other nodes can reach this one.
    pub(super) fn be_reachable(&mut self, reachable: bool) {
        self.reachable = reachable;
    }

    /// Whether another node may have taken this session up.
    pub(super) fn is_stale(&self, pid: Id) -> bool {
        !self.reachable || self.stale.contains(&pid)
    }

    /// Other nodes were asked about this session.
    pub(super) fn confirm(&mut self, pid: Id) {
        self.stale.remove(&pid);
    }

    /// Another shard of this node writes this session's record from now on. Answers how many parts there may be of it.
    pub(super) fn forget(&mut self, pid: Id) -> u8 {
        self.parts.remove(&pid);
        self.changed.remove(&pid);
        self.stale.remove(&pid);
        let old = self.due.remove(&pid);
        self.deadlines.change(pid, old, None);
        self.part_counts.remove(&pid).unwrap_or_default()
    }

    /// Another shard of this node has written so many parts of this session's record.
    pub(super) fn inherit(&mut self, pid: Id, parts: u8) {
        if parts > 0 {
            self.part_counts.insert(pid, parts);
        }
    }

    /// The next record of a session, which counts as written.
    pub(super) fn record(&mut self, pid: Id, owner: Owner, parked: &Parked) -> RecordChange {
        let mut written = self.parts.remove(&pid);
        let RecordText { text, part, starts_over } = parked.next_text(&mut written, rand::random);
        let stale_parts = match &written {
            Some(_) => 0,
            None => self.part_counts.remove(&pid).unwrap_or_default(),
        };
        self.parts.extend(written.map(|written| (pid, written)));
        if let Some((number, _)) = &part {
            let count = self.part_counts.entry(pid).or_default();
            *count = (*count).max(number + 1);
        }
        let parts = part.into_iter().collect();
        RecordChange::Write(Record { owner, moves: parked.moves, text, parts, starts_over, stale_parts })
    }

    /// The removal of a record.
    pub(super) fn removal(&mut self, pid: Id) -> RecordChange {
        self.parts.remove(&pid);
        RecordChange::Remove(self.part_counts.remove(&pid).unwrap_or_default())
    }

    /// Writes the records of all sessions again.
    pub(super) fn rewrite(&mut self, pids: Vec<Id>, round: u64) {
        // Nothing of them is left.
        self.parts.clear();
        self.changed.extend(pids);
        self.rewriting = Some(round);
        self.wake.notify_one();
    }

    /// The round of [`SessionPersister::rewrite`], once; for when nothing is left to write.
    pub(super) fn take_rewritten(&mut self) -> Option<u64> {
        self.rewriting.take()
    }

    /// When the next record is to be written again.
    pub(super) fn next(&self) -> Option<Millis> {
        self.deadlines.next()
    }

    /// Some of those to be written now.
    pub(super) fn take(&mut self, now: Millis) -> Vec<Id> {
        while let Some(pid) = self.deadlines.pop(now) {
            self.due.remove(&pid);
            self.changed.insert(pid);
        }
        let some: Vec<Id> = self.changed.iter().copied().take(RECORDS_PER_TURN).collect();
        for pid in &some {
            self.changed.remove(pid);
        }
        some
    }

    /// These records are written, or removed where there is none.
    pub(super) fn wrote(&mut self, changes: &[(Id, RecordChange)], now: Millis) {
        for (pid, change) in changes {
            self.changed.remove(pid);
            let old = match change {
                RecordChange::Write(_) => self.due.insert(*pid, now.after(self.refresh)),
                RecordChange::Remove(_) => {
                    self.stale.remove(pid);
                    self.due.remove(pid)
                }
            };
            let new = self.due.get(pid).copied();
            self.deadlines.change(*pid, old, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Millis = Millis::new;

    fn record() -> RecordChange {
        let (parts, owner) = (Vec::new(), Owner::new("/", None));
        RecordChange::Write(Record { owner, moves: 0, text: String::new(), parts, starts_over: true, stale_parts: 0 })
    }

    #[test]
    fn what_changed_is_taken_once_and_again_after_its_time() {
        let (mut persister, pid) = (SessionPersister::new(Duration::from_millis(100)), Id::random());
        persister.note(pid);
        persister.note(pid);
        assert_eq!(persister.take(AT(1)), [pid]);
        assert!(persister.take(AT(1)).is_empty());
        persister.wrote(&[(pid, record())], AT(1));
        persister.wrote(&[(pid, record())], AT(5));
        assert_eq!(persister.next(), Some(AT(25)));
        assert!(persister.take(AT(21)).is_empty(), "it was written since");
        assert_eq!(persister.take(AT(25)), [pid]);
        persister.wrote(&[(pid, RecordChange::Remove(0))], AT(30));
        assert!(persister.take(AT(1_000)).is_empty() && persister.due.is_empty());
    }

    #[test]
    fn a_session_that_changes_all_the_time_waits_once() {
        let (mut persister, pid) = (SessionPersister::new(Duration::from_secs(1_000)), Id::random());
        for now in 1..1_000 {
            persister.note(pid);
            assert_eq!(persister.take(AT(now)), [pid]);
            persister.wrote(&[(pid, record())], AT(now));
        }
        assert_eq!((persister.due.len(), persister.next()), (1, Some(AT(200_999))));
        persister.wrote(&[(pid, RecordChange::Remove(0))], AT(1_000));
        assert_eq!(persister.next(), None);
    }
}
