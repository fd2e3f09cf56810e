//! What waits for the connection to Redis: jobs with their deadlines, and changes of session records.

use crate::cluster::session_store::{Found, Owner, Record};
use crate::model::id::Id;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Bytes of jobs that may wait. Above it a job is dropped, and its caller gets an error at once.
const MAX_JOB_BYTES: usize = 32 << 20;
/// Records in one batch.
const RECORDS_PER_BATCH: usize = 5_000;
/// A batch takes no further job once it has so many.
const JOBS_PER_BATCH: usize = 2_000;

/// Removals of records that may wait while Redis is away, some 10 MB. Sessions come and go for as long as that takes, while
/// records that wait to be written are at most one for each session of this node. Above it the removals are dropped; once
/// Redis is back all records of this node are removed and those of its sessions written again.
const MAX_REMOVALS: usize = 200_000;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Redis passed it to a subscriber.
    Received,
    /// Nobody subscribes to that channel.
    NoSubscriber,
    /// It could not be sent.
    Failed,
    /// Too much waits for that node already.
    Busy,
}

/// Something to be done in Redis. A caller whose job is dropped sees its reply channel close.
pub(super) enum Job {
    /// Publish a signed message.
    Publish { channel: String, message: Vec<u8>, reply: oneshot::Sender<Sent> },
    /// Look for a session.
    Find { owner: Owner, pid: Id, reply: oneshot::Sender<Found> },
    /// Send a heartbeat now and read who else is live.
    Heartbeat { reply: oneshot::Sender<()> },
    /// A command of another module. The reply is Redis' own, or its error text.
    Command { command: Cmd, reply: oneshot::Sender<Result<Value, String>> },
    /// Reply when the waiting change of this record is written.
    WriteRecord(PendingWrite),
}

/// A caller that waits for a record to be written.
pub(super) struct PendingWrite {
    pub pid: Id,
    pub deadline: Instant,
    pub reply: oneshot::Sender<()>,
}

/// A record's new content; `None` removes it.
pub(super) type RecordChange = (Id, Option<Record>);

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Notify,
    left: Notify,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<QueuedJob>,
    bytes: usize,
    /// The newest content of each record that is to be written; no pid is in both of these.
    records: HashMap<Id, Record>,
    removals: HashSet<Id>,
    /// Removals were dropped because there were too many.
    overflowed: bool,
    /// All records were queued again for this round: Redis gets the round's number once no change waits any more.
    finished_round: Option<u64>,
    leaving: bool,
}

struct QueuedJob {
    deadline: Instant,
    bytes: usize,
    job: Job,
}

/// What one pipeline carries.
pub(super) struct JobBatch {
    pub jobs: Vec<Job>,
    pub changes: Vec<RecordChange>,
    pub finished_round: Option<u64>,
    pub leaving: bool,
}

impl Queue {
    /// Queues a job that is worth doing for `timeout`.
    pub(super) fn push(&self, job: Job, bytes: usize, timeout: Duration) {
        self.state.lock().push(job, bytes, Instant::now() + timeout);
        self.wake.notify_one();
    }

    /// Queues a message. `sign` runs under the lock, so that messages are sent in the order of their numbers.
    pub(super) fn push_message(
        &self,
        channel: String,
        timeout: Duration,
        reply: oneshot::Sender<Sent>,
        sign: impl FnOnce() -> Vec<u8>,
    ) {
        let mut state = self.state.lock();
        let message = sign();
        let bytes = message.len() + 200;
        state.push(Job::Publish { channel, message, reply }, bytes, Instant::now() + timeout);
        drop(state);
        self.wake.notify_one();
    }

