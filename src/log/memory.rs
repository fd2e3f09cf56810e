//! The embedded log: one node, no Redis. What is appended waits in a bounded queue until the tail takes it.

use crate::draft::Draft;
use crate::event::{Batch, Epoch, Event, Offset, Position};
use crate::id::Id;
use crate::log::{AppendError, Appended, Beginning, EventLog, LogStatus, Pending, Sink};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// A repeat of an idempotency id within this time is answered with the first offset (CONTRACT "Publishing").
pub const ID_LIFETIME: Duration = Duration::from_secs(300);

/// Bounds of a [`MemoryLog`].
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// Bytes of events that may wait for the tail; over it appends are answered [`AppendError::Overloaded`].
    pub queue_bytes: usize,
    /// Bytes of remembered idempotency ids; over it the oldest are forgotten before their time.
    pub id_bytes: usize,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { queue_bytes: 64 << 20, id_bytes: 64 << 20 }
    }
}

/// The embedded twin of the Redis log.
pub struct MemoryLog {
    limits: MemoryLimits,
    epoch: Epoch,
    state: Mutex<State>,
    waiting: Notify,
}

struct State {
    last: Position,
    queue: Batch,
    queued_bytes: usize,
    ids: Ids,
}

impl MemoryLog {
    /// An empty log; [`EventLog::run`] makes it move.
    pub fn new(limits: MemoryLimits) -> Arc<Self> {
        let last = Position { ms: unix_us() / 1000, seq: 0 };
        let ids = Ids { limit: limits.id_bytes, ..Ids::default() };
        let state = Mutex::new(State { last, queue: Batch::default(), queued_bytes: 0, ids });
        Arc::new(Self { limits, epoch: Epoch(rand::random()), state, waiting: Notify::new() })
    }

    /// A thread that panicked cannot have left the state half changed: nothing in the critical sections panics.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(&self, drafts: Vec<Draft>) -> Vec<Appended> {
        let now_us = unix_us();
        let mut answers = Vec::with_capacity(drafts.len());
        let mut drafts = drafts.into_iter();
        let mut state = self.state();
        let was_idle = state.queue.is_empty();
        for draft in drafts.by_ref() {
            match state.append(draft, now_us, self.epoch, self.limits.queue_bytes) {
                Ok(offset) => answers.push(Ok(offset)),
                Err(error) => {
                    answers.push(Err(error));
                    break;
                }
            }
        }
        let wake = was_idle && !state.queue.is_empty();
        drop(state);
        // One refused draft refuses the rest of the call, so that nothing overtakes it.
        answers.extend(drafts.map(|_| Err(AppendError::Overloaded)));
        if wake {
            self.waiting.notify_one();
        }
        answers
    }

    fn probe_now(&self, id: Id) {
        let mut state = self.state();
        let was_idle = state.queue.is_empty();
        // Health asks a few at a time; a queue of probes can only be a caller that does not wait.
        if state.queue.probes.len() < 10_000 {
            state.queue.probes.push(id);
        }
        drop(state);
        if was_idle {
            self.waiting.notify_one();
        }
    }

    /// Everything waiting, and the position up to which that is everything.
    fn take(&self) -> (Batch, Position) {
        let mut state = self.state();
        state.queued_bytes = 0;
        (std::mem::take(&mut state.queue), state.last)
    }
}

impl State {
    fn append(&mut self, draft: Draft, now_us: u64, epoch: Epoch, queue_bytes: usize) -> Appended {
        if let Some(id) = &draft.id
            && let Some(first) = self.ids.first(id, now_us)
        {
            return Ok(first);
        }
        let position = if draft.volatile { self.last } else { self.next_position(now_us / 1000) };
        let event = Event { offset: Offset { epoch, position }, draft, accepted_us: now_us };
        let size = event.size();
        if self.queued_bytes > 0 && self.queued_bytes + size > queue_bytes {
            return Err(AppendError::Overloaded);
        }
        self.last = position;
        self.queued_bytes += size;
        let answer = (!event.draft.volatile).then_some(event.offset);
        if let Some(id) = &event.draft.id {
            self.ids.remember(id, answer, now_us);
        }
        self.queue.events.push(Arc::new(event));
        Ok(answer)
    }

    /// Positions rise also when the clock goes back.
    fn next_position(&self, now_ms: u64) -> Position {
        match now_ms > self.last.ms {
            true => Position { ms: now_ms, seq: 0 },
            false => Position { ms: self.last.ms, seq: self.last.seq + 1 },
        }
    }
}

