//! What waits for the connection to Redis: jobs with their deadlines, and changes of session records.

use crate::budget::memory::{Holding, MemoryBudget};
use crate::cluster::session_store::{Found, Owner, Record, RecordChange};
use crate::model::id::Id;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
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

pub(super) struct Queue {
    memory: Arc<MemoryBudget>,
    state: Mutex<State>,
    wake: Notify,
    left: Notify,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<QueuedJob>,
    bytes: usize,
    /// The newest content of each record that is to be written, and how many parts each has that is to be removed; no pid is
    /// in both of these.
    records: HashMap<Id, Record>,
    removals: HashMap<Id, u8>,
    record_bytes: usize,
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
    pub changes: Vec<(Id, RecordChange)>,
    pub finished_round: Option<u64>,
    pub leaving: bool,
}

impl Queue {
    /// Empty. What waits counts as held of `memory`.
    pub(super) fn new(memory: Arc<MemoryBudget>) -> Self {
        Self { memory, state: Mutex::default(), wake: Notify::new(), left: Notify::new() }
    }

    /// Changes what waits.
    fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let before = state.held();
        let result = change(&mut state);
        self.memory.adjust(Holding::Records, before, state.held());
        result
    }

    /// Adds to what waits.
    fn add(&self, change: impl FnOnce(&mut State)) {
        self.with_state(change);
        self.wake.notify_one();
    }

    /// Queues a job that is worth doing for `timeout`.
    pub(super) fn push(&self, job: Job, bytes: usize, timeout: Duration) {
        self.add(|state| state.push(job, bytes, Instant::now() + timeout));
    }

    /// Queues a message. `sign` runs under the lock, so that messages are sent in the order of their numbers.
    pub(super) fn push_message(
        &self,
        channel: String,
        timeout: Duration,
        reply: oneshot::Sender<Sent>,
        sign: impl FnOnce() -> Vec<u8>,
    ) {
        self.add(|state| {
            let message = sign();
            let bytes = message.len() + 200;
            state.push(Job::Publish { channel, message, reply }, bytes, Instant::now() + timeout);
        });
    }

    /// Queues changes of records.
    pub(super) fn push_changes(&self, changes: Vec<(Id, RecordChange)>) {
        self.add(|state| changes.into_iter().for_each(|(pid, change)| state.change(pid, change)));
    }

    /// Queues the change of a record; the receiver completes when it is written.
    pub(super) fn write_record(&self, pid: Id, change: RecordChange, timeout: Duration) -> oneshot::Receiver<()> {
        let (reply, written) = oneshot::channel();
        let deadline = Instant::now() + timeout;
        self.add(|state| {
            state.change(pid, change);
            state.push(Job::WriteRecord(PendingWrite { pid, deadline, reply }), 100, deadline);
        });
        written
    }

    /// Queues again what a broken connection did not write. Newer changes win.
    pub(super) fn put_back(&self, changes: Vec<(Id, RecordChange)>, writes: Vec<PendingWrite>) {
        self.add(|state| {
            for (pid, change) in changes {
                let newer = state.take_change(pid);
                state.change(pid, change);
                if let Some((_, newer)) = newer {
                    state.change(pid, newer);
                }
            }
            for write in writes {
                let deadline = write.deadline;
                state.push(Job::WriteRecord(write), 100, deadline);
            }
        });
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
            let batch = self.with_state(State::take);
            if let Some(batch) = batch {
                return batch;
            }
            self.wake.notified().await;
        }
    }
}

impl State {
    /// Bytes of what waits, near enough for limits.
    fn held(&self) -> usize {
        self.bytes + self.record_bytes + self.removals.len() * 40
    }

    fn push(&mut self, job: Job, bytes: usize, deadline: Instant) {
        if self.bytes + bytes <= MAX_JOB_BYTES {
            self.bytes += bytes;
            self.jobs.push_back(QueuedJob { deadline, bytes, job });
        }
    }