    /// Queues changes of records.
    pub(super) fn push_changes(&self, changes: Vec<RecordChange>) {
        let mut state = self.state.lock();
        for (pid, record) in changes {
            state.change(pid, record);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Queues the change of a record; the receiver completes when it is written.
    pub(super) fn write_record(&self, pid: Id, record: Option<Record>, timeout: Duration) -> oneshot::Receiver<()> {
        let (reply, written) = oneshot::channel();
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        state.change(pid, record);
        state.push(Job::WriteRecord(PendingWrite { pid, deadline, reply }), 100, deadline);
        drop(state);
        self.wake.notify_one();
        written
    }

    /// Queues again what a broken connection did not write. Newer changes win.
    pub(super) fn put_back(&self, changes: Vec<RecordChange>, writes: Vec<PendingWrite>) {
        let mut state = self.state.lock();
        for (pid, record) in changes {
            if !state.records.contains_key(&pid) && !state.removals.contains(&pid) {
                state.change(pid, record);
            }
        }
        for write in writes {
            let deadline = write.deadline;
            state.push(Job::WriteRecord(write), 100, deadline);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// All records were queued again.
    pub(super) fn finish_round(&self, round: u64) {
        self.state.lock().finished_round = Some(round);
        self.wake.notify_one();
    }

    /// Whether removals were dropped since this was asked last.
    pub(super) fn take_overflow(&self) -> bool {
        std::mem::take(&mut self.state.lock().overflowed)
    }

    /// Leaves the membership after everything that waits.
    pub(super) fn leave(&self) {
        self.state.lock().leaving = true;
        self.wake.notify_one();
    }

    /// The node has left the membership.
    pub(super) fn has_left(&self) {
        self.state.lock().leaving = false;
        self.left.notify_one();
    }

    /// Completes when the node has left the membership.
    pub(super) async fn left(&self) {
        self.left.notified().await;
    }

    /// The next batch, when there is one.
    pub(super) async fn next(&self) -> JobBatch {
        loop {
            let batch = self.state.lock().take();
            if let Some(batch) = batch {
                return batch;
            }
            self.wake.notified().await;
        }
    }
}

impl State {
    fn push(&mut self, job: Job, bytes: usize, deadline: Instant) {
        if self.bytes + bytes <= MAX_JOB_BYTES {
            self.bytes += bytes;
            self.jobs.push_back(QueuedJob { deadline, bytes, job });
        }
    }

    fn change(&mut self, pid: Id, record: Option<Record>) {
        match record {
            Some(record) => {
                self.removals.remove(&pid);
                self.records.insert(pid, record);
            }
            None => {
                self.records.remove(&pid);
                self.removals.insert(pid);
            }
        }
        if self.removals.len() > MAX_REMOVALS {
            let dropped = std::mem::take(&mut self.removals).len();
            self.overflowed = true;
            tracing::warn!(dropped, "Redis is away for long; all session records are written again when it is back");
        }
    }

    fn has_changes(&self) -> bool {
        !self.records.is_empty() || !self.removals.is_empty()
    }

    fn take_change(&mut self, pid: Id) -> Option<RecordChange> {
        match self.records.remove(&pid) {
            Some(record) => Some((pid, Some(record))),
            None => self.removals.remove(&pid).then_some((pid, None)),
        }
    }

    fn take(&mut self) -> Option<JobBatch> {
        let now = Instant::now();
        let mut jobs = Vec::new();
        while jobs.len() < JOBS_PER_BATCH
            && let Some(queued) = self.jobs.pop_front()
        {
            self.bytes -= queued.bytes;
            // A dropped job tells its caller that it is too late.
            if queued.deadline > now {
                jobs.push(queued.job);
            }
        }
        let mut changes = Vec::new();
        for job in &jobs {
            // A change that is not there any more was written with an earlier batch.
            if let Job::WriteRecord(write) = job {
                changes.extend(self.take_change(write.pid));
            }
        }
        changes.extend(self.take_changes());
        let finished_round = if self.has_changes() { None } else { self.finished_round.take() };
        let leaving = self.leaving && self.jobs.is_empty() && !self.has_changes();
        let has_work = leaving || finished_round.is_some() || !jobs.is_empty() || !changes.is_empty();
        has_work.then_some(JobBatch { jobs, changes, finished_round, leaving })
    }

    fn take_changes(&mut self) -> Vec<RecordChange> {
        let pids: Vec<Id> = self.records.keys().chain(&self.removals).take(RECORDS_PER_BATCH).copied().collect();
        pids.into_iter().filter_map(|pid| self.take_change(pid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_removals_are_dropped_and_records_stay() {
        let queue = Queue::default();
        let record = Record { owner: Owner::new("/", None), moves: 0, text: String::new() };
        let kept = Id::random();
        queue.push_changes(vec![(kept, Some(record.clone()))]);
        queue.push_changes((0..MAX_REMOVALS).map(|_| (Id::random(), None)).collect());
        assert!(!queue.take_overflow());
        queue.push_changes(vec![(Id::random(), None)]);
        assert!(queue.take_overflow() && !queue.take_overflow());
        assert_eq!(queue.state.lock().take().unwrap().changes, [(kept, Some(record))]);
    }

    #[test]
    fn jobs_over_the_bound_fail_at_once() {
        let queue = Queue::default();
        let send = || {
            let (reply, sent) = oneshot::channel();
            queue.push_message("c".into(), Duration::from_secs(60), reply, || vec![0; MAX_JOB_BYTES / 2]);
            sent
        };
        let (mut first, mut second) = (send(), send());
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn newer_changes_win_over_those_put_back() {
        let (queue, pid) = (Queue::default(), Id::random());
        let record = Record { owner: Owner::new("/", None), moves: 1, text: String::new() };
        queue.push_changes(vec![(pid, Some(record.clone()))]);
        queue.put_back(vec![(pid, None)], Vec::new());
        let batch = queue.state.lock().take().unwrap();
        assert_eq!(batch.changes, [(pid, Some(record))]);
    }
}
