//! Limits of a connection before each request: how long it may wait, how long the head may take, and what all unfinished
//! heads may hold together.
//!
//! hyper has one timer for both, which it starts when a connection waits for a head. [`HeadTimer`] replaces it and
//! looks at what [`Watched`](super::watched::Watched) has read since: nothing means idle, anything means that a head has begun.

use crate::budget::{Holding, MemoryBudget};
use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Bytes of a head that are always taken: hyper allocates as many for every connection.
const ORDINARY_HEAD: usize = 8 << 10;
/// The part of `limits.memory` that unfinished heads which are longer may hold.
const PART_FOR_HEADS: usize = 8;

/// No byte has come.
const NOTHING: u64 = u64::MAX;

/// What a connection has read while it waits for a head.
pub(super) struct Progress {
    opened: Instant,
    memory: Arc<MemoryBudget>,
    /// Whether a head is awaited.
    awaits_head: AtomicBool,
    /// Bytes of it, as far as they are counted in `memory`.
    head: AtomicUsize,
    too_many: AtomicBool,
    /// Milliseconds from `opened` to the first byte, or [`NOTHING`].
    first_byte: AtomicU64,
    /// Whether an earlier head was waited for.
    is_kept: AtomicBool,
}

impl Progress {
    /// Of a connection that was opened then.
    pub(super) fn new(memory: Arc<MemoryBudget>, opened: Instant) -> Self {
        Self {
            opened,
            memory,
            awaits_head: AtomicBool::new(true),
            head: AtomicUsize::new(0),
            too_many: AtomicBool::new(false),
            first_byte: AtomicU64::new(NOTHING),
            is_kept: AtomicBool::new(false),
        }
    }

    /// A head is complete: its request begins.
    pub(super) fn end_head(&self) {
        self.awaits_head.store(false, Ordering::Relaxed);
        self.memory.release(Holding::Heads, self.head.swap(0, Ordering::Relaxed));
    }

    /// Whether a part of a head has come.
    pub(super) fn has_begun(&self) -> bool {
        self.head.load(Ordering::Relaxed) > 0
    }

    /// Whether the connection ended because unfinished heads hold too much.
    pub(super) fn is_one_too_many(&self) -> bool {
        self.too_many.load(Ordering::Relaxed)
    }

    /// Counts bytes that were read. `false`: the connection has to end, since unfinished heads hold too much.
    pub(super) fn note_bytes(&self, count: usize) -> bool {
        self.note_byte();
        if !self.awaits_head.load(Ordering::Relaxed) {
            return true;
        }
        let head = self.head.fetch_add(count, Ordering::Relaxed) + count;
        self.memory.charge(Holding::Heads, count);
        let is_too_many =
            head > ORDINARY_HEAD && self.memory.held(Holding::Heads) > self.memory.limit() / PART_FOR_HEADS;
        self.too_many.fetch_or(is_too_many, Ordering::Relaxed);
        !is_too_many
    }

    fn note_byte(&self) {
        if self.first_byte.load(Ordering::Relaxed) == NOTHING {
            let elapsed = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NOTHING - 1);
            self.first_byte.store(elapsed, Ordering::Relaxed);
        }
    }

    fn head_began(&self) -> Option<Instant> {
        let first = self.first_byte.load(Ordering::Relaxed);
        (first != NOTHING).then(|| self.opened + Duration::from_millis(first))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end_head();
    }
}

/// hyper's timer for one connection.
pub(super) struct HeadTimer {
    progress: Arc<Progress>,
    head: Duration,
    idle: Duration,
    /// A timer of the same task that is not needed any more.
    spare: Mutex<Option<Pin<Box<tokio::time::Sleep>>>>,
}

impl HeadTimer {
    /// `head` is how long a request's head may take, from its first byte on, and the first one from the connection on;
    /// `idle` is the longest pause between two requests.
    pub(super) fn new(
        progress: Arc<Progress>,
        head: Duration,
        idle: Duration,
        spare: Option<Pin<Box<tokio::time::Sleep>>>,
    ) -> Self {
        Self { progress, head, idle, spare: Mutex::new(spare) }
    }

