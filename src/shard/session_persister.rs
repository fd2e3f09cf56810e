//! Which records of sessions are to be written to Redis, and when (see [`crate::shard::persist`]).

use crate::cluster::Record;
use crate::model::id::Id;
use crate::session::timers::Millis;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use tokio::sync::Notify;

/// Records written before others get their turn: some 2 µs each.
const AT_ONCE: usize = 500;

/// Which records are not as their sessions are.
pub struct SessionPersister {
    pub(super) changed: HashSet<Id>,
    /// A record tells where the log stood when it was written; it is written again before that is too old to resume
    /// from. In order of time: all wait equally long.
    again: VecDeque<(Millis, Id)>,
    /// When each record was written last.
    written: HashMap<Id, Millis>,
    /// Sessions that another node may have taken up while this one was away.
    pub(super) stale: HashSet<Id>,
    /// Whether others can reach this node and ask it for sessions. Where not, all are doubted.
    pub(super) reachable: bool,
    /// All records are being written anew, for this round.
    pub(super) rewriting: Option<u64>,
    /// Milliseconds after which a record is written again.
    refresh: Millis,
    pub(super) wake: Rc<Notify>,
}

impl SessionPersister {
    /// For a recovery window of so many milliseconds.
    pub fn new(window: Millis) -> Self {
        // The window holds a quarter more than itself (`RecoveryConfig::kept`).
        let (changed, stale) = (HashSet::new(), HashSet::new());
        let (again, written) = (VecDeque::new(), HashMap::new());
        let (reachable, rewriting, wake) = (false, None, Rc::default());
        Self { changed, again, written, stale, reachable, rewriting, refresh: window / 5, wake }
    }

    /// The session with this pid is not as it was.
    pub fn note(&mut self, pid: Id) {
        if self.changed.is_empty() {
            self.wake.notify_one();
        }
        self.changed.insert(pid);
    }

    /// When the next record is to be written again.
    pub(super) fn next(&self) -> Option<Millis> {
        self.again.front().map(|(at, _)| *at)
    }

    /// Some of those to be written now.
    pub(super) fn take(&mut self, now: Millis) -> Vec<Id> {
        while let Some((at, pid)) = self.again.front().copied()
            && at <= now
        {
            self.again.pop_front();
            // It may have been written since, for a change.
            if self.written.get(&pid).is_some_and(|written| written + self.refresh <= now) {
                self.changed.insert(pid);
            }
        }
        let some: Vec<Id> = self.changed.iter().copied().take(AT_ONCE).collect();
        for pid in &some {
            self.changed.remove(pid);
        }
        some
    }

    /// These records are written, or removed where there is none.
    pub(super) fn wrote(&mut self, changes: &[(Id, Option<Record>)], now: Millis) {
        for (pid, record) in changes {
            match record {
                Some(_) => {
                    self.written.insert(*pid, now);
                    self.again.push_back((now + self.refresh, *pid));
                }
                None => {
                    self.written.remove(pid);
                    self.stale.remove(pid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Owner;

    #[test]
    fn what_changed_is_taken_once_and_again_after_its_time() {
        let (mut persister, pid) = (SessionPersister::new(100), Id::random());
        persister.note(pid);
        persister.note(pid);
        assert_eq!(persister.take(0), [pid]);
        assert!(persister.take(0).is_empty());
        let record = || Record { owner: Owner::new("/", None), moves: 0, text: String::new() };
        persister.wrote(&[(pid, Some(record()))], 0);
        persister.wrote(&[(pid, Some(record()))], 5);
        assert_eq!(persister.next(), Some(20));
        assert!(persister.take(20).is_empty(), "it was written since");
        assert_eq!(persister.take(25), [pid]);
        persister.wrote(&[(pid, None)], 30);
        assert!(persister.take(1_000).is_empty() && persister.written.is_empty());
    }
}
