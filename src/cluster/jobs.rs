//! What the node wants of Redis, until the courier carries it: errands with their time, and changes of records.

use crate::cluster::session_store::{Found, Owner, Record};
use crate::model::id::Id;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Bytes of letters and questions that may wait; over it they fail at once.
const WAITING_BYTES: usize = 32 << 20;
/// Changes of records that may wait while Redis is away. Over it those of sessions that ended are forgotten: what is
/// left of them in Redis goes with this node.
const MAX_CHANGES: usize = 500_000;
/// Records in one pipeline.
const RECORDS_AT_ONCE: usize = 5_000;
/// A pipeline takes no further errand once it has so many.
const AT_ONCE: usize = 2_000;

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Somebody listened.
    Heard,
    /// Nobody listens on that channel.
    Unheard,
    /// It could not be sent.
    Failed,
}

/// Something to be done in Redis.
pub(super) enum Job {
    /// Publish a sealed letter.
    Envelope { channel: String, letter: Vec<u8>, reply: oneshot::Sender<Sent> },
    /// Look for a session.
    Find { owner: Owner, pid: Id, reply: oneshot::Sender<Found> },
    /// Beat now, and see who else does.
    Heartbeat { reply: oneshot::Sender<()> },
    /// A command of another part of the node, and what Redis answers to it or refuses it with.
    Call { command: Cmd, reply: oneshot::Sender<Result<Value, String>> },
    /// Write what waits of this record now, and say when it is written.
    Keep { pid: Id, until: Instant, reply: oneshot::Sender<()> },
}

/// Errands that wait.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
    left: Notify,
}

#[derive(Default)]
struct Waiting {
    errands: VecDeque<(Instant, usize, Job)>,
    bytes: usize,
    /// The newest change of each record; one for each session of this node at most.
    changes: HashMap<Id, Option<Record>>,
    /// All records were given anew, for this round: to be noted in Redis once none waits any more.
    mark: Option<u64>,
    leaving: bool,
}

/// What one pipeline carries.
pub(super) struct JobBatch {
    pub errands: Vec<Job>,
    pub changes: Vec<(Id, Option<Record>)>,
    pub mark: Option<u64>,
    pub leaving: bool,
}

impl Queue {
    /// Puts an errand in; over the bound it is dropped, and whoever waits for its reply sees that.
    pub(super) fn push(&self, errand: Job, bytes: usize, patience: Duration) {
        self.waiting.lock().push(errand, bytes, patience);
        self.wake.notify_one();
    }

    /// Has a record written with the errands that wait, and not an older one after it.
    pub(super) fn keep_now(&self, pid: Id, record: Option<Record>, patience: Duration) -> oneshot::Receiver<()> {
        let (reply, kept) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.changes.insert(pid, record);
        waiting.push(Job::Keep { pid, until: Instant::now() + patience, reply }, 100, patience);
        drop(waiting);
        self.wake.notify_one();
        kept
    }

    /// Tries again to write records that somebody waits for.
    pub(super) fn keep_again(&self, kept: Vec<(Id, Instant, oneshot::Sender<()>)>) {
        let (mut waiting, now) = (self.waiting.lock(), Instant::now());
        for (pid, until, reply) in kept {
            let left = until.saturating_duration_since(now);
            waiting.push(Job::Keep { pid, until, reply }, 100, left);
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// All records were given anew.
    pub(super) fn mark(&self, round: u64) {
        self.waiting.lock().mark = Some(round);
        self.wake.notify_one();
    }

    /// Puts a letter in that is made under the lock: letters are sent in the order of their numbers.
    pub(super) fn push_letter(
        &self,
        patience: Duration,
        make: impl FnOnce(oneshot::Sender<Sent>) -> Job,
    ) -> Option<oneshot::Receiver<Sent>> {
        let (reply, sent) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let errand = make(reply);
        let bytes = if let Job::Envelope { letter, .. } = &errand { letter.len() + 200 } else { 0 };
        waiting.push(errand, bytes, patience);
        drop(waiting);
        self.wake.notify_one();
        Some(sent)
    }

    /// Puts changes of records in.
    pub(super) fn keep(&self, changes: Vec<(Id, Option<Record>)>) {
        let mut waiting = self.waiting.lock();
        waiting.changes.extend(changes);
        if waiting.changes.len() > MAX_CHANGES {
            waiting.changes.retain(|_, record| record.is_some());
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Asks for the last words, behind everything that waits.
    pub(super) fn leave(&self) {
        self.waiting.lock().leaving = true;
        self.wake.notify_one();
    }

    /// They are said.
    pub(super) fn has_left(&self) {
        self.waiting.lock().leaving = false;
        self.left.notify_one();
    }

    /// Completes when they are said.
    pub(super) async fn left(&self) {
        self.left.notified().await;
    }

    fn take(&self) -> Option<JobBatch> {
        let mut waiting = self.waiting.lock();
        let now = Instant::now();
        let mut errands = Vec::new();
        while errands.len() < AT_ONCE
            && let Some((deadline, bytes, errand)) = waiting.errands.pop_front()
        {
            waiting.bytes -= bytes;
            // Nobody waits any more for what is over time; a dropped reply says so.
            if deadline > now {
                errands.push(errand);
            }
        }
        let mut changes = Vec::new();
        for errand in &errands {
            // What is not there any more was written with an earlier pipeline.
            if let Job::Keep { pid, .. } = errand {
                changes.extend(waiting.changes.remove_entry(pid));
            }
        }
        changes.extend(waiting.take_changes());
        let mark = if waiting.changes.is_empty() { waiting.mark.take() } else { None };
        let leaving = waiting.leaving && waiting.errands.is_empty() && waiting.changes.is_empty();
        let any = leaving || mark.is_some() || !errands.is_empty() || !changes.is_empty();
        any.then_some(JobBatch { errands, changes, mark, leaving })
    }

    /// What the next pipeline carries.
    pub(super) async fn next(&self) -> JobBatch {
        loop {
            if let Some(load) = self.take() {
                return load;
            }
            self.wake.notified().await;
        }
    }

    /// Changes that were not written; newer ones stay.
    pub(super) fn put_back(&self, changes: Vec<(Id, Option<Record>)>) {
        let mut waiting = self.waiting.lock();
        for (pid, record) in changes {
            waiting.changes.entry(pid).or_insert(record);
        }
    }
}

impl Waiting {
    /// As many as one pipeline can carry in its time.
    fn take_changes(&mut self) -> Vec<(Id, Option<Record>)> {
        if self.changes.len() <= RECORDS_AT_ONCE {
            return std::mem::take(&mut self.changes).into_iter().collect();
        }
        let some: Vec<Id> = self.changes.keys().take(RECORDS_AT_ONCE).copied().collect();
        some.into_iter().filter_map(|pid| self.changes.remove_entry(&pid)).collect()
    }

    fn push(&mut self, errand: Job, bytes: usize, patience: Duration) {
        if self.bytes + bytes <= WAITING_BYTES {
            self.bytes += bytes;
            self.errands.push_back((Instant::now() + patience, bytes, errand));
        }
    }
}