impl EventLog for MemoryLog {
    fn append(&self, drafts: Vec<Draft>) -> Pending<'_, Vec<Appended>> {
        Box::pin(async move { self.append_now(drafts) })
    }

    fn probe(&self, id: Id) -> Pending<'_, Result<(), AppendError>> {
        Box::pin(async move {
            self.probe_now(id);
            Ok(())
        })
    }

    fn run(self: Arc<Self>, sink: Arc<dyn Sink>) -> Pending<'static, ()> {
        Box::pin(async move {
            // What waits already comes out of the tail, so the life begins before it.
            let start = {
                let state = self.state();
                state.queue.events.first().map_or(state.last, |first| before(first.offset.position))
            };
            sink.begin(Beginning { epoch: self.epoch, floor: start, head: start, history: Vec::new() });
            loop {
                let (batch, position) = self.take();
                if batch.is_empty() {
                    self.waiting.notified().await;
                    continue;
                }
                sink.deliver(batch).await;
                sink.caught_up(position);
            }
        })
    }

    fn status(&self) -> LogStatus {
        LogStatus::Embedded
    }
}

/// The position just before another, or the same where there is none.
fn before(position: Position) -> Position {
    match position {
        Position { ms, seq: 1.. } => Position { ms, seq: position.seq - 1 },
        Position { ms: 1.., seq: 0 } => Position { ms: position.ms - 1, seq: u64::MAX },
        zero => zero,
    }
}

/// Idempotency ids and their first answers, oldest first.
#[derive(Default)]
struct Ids {
    limit: usize,
    bytes: usize,
    answers: HashMap<Arc<str>, Option<Offset>>,
    order: VecDeque<(u64, Arc<str>)>,
}

/// What one remembered id costs besides its text.
const ID_OVERHEAD: usize = 96;

impl Ids {
    fn first(&mut self, id: &str, now_us: u64) -> Option<Option<Offset>> {
        while self.order.front().is_some_and(|(until, _)| *until <= now_us) || self.bytes > self.limit {
            self.forget_oldest();
        }
        self.answers.get(id).copied()
    }

    fn remember(&mut self, id: &str, answer: Option<Offset>, now_us: u64) {
        let id: Arc<str> = id.into();
        self.bytes += id.len() + ID_OVERHEAD;
        self.answers.insert(id.clone(), answer);
        self.order.push_back((now_us + ID_LIFETIME.as_micros() as u64, id));
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.bytes -= id.len() + ID_OVERHEAD;
            self.answers.remove(&id);
        }
    }
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::Source;
    use crate::event::Args;

    fn draft(id: Option<&str>) -> Draft {
        Draft { id: id.map(str::to_owned), ..Draft::new("r", "e", Args::none(), Source::Http) }
    }

    fn state(last: Position) -> State {
        let ids = Ids { limit: 10_000, ..Ids::default() };
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
    fn ids_are_forgotten_after_five_minutes_or_when_there_are_too_many() {
        let mut state = state(Position::default());
        let mut append = |id: &str, now_s: u64| {
            state.append(draft(Some(id)), now_s * 1_000_000, Epoch(1), usize::MAX).unwrap().unwrap().position
        };
        let first = append("a", 1);
        assert_eq!(append("a", 300), first);
        assert_ne!(append("a", 301), first);
        let first = append("b", 400);
        for n in 0..1000 {
            append(&n.to_string(), 400);
        }
        assert_ne!(append("b", 400), first);
        assert!(state.ids.bytes <= 10_000 + 200 && state.ids.answers.len() == state.ids.order.len());
    }

    #[test]
    fn over_the_bound_the_rest_of_the_call_is_refused_and_ids_are_not_taken() {
        let log = MemoryLog::new(MemoryLimits { queue_bytes: 400, id_bytes: 1000 });
        let big = Draft { args: Args::one(&"1".repeat(300)).unwrap(), ..draft(Some("x")) };
        let answers = log.append_now(vec![draft(None), big.clone(), draft(None)]);
        assert!(answers[0].is_ok());
        assert_eq!(answers[1..], [Err(AppendError::Overloaded), Err(AppendError::Overloaded)]);
        assert_eq!(log.take().0.events.len(), 1);
        assert!(log.append_now(vec![big]).remove(0).is_ok());
        assert_eq!(log.take().0.events.len(), 1);
    }
}