    fn change(&mut self, pid: Id, change: RecordChange) {
        let change = match self.take_change(pid) {
            Some((_, earlier)) => change.after(earlier),
            None => change,
        };
        match change {
            RecordChange::Write(record) => {
                self.record_bytes += record.size();
                self.records.insert(pid, record);
            }
            RecordChange::Remove(parts) => drop(self.removals.insert(pid, parts)),
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

    fn take_change(&mut self, pid: Id) -> Option<(Id, RecordChange)> {
        let written = self.records.remove(&pid);
        self.record_bytes -= written.as_ref().map_or(0, Record::size);
        let written = written.map(RecordChange::Write);
        Some((pid, written.or_else(|| self.removals.remove(&pid).map(RecordChange::Remove))?))
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

    fn take_changes(&mut self) -> Vec<(Id, RecordChange)> {
        let pids: Vec<Id> = self.records.keys().chain(self.removals.keys()).take(RECORDS_PER_BATCH).copied().collect();
        pids.into_iter().filter_map(|pid| self.take_change(pid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(moves: u32, parts: &[u8], starts_over: bool) -> Record {
        let parts = parts.iter().map(|part| (*part, part.to_string())).collect();
        Record { owner: Owner::new("/", None), moves, text: String::new(), parts, starts_over, stale_parts: 0 }
    }

    #[test]
    fn too_many_removals_are_dropped_and_records_stay() {
        let queue = Queue::new(MemoryBudget::unlimited());
        let kept = (Id::random(), RecordChange::Write(record(0, &[], true)));
        queue.push_changes(vec![kept.clone()]);
        queue.push_changes((0..MAX_REMOVALS).map(|_| (Id::random(), RecordChange::Remove(0))).collect());
        assert!(!queue.take_overflow());
        queue.push_changes(vec![(Id::random(), RecordChange::Remove(0))]);
        assert!(queue.take_overflow() && !queue.take_overflow());
        assert_eq!(queue.with_state(State::take).unwrap().changes, [kept]);
    }

    #[test]
    fn parts_that_are_not_written_yet_are_kept_until_a_new_base() {
        let (queue, pid) = (Queue::new(MemoryBudget::unlimited()), Id::random());
        let write = |record| vec![(pid, RecordChange::Write(record))];
        queue.push_changes(write(record(1, &[0], true)));
        queue.push_changes(write(record(2, &[1], false)));
        let sent = queue.with_state(State::take).unwrap().changes;
        assert_eq!(sent, write(record(2, &[0, 1], true)));
        queue.push_changes(write(record(3, &[2], false)));
        queue.put_back(sent, Vec::new());
        assert_eq!(queue.with_state(State::take).unwrap().changes, write(record(3, &[0, 1, 2], true)));
        queue.push_changes(write(record(4, &[3], false)));
        queue.push_changes(write(record(5, &[0], true)));
        assert_eq!(queue.with_state(State::take).unwrap().changes, write(record(5, &[0], true)));
        assert_eq!(queue.memory.held(Holding::Records), 0);
        queue.push_changes(vec![(pid, RecordChange::Remove(4))]);
        queue.push_changes(write(record(6, &[], true)));
        assert_eq!(
            queue.with_state(State::take).unwrap().changes,
            write(Record { stale_parts: 4, ..record(6, &[], true) })
        );
    }

    #[test]
    fn jobs_over_the_bound_fail_at_once() {
        let queue = Queue::new(MemoryBudget::unlimited());
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
        let (queue, pid) = (Queue::new(MemoryBudget::unlimited()), Id::random());
        let change = RecordChange::Write(record(1, &[], true));
        queue.push_changes(vec![(pid, change.clone())]);
        queue.put_back(vec![(pid, RecordChange::Remove(0))], Vec::new());
        let batch = queue.with_state(State::take).unwrap();
        assert_eq!(batch.changes, [(pid, change)]);
    }
}
