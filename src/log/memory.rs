//! The embedded log: one node, no Redis. Appended events wait in a bounded queue until the tail takes them.

mod shard_tail;

use crate::log::backfill::{Past, PastRange, PastUnavailable};
use crate::log::recent_ids::RecentIds;
use crate::log::{Accepted, AppendError, Appended, BoxFuture, EventLog, LogStatus, Sink, Snapshot};
use crate::model::clock::unix_us;
use crate::model::command::SessionCommand;
use crate::model::draft::Draft;
use crate::model::event::{Batch, Event, PlacedCommand};
use crate::model::id::Id;
use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::Line;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Probes that may wait. Health checks send a few at a time.
const MAX_PROBES: usize = 10_000;

/// Batches that one append delivers before it leaves the rest to [`EventLog::run`].
const MAX_ROUNDS: usize = 4;

/// Bytes of events that wait for the end of a turn of a shard's thread. More are delivered at once.
const MAX_DEFERRED: usize = 64 << 10;

/// Bounds of a [`MemoryLog`].
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// Bytes of events that may wait for the tail. Above it appends get [`AppendError::Overloaded`]. Default 64 MiB.
    pub queue_bytes: usize,
    /// Bytes of remembered idempotency ids. Above it the oldest are forgotten early. Default 64 MiB.
    pub id_bytes: usize,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { queue_bytes: 64 << 20, id_bytes: 64 << 20 }
    }
}

/// The log in memory.
///
/// A call that appends also delivers, if no other call does and the shards have room: waking another thread costs more than
/// delivering. Otherwise [`EventLog::run`] delivers. What publishers append on a shard's thread is delivered at the end of
/// the thread's turn ([`shard_tail`]).
pub struct MemoryLog {
    limits: MemoryLimits,
    epoch: Epoch,
    state: Mutex<State>,
    /// Locked while a batch is delivered; `None` before [`EventLog::run`] starts.
    tail: tokio::sync::Mutex<Option<Arc<dyn Sink>>>,
    waiting: Notify,
}

struct State {
    last: Position,
    queue: Batch,
    queued_bytes: usize,
    ids: RecentIds<Option<Offset>>,
}

