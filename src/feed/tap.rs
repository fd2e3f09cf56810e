//! One subscription's end at the parts that tell: its filter, its pace and its queue.

use crate::feed::merger::Merger;
use crate::feed::pace::Pace;
use crate::feed::{Batch, Bounds, Filter};
use crate::model::clock::unix_ms;
use crate::model::happening::Happening;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes that may wait for the reader.
const MAX_WAITING: usize = 256 << 10;
/// How often a reader looks for events that some shard has not reported.
const LOOK: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Tap {
    pub(super) filter: Filter,
    pub(super) payloads: bool,
    queue: Mutex<Queue>,
    arrival: Notify,
    /// What all subscriptions have skipped.
    skipped: Arc<AtomicU64>,
}

struct Queue {
    lines: Pace,
    bytes: Pace,
    waiting: Batch,
    waiting_bytes: usize,
    events: Merger,
}

impl Tap {
    pub(super) fn new(filter: Filter, bounds: Bounds, skipped: Arc<AtomicU64>) -> Self {
        let queue = Queue {
            lines: Pace::new(bounds.lines_per_second.into()),
            bytes: Pace::new(bounds.bytes_per_second as u64),
            waiting: Batch::default(),
            waiting_bytes: 0,
            events: Merger::default(),
        };
        Self { filter, payloads: bounds.payloads, queue: Mutex::new(queue), arrival: Notify::new(), skipped }
    }

    pub(super) fn push(&self, happening: &Happening) {
        self.queue(|queue| queue.push(happening.clone(), self.payloads));
    }

    /// What one of so many shards says of an event.
    pub(super) fn push_part(&self, shard: u32, shards: usize, happening: &Happening) {
        self.queue(|queue| {
            let merged = queue.events.add(shard, shards, happening, happening.at_ms);
            merged.is_none_or(|merged| queue.push(merged.happening, self.payloads))
        });
    }

    /// Whatever `push` does not take counts as skipped.
    fn queue(&self, push: impl FnOnce(&mut Queue) -> bool) {
        if !push(&mut self.queue.lock()) {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
        self.arrival.notify_one();
    }

    pub(super) fn take(&self) -> Batch {
        let mut queue = self.queue.lock();
        let now_ms = unix_ms();
        while let Some(late) = queue.events.overdue(now_ms) {
            if !queue.push(late.happening, self.payloads) {
                self.skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
        queue.waiting_bytes = 0;
        std::mem::take(&mut queue.waiting)
    }

    pub(super) async fn next(&self) -> Batch {
        loop {
            let batch = self.take();
            if batch != Batch::default() {
                return batch;
            }
            let is_merging = !self.queue.lock().events.is_empty();
            match is_merging {
                true => drop(tokio::time::timeout(LOOK, self.arrival.notified()).await),
                false => self.arrival.notified().await,
            }
        }
    }
}

impl Queue {
    /// `false` when it is skipped.
    fn push(&mut self, mut happening: Happening, payloads: bool) -> bool {
        if !payloads {
            happening.args = None;
        }
        let (size, now_ms) = (happening.size(), happening.at_ms);
        let fits = self.waiting_bytes + size <= MAX_WAITING;
        if !fits || !self.lines.has(1, now_ms) || !self.bytes.has(size as u64, now_ms) {
            self.waiting.skipped += 1;
            return false;
        }
        self.lines.take(1);
        self.bytes.take(size as u64);
        self.waiting_bytes += size;
        self.waiting.happenings.push(happening);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(bounds: Bounds) -> Tap {
        Tap::new(Filter::default(), bounds, Arc::default())
    }

    fn happening(at_ms: u64, bytes: usize) -> Happening {
        Happening { at_ms, message: Some("x".repeat(bytes)), args: Some("[]".into()), ..Happening::default() }
    }

    #[test]
    fn what_goes_beyond_the_pace_is_skipped_and_counted() {
        let tap = tap(Bounds { lines_per_second: 5, ..Bounds::default() });
        (0..12).for_each(|_| tap.push(&happening(1_000, 1)));
        let batch = tap.take();
        assert_eq!((batch.happenings.len(), batch.skipped, tap.skipped.load(Ordering::Relaxed)), (10, 2, 2));
        assert!(batch.happenings.iter().all(|one| one.args.is_none()), "payloads were not asked for");
        tap.push(&happening(2_000, 1));
        assert_eq!((tap.take().happenings.len(), tap.take()), (1, Batch::default()));
    }

    #[test]
    fn what_nobody_reads_is_bounded() {
        let tap = tap(Bounds { lines_per_second: 1_000_000, bytes_per_second: usize::MAX >> 16, payloads: true });
        (0..100).for_each(|_| tap.push(&happening(1_000, 100_000)));
        let batch = tap.take();
        assert_eq!((batch.happenings.len(), batch.skipped), (2, 98));
        tap.push(&happening(1_000, 100_000));
        assert_eq!(tap.take().happenings.len(), 1);
    }
}