    fn timer(&self, at: tokio::time::Instant) -> Pin<Box<tokio::time::Sleep>> {
        let Some(mut spare) = self.spare.lock().take() else { return Box::pin(tokio::time::sleep_until(at)) };
        if spare.deadline() != at {
            spare.as_mut().reset(at);
        }
        spare
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    /// hyper asks once for each head that it waits for.
    fn sleep_until(&self, _deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let since = Instant::now();
        self.progress.awaits_head.store(true, Ordering::Relaxed);
        let is_kept = self.progress.is_kept.swap(true, Ordering::Relaxed);
        // The first head has its time from the connection on, as if its first byte had come with that. A connection is
        // idle only before a later one.
        self.progress.first_byte.store(if is_kept { NOTHING } else { 0 }, Ordering::Relaxed);
        let wait = HeadWait { progress: self.progress.clone(), since, head: self.head, idle: self.idle };
        let at = wait.look_again(since).unwrap_or(since);
        Box::pin(HeadSleep { wait, timer: self.timer(at.into()) })
    }
}

/// When a connection that waits for a head is given up.
struct HeadWait {
    progress: Arc<Progress>,
    since: Instant,
    head: Duration,
    idle: Duration,
}

impl HeadWait {
    /// When to check again; `None`: the time is over.
    fn look_again(&self, now: Instant) -> Option<Instant> {
        let deadline = match self.progress.head_began() {
            Some(began) => began + self.head,
            None => self.since + self.idle,
        };
        // A head that begins meanwhile has its own, perhaps earlier deadline.
        (now < deadline).then(|| deadline.min(now + self.head))
    }
}

struct HeadSleep {
    wait: HeadWait,
    timer: Pin<Box<tokio::time::Sleep>>,
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            match self.wait.look_again(Instant::now()) {
                Some(at) => self.timer.as_mut().reset(at.into()),
                None => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}

impl Sleep for HeadSleep {}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(idle: Duration, first_byte: Option<Duration>) -> HeadWait {
        let progress = Arc::new(Progress::new(MemoryBudget::unlimited(), Instant::now()));
        let first_byte = first_byte.map_or(NOTHING, |after| u64::try_from(after.as_millis()).unwrap());
        progress.first_byte.store(first_byte, Ordering::Relaxed);
        HeadWait { since: progress.opened, progress, head: HEAD, idle }
    }

    const SECOND: Duration = Duration::from_secs(1);
    const HEAD: Duration = Duration::from_secs(30);

    #[test]
    fn an_idle_connection_has_the_idle_timeout() {
        for idle in [SECOND, 75 * SECOND] {
            let wait = waiting(idle, None);
            assert!(wait.look_again(wait.since + idle - SECOND / 10).is_some(), "{idle:?}");
            assert_eq!(wait.look_again(wait.since + idle), None, "{idle:?}");
        }
    }

    #[test]
    fn a_head_that_began_has_the_head_timeout_whenever_it_began() {
        for began in [Duration::ZERO, SECOND, 74 * SECOND] {
            let wait = waiting(75 * SECOND, Some(began));
            let deadline = wait.since + began + HEAD;
            assert_eq!(wait.look_again(deadline - SECOND), Some(deadline), "{began:?}");
            assert_eq!(wait.look_again(deadline), None, "{began:?}");
        }
    }

    #[test]
    fn it_is_looked_at_often_enough_for_a_head_that_begins_meanwhile() {
        let wait = waiting(75 * SECOND, None);
        assert_eq!(wait.look_again(wait.since), Some(wait.since + HEAD));
        assert_eq!(wait.look_again(wait.since + HEAD), Some(wait.since + 2 * HEAD));
        assert_eq!(wait.look_again(wait.since + 2 * HEAD), Some(wait.since + 75 * SECOND));
    }

    #[test]
    fn unfinished_heads_hold_a_part_of_the_memory_together() {
        let memory = MemoryBudget::new(8 * 40_000);
        let heads: Vec<_> = (0..3).map(|_| Progress::new(memory.clone(), Instant::now())).collect();
        assert!(heads[0].note_bytes(20_000) && heads[1].note_bytes(20_000));
        assert!(heads[2].note_bytes(8_000), "an ordinary head is always taken");
        assert!(!heads[2].note_bytes(1_000) && heads[2].is_one_too_many());
        heads[0].end_head();
        assert!(heads[0].note_bytes(1_000_000), "a body is no head");
        assert_eq!(memory.held(Holding::Heads), 29_000);
        drop(heads);
        assert_eq!(memory.held(Holding::Heads), 0);
    }
}