impl MemoryLog {
    /// An empty log. [`EventLog::run`] starts its tail.
    pub fn new(limits: MemoryLimits) -> Arc<Self> {
        let last = Position { ms: unix_us() / 1000, seq: 0 };
        let ids = RecentIds::new(limits.id_bytes);
        let state = Mutex::new(State { last, queue: Batch::default(), queued_bytes: 0, ids });
        Arc::new(Self {
            limits,
            epoch: Epoch::random(),
            state,
            tail: tokio::sync::Mutex::new(None),
            waiting: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// [`EventLog::append`], which needs no waiting here.
    pub fn append_all(&self, drafts: Vec<Draft>) -> Vec<Appended> {
        let mut answers = Vec::with_capacity(drafts.len());
        self.append_each(drafts.into_iter(), &mut answers);
        self.move_tail();
        answers
    }

    /// Appends without delivering. Answers how many bytes wait now.
    fn append_each(&self, mut drafts: impl Iterator<Item = Draft>, answers: &mut Vec<Appended>) -> usize {
        let now_us = unix_us();
        let mut state = self.state();
        for draft in drafts.by_ref() {
            match state.append(draft, now_us, self.epoch, self.limits.queue_bytes) {
                Ok(offset) => answers.push(Ok(Accepted { offset, replicas: None, is_repeat: false })),
                Err(error) => {
                    answers.push(Err(error));
                    break;
                }
            }
        }
        let waiting = state.queued_bytes;
        drop(state);
        // One refused draft refuses the rest of the call, so that nothing overtakes it.
        answers.extend(drafts.map(|_| Err(AppendError::Overloaded)));
        waiting
    }

    fn append_command_now(&self, command: Arc<SessionCommand>) -> Result<(), AppendError> {
        let mut state = self.state();
        let size = command.size();
        if state.queued_bytes > 0 && state.queued_bytes + size > self.limits.queue_bytes {
            return Err(AppendError::Overloaded);
        }
        state.queued_bytes += size;
        state.last = state.next_position(unix_us() / 1000);
        let offset = Offset { epoch: self.epoch, position: state.last, line: Line::CONTROL };
        let after = state.queue.events.len();
        state.queue.commands.push(PlacedCommand { after, offset, command });
        drop(state);
        self.move_tail();
        Ok(())
    }

    fn probe_now(&self, id: Id) -> Result<(), AppendError> {
        let mut state = self.state();
        if state.queue.probes.len() >= MAX_PROBES {
            return Err(AppendError::Overloaded);
        }
        state.queue.probes.push(id);
        drop(state);
        self.move_tail();
        Ok(())
    }

    /// Delivers what waits, on the caller's thread, as far as the sink has room.
    fn move_tail(&self) {
        for _ in 0..MAX_ROUNDS {
            // The holder of the tail looks once more after it released it, so nothing is left behind.
            if self.state().queue.is_empty() {
                return;
            }
            let Ok(tail) = self.tail.try_lock() else { return };
            let Some(sink) = tail.as_ref() else { return self.waiting.notify_one() };
            let (batch, bytes, position) = self.take();
            match sink.try_deliver(batch) {
                Ok(()) => sink.advanced_to(Line::CONTROL, position),
                Err(batch) => {
                    self.put_back(batch, bytes);
                    return self.waiting.notify_one();
                }
            }
        }
        self.waiting.notify_one();
    }

    /// Everything that waits, its bytes, and the position up to which that is everything.
    fn take(&self) -> (Batch, usize, Position) {
        let mut state = self.state();
        let bytes = std::mem::take(&mut state.queued_bytes);
        (std::mem::take(&mut state.queue), bytes, state.last)
    }

    /// Puts a batch back before what was appended since. The caller holds the tail.
    fn put_back(&self, batch: Batch, bytes: usize) {
        let mut state = self.state();
        state.queued_bytes += bytes;
        let later = std::mem::replace(&mut state.queue, batch);
        state.queue.append(later);
    }
}

impl State {
    fn append(
        &mut self,
        draft: Draft,
        now_us: u64,
        epoch: Epoch,
        queue_bytes: usize,
    ) -> Result<Option<Offset>, AppendError> {
        if let Some(id) = &draft.id
            && let Some(first) = self.ids.first(id, now_us / 1000)
        {
            return Ok(first);
        }
        let position = if draft.volatile { self.last } else { self.next_position(now_us / 1000) };
        let offset = Offset { epoch, position, line: Line::CONTROL };
        let event = Event { offset, draft, accepted_us: now_us, after: None };
        let size = event.size();
        if self.queued_bytes > 0 && self.queued_bytes + size > queue_bytes {
            return Err(AppendError::Overloaded);
        }
        self.last = position;
        self.queued_bytes += size;
        let answer = (!event.draft.volatile).then_some(event.offset);
        if let Some(id) = &event.draft.id {
            self.ids.remember(id, answer, now_us / 1000);
        }
        self.queue.events.push(Arc::new(event));
        Ok(answer)
    }

    /// The position before everything that waits.
    fn first_waiting(&self) -> Position {
        let events = self.queue.events.iter().map(|event| event.offset.position);
        let commands = self.queue.commands.iter().map(|placed| placed.offset.position);
        let first = events.take(1).chain(commands.take(1)).min();
        first.map_or(self.last, Position::predecessor)
    }

    /// Positions rise even when the clock goes back.
    fn next_position(&self, now_ms: u64) -> Position {
        match now_ms > self.last.ms {
            true => Position { ms: now_ms, seq: 0 },
            false => Position { ms: self.last.ms, seq: self.last.seq + 1 },
        }
    }
}

impl EventLog for MemoryLog {
    fn append(&self, drafts: Vec<Draft>) -> BoxFuture<'_, Vec<Appended>> {
        Box::pin(async move { self.append_all(drafts) })
    }

    fn append_now(&self, drafts: &mut Vec<Draft>, answers: &mut Vec<Appended>) -> bool {
        let waiting = self.append_each(drafts.drain(..), answers);
        if waiting > MAX_DEFERRED || !shard_tail::wake() {
            self.move_tail();
        }
        true
    }

    fn append_command(&self, command: Arc<SessionCommand>) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move { self.append_command_now(command) })
    }

