//! Limits of a connection before each request: how long it may wait, how long the head may take, and what all unfinished
//! heads may hold together.
//!
//! hyper has one timer for both, which it starts when a connection waits for a head. [`HeadTimer`] replaces it and
//! looks at what [`Watched`] has read since: nothing means idle, anything means that a head has begun.

use crate::budget::{Holding, MemoryBudget};
use crate::tls::Socket;
use hyper::rt::{Sleep, Timer};
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
    fn new(memory: Arc<MemoryBudget>, opened: Instant) -> Self {
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
    fn note_bytes(&self, count: usize) -> bool {
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

/// What hyper leaves behind when it has dropped its connection.
#[derive(Default)]
pub(super) struct Handoff {
    stream: Cell<Option<Socket>>,
    answer: Cell<Option<Vec<u8>>>,
}

/// Room for an answer to an upgrade and what follows it in the same write.
const UPGRADE_ANSWER: usize = 384;

impl Handoff {
    /// The socket.
    pub(super) fn take_stream(&self) -> Option<Socket> {
        self.stream.take()
    }

    /// Keeps what hyper writes from now on, so that it goes out in one write with what follows.
    pub(super) fn keep_answer(&self) {
        self.answer.set(Some(Vec::with_capacity(UPGRADE_ANSWER)));
    }

    /// What was kept.
    pub(super) fn take_answer(&self) -> Vec<u8> {
        self.answer.take().unwrap_or_default()
    }

    /// How many bytes were kept; `None` if they are to be written.
    fn keeps<'a>(&self, slices: impl IntoIterator<Item = &'a [u8]>) -> Option<usize> {
        let mut answer = self.answer.take()?;
        let before = answer.len();
        slices.into_iter().for_each(|bytes| answer.extend_from_slice(bytes));
        let count = answer.len() - before;
        self.answer.set(Some(answer));
        Some(count)
    }
}

/// A socket that notes when bytes arrive. hyper drops it with a connection that broke the protocol; it comes back here.
pub(super) struct Watched {
    /// `None` only while it is dropped.
    stream: Option<Socket>,
    progress: Arc<Progress>,
    handoff: Rc<Handoff>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.handoff.stream.set(self.stream.take());
    }
}

/// hyper's timer for one connection.
pub(super) struct HeadTimer {
    progress: Arc<Progress>,
    head: Duration,
    idle: Duration,
}

/// A socket and its timer. `head` is how long a request's head may take, from its first byte on, and the first one from
/// `opened` on; `idle` is the longest pause between two requests.
pub(super) fn watch(
    stream: Socket,
    opened: Instant,
    head: Duration,
    idle: Duration,
    memory: &Arc<MemoryBudget>,
) -> (Watched, HeadTimer, Rc<Handoff>, Arc<Progress>) {
    let (progress, handoff) = (Arc::new(Progress::new(memory.clone(), opened)), Rc::<Handoff>::default());
    let watched = Watched { stream: Some(stream), progress: progress.clone(), handoff: handoff.clone() };
    (watched, HeadTimer { progress: progress.clone(), head, idle }, handoff, progress)
}

/// The error of a socket that is used after it was returned, which does not happen.
fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
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
        Box::pin(HeadSleep { wait, timer: Box::pin(tokio::time::sleep_until(at.into())) })
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

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Some(stream) = &mut self.stream else { return gone() };
        let read = Pin::new(stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        match count > 0 && !self.progress.note_bytes(count) {
            true => Poll::Ready(Err(io::ErrorKind::OutOfMemory.into())),
            false => read,
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(count) = self.handoff.keeps([bytes]) {
            return Poll::Ready(Ok(count));
        }
        self.stream.as_mut().map_or_else(gone, |stream| Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().map_or_else(gone, |stream| Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().map_or_else(gone, |stream| Pin::new(stream).poll_shutdown(context))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(count) = self.handoff.keeps(slices.iter().map(|slice| &**slice)) {
            return Poll::Ready(Ok(count));
        }
        self.stream.as_mut().map_or_else(gone, |stream| Pin::new(stream).poll_write_vectored(context, slices))
    }
}

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
