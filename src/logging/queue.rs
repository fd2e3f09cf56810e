//! Lines that wait to be written, within bounds.

use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes that may wait: some 10,000 lines. A line that comes when more wait is dropped.
const MAX_BYTES: usize = 2 << 20;

/// Lines on their way to stderr.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrival: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<Box<[u8]>>,
    bytes: usize,
    /// The writer has taken lines and not said yet that they are written.
    is_writing: bool,
}

impl Queue {
    /// Adds a line, or drops it where too much waits.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock();
        if waiting.bytes + line.len() > MAX_BYTES {
            drop(waiting);
            return self.note_dropped(1);
        }
        waiting.bytes += line.len();
        waiting.lines.push(line.into());
        drop(waiting);
        self.arrival.notify_one();
    }

    /// Whether a line more is surely taken.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.lock().bytes < MAX_BYTES / 2
    }

    /// All lines that wait, at least one. What was taken before counts as written from now on.
    pub(super) fn take(&self) -> Vec<Box<[u8]>> {
        let mut waiting = self.waiting.lock();
        waiting.is_writing = false;
        while waiting.lines.is_empty() {
            self.written.notify_all();
            self.arrival.wait(&mut waiting);
        }
        waiting.is_writing = true;
        waiting.bytes = 0;
        std::mem::take(&mut waiting.lines)
    }

    /// Waits until nothing is left to be written, at most for this long.
    pub(super) fn wait_until_written(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        // A panic may come while its own thread holds the lock.
        let Some(mut waiting) = self.waiting.try_lock_until(deadline) else { return };
        while waiting.is_writing || !waiting.lines.is_empty() {
            if self.written.wait_until(&mut waiting, deadline).timed_out() {
                return;
            }
        }
    }

    pub(super) fn note_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines that were not written since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_order_and_those_over_the_bound_are_dropped_and_counted() {
        let queue = Queue::default();
        let line = vec![b'x'; MAX_BYTES / 4];
        (0..6).for_each(|_| queue.push(&line));
        assert_eq!((queue.take().len(), queue.dropped()), (4, 2));
        queue.push(b"a");
        queue.push(b"b");
        assert_eq!(queue.take(), [Box::from(*b"a"), Box::from(*b"b")]);
    }

    #[test]
    fn nobody_waits_for_ever_for_lines_that_cannot_be_written() {
        let queue = Queue::default();
        queue.wait_until_written(Duration::from_secs(60));
        queue.push(b"a");
        queue.wait_until_written(Duration::from_millis(1));
        queue.take();
        queue.wait_until_written(Duration::from_millis(1));
    }
}