    fn probe(&self, id: Id) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move { self.probe_now(id) })
    }

    fn read_past(&self, _range: PastRange, _within: Duration) -> BoxFuture<'_, Result<Past, PastUnavailable>> {
        Box::pin(async { Err(PastUnavailable("it is only in memory, in the window".into())) })
    }

    fn run(self: Arc<Self>, sink: Arc<dyn Sink>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // The tail delivers what waits already, so it starts before that.
            let start = self.state().first_waiting();
            let mut tail = self.tail.lock().await;
            sink.reset(Snapshot {
                line: Line::CONTROL,
                epoch: self.epoch,
                floor: start,
                head: start,
                history: Vec::new(),
                commands: Vec::new(),
            });
            *tail = Some(sink.clone());
            loop {
                let (batch, _, position) = self.take();
                if batch.is_empty() {
                    drop(tail);
                    self.move_tail();
                    self.waiting.notified().await;
                    tail = self.tail.lock().await;
                    continue;
                }
                sink.deliver(batch).await;
                sink.advanced_to(Line::CONTROL, position);
            }
        })
    }

    fn run_appender(self: Arc<Self>, _shard: usize) -> BoxFuture<'static, ()> {
        Box::pin(shard_tail::run(move || self.move_tail()))
    }

    fn status(&self) -> LogStatus {
        LogStatus::Embedded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::args::Args;
    use crate::model::draft::Source;

    fn draft(id: Option<&str>) -> Draft {
        Draft { id: id.map(str::to_owned), ..Draft::new("r", "e", Args::none(), Source::Http) }
    }

    fn state(last: Position) -> State {
        let ids = RecentIds::new(10_000);
        State { last, queue: Batch::default(), queued_bytes: 0, ids }
    }

    #[test]
    fn positions_rise_when_the_clock_goes_back() {
        let mut state = state(Position { ms: 5, seq: 3 });
        let mut append = |now_ms: u64| {
            state.append(draft(None), now_ms * 1000, Epoch(1), 1 << 20).unwrap().unwrap().position.to_string()
        };
        assert_eq!([append(9), append(9), append(2), append(10)], ["9-0", "9-1", "9-2", "10-0"]);
    }

    #[test]
    fn over_the_bound_the_rest_of_the_call_is_refused_and_ids_are_not_taken() {
        let log = MemoryLog::new(MemoryLimits { queue_bytes: 400, id_bytes: 1000 });
        let big = Draft { args: Args::one(&"1".repeat(300)).unwrap(), ..draft(Some("x")) };
        let answers = log.append_all(vec![draft(None), big.clone(), draft(None)]);
        assert!(answers[0].is_ok());
        assert_eq!(answers[1..], [Err(AppendError::Overloaded), Err(AppendError::Overloaded)]);
        assert_eq!(log.take().0.events.len(), 1);
        assert!(log.append_all(vec![big]).remove(0).is_ok());
        assert_eq!(log.take().0.events.len(), 1);
    }

    /// A sink that has room for nothing the first time.
    #[derive(Default)]
    struct Full {
        refused: Mutex<bool>,
        delivered: Mutex<Vec<Position>>,
        batches: Mutex<Vec<usize>>,
    }

    impl Sink for Full {
        fn reset(&self, _: Snapshot) {}

        fn deliver(&self, batch: Batch) -> BoxFuture<'_, ()> {
            self.delivered.lock().extend(batch.events.iter().map(|event| event.offset.position));
            Box::pin(std::future::ready(()))
        }

        fn try_deliver(&self, batch: Batch) -> Result<(), Batch> {
            if !std::mem::replace(&mut *self.refused.lock(), true) {
                return Err(batch);
            }
            self.batches.lock().push(batch.events.len());
            self.delivered.lock().extend(batch.events.iter().map(|event| event.offset.position));
            Ok(())
        }

        fn advanced_to(&self, _: Line, _: Position) {}
    }

    #[test]
    fn a_batch_that_the_sink_refuses_is_delivered_later_and_in_order() {
        let log = MemoryLog::new(MemoryLimits::default());
        let sink = Arc::new(Full::default());
        *log.tail.try_lock().unwrap() = Some(sink.clone());
        let mut offsets = log.append_all(vec![draft(None), draft(None)]);
        assert!(sink.delivered.lock().is_empty());
        assert!(log.state().queued_bytes > 0, "what was put back still counts");
        offsets.extend(log.append_all(vec![draft(None)]));
        let positions: Vec<_> = offsets.into_iter().map(|answer| answer.unwrap().offset.unwrap().position).collect();
        assert_eq!(*sink.delivered.lock(), positions);
        assert_eq!(log.state().queued_bytes, 0);
    }

    #[tokio::test]
    async fn what_a_shards_thread_appends_in_one_turn_is_delivered_together_at_its_end() {
        let log = MemoryLog::new(MemoryLimits::default());
        let sink = Arc::new(Full { refused: Mutex::new(true), ..Full::default() });
        *log.tail.try_lock().unwrap() = Some(sink.clone());
        let delivered = || sink.delivered.lock().len();
        let append = |draft| assert!(log.append_now(&mut vec![draft], &mut Vec::new()));
        append(draft(None));
        assert_eq!(delivered(), 1, "no shard's thread delivers at once");
        let task = tokio::spawn(log.clone().run_appender(0));
        tokio::task::yield_now().await;
        append(draft(None));
        append(draft(None));
        assert_eq!(delivered(), 1);
        tokio::task::yield_now().await;
        assert_eq!(delivered(), 3);
        assert_eq!(*sink.batches.lock(), [1, 2]);
        let big = Draft { args: Args::one(&"1".repeat(MAX_DEFERRED)).unwrap(), ..draft(None) };
        append(big);
        assert_eq!(delivered(), 4, "much does not wait");
        assert!(log.append(vec![draft(None)]).await[0].is_ok());
        assert_eq!(delivered(), 5, "nor does what no publisher appends");
        append(draft(None));
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(delivered(), 6, "the last turn has an end");
        append(draft(None));
        assert_eq!(delivered(), 7);
    }
}
