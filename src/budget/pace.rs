//! A token bucket that several threads share (sans-IO): one atomic of four bytes, no lock.

use crate::model::millis::Millis;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// A bucket counts time in ticks of 62.5 µs, wrapped to 32 bits.
const TICKS_PER_MILLI: u64 = 16;
const NANOS_PER_TICK: u64 = 1_000_000 / TICKS_PER_MILLI;
/// The longest time that a bucket may be spent for, some 18 hours: a later moment would look like an earlier one.
const MAX_TICKS: u64 = 1 << 30;

/// So many a second, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The time that one takes.
    nanos: u64,
    /// The time that those take which may come at once, in ticks.
    burst: u32,
}

impl Pace {
    /// `per_second` 0 is no limit.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let nanos = NANOS_PER_SECOND.checked_div(per_second.into())?.max(1);
        let this = Self { nanos, burst: 0 };
        Some(Self { burst: this.ticks(burst.into()).max(1), ..this })
    }

    /// The time that so many take.
    fn ticks(self, count: u64) -> u32 {
        let nanos = self.nanos.saturating_mul(count).saturating_add(NANOS_PER_TICK / 2);
        (nanos / NANOS_PER_TICK).min(MAX_TICKS) as u32
    }

    fn wait(self, spent: u32) -> Duration {
        let over = Duration::from_nanos(u64::from(spent.saturating_sub(self.burst)) * NANOS_PER_TICK + self.nanos);
        over.max(Duration::from_millis(1))
    }
}

/// What is spent of a [`Pace`], as the time at which all of it is refilled.
#[derive(Debug, Default)]
pub struct SharedBucket(AtomicU32);

impl SharedBucket {
    /// Full.
    pub fn new(now: Millis) -> Self {
        Self(AtomicU32::new(wrapped(now)))
    }

    /// Takes `count`. As long as the burst is not spent it may be exceeded once, so that one large message always passes.
    ///
    /// # Errors
    /// When to try again.
    pub fn take(&self, now: Millis, pace: Pace, count: u64) -> Result<(), Duration> {
        let (now, cost) = (wrapped(now), pace.ticks(count));
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |refilled| {
            let spent = spent(refilled, now);
            (spent < pace.burst).then(|| now.wrapping_add(spent).wrapping_add(cost))
        });
        taken.map(drop).map_err(|refilled| pace.wait(spent(refilled, now)))
    }

    /// How long until something may be taken; `None` where it may be taken now.
    pub fn wait(&self, now: Millis, pace: Pace) -> Option<Duration> {
        let spent = spent(self.0.load(Ordering::Relaxed), wrapped(now));
        (spent >= pace.burst).then(|| pace.wait(spent))
    }

    /// Whether nothing is spent. To be asked at least once in 18 hours: the time of a full bucket is moved on here.
    pub fn is_full(&self, now: Millis) -> bool {
        let now = wrapped(now);
        let moved = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |refilled| (spent(refilled, now) == 0).then_some(now));
        moved.is_ok()
    }
}

fn wrapped(now: Millis) -> u32 {
    now.get().wrapping_mul(TICKS_PER_MILLI) as u32
}

/// Ticks until all is refilled.
fn spent(refilled: u32, now: u32) -> u32 {
    let ticks = refilled.wrapping_sub(now);
    // The upper half lies in the past.
    if ticks > u32::MAX / 2 { 0 } else { ticks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &SharedBucket, ms: u64, pace: Pace) -> usize {
        (0..1_000).filter(|_| bucket.take(Millis::new(ms), pace, 1).is_ok()).count()
    }

    #[test]
    fn burst_then_pace() {
        // The time wraps in between.
        let start = u64::from(u32::MAX) / TICKS_PER_MILLI - 50;
        let (bucket, pace) = (SharedBucket::new(Millis::new(start)), Pace::new(10, 50).unwrap());
        assert_eq!(taken(&bucket, start, pace), 50);
        let wait = bucket.take(Millis::new(start), pace, 1).unwrap_err();
        assert_eq!((wait, bucket.wait(Millis::new(start), pace)), (Duration::from_millis(100), Some(wait)));
        assert_eq!(taken(&bucket, start + 100, pace), 1);
        assert_eq!(taken(&bucket, start + 1_100, pace), 10);
        assert_eq!(bucket.wait(Millis::new(start + 1_200), pace), None);
        assert!(!bucket.is_full(Millis::new(start + 1_100)) && bucket.is_full(Millis::new(start + 6_100)));
        assert_eq!(Pace::new(0, 9), None);
    }

    #[test]
    fn one_that_is_larger_than_the_burst_passes_and_is_paid_off() {
        let (bucket, pace) = (SharedBucket::new(Millis::new(1)), Pace::new(1_000, 4_000).unwrap());
        assert!(bucket.take(Millis::new(1), pace, 10_000).is_ok());
        let wait = bucket.take(Millis::new(1), pace, 1).unwrap_err();
        assert!((6_000..6_010).contains(&wait.as_millis()), "{wait:?}");
        assert!(bucket.take(Millis::new(6_010), pace, 1).is_ok());
        let slow = Pace::new(1, u32::MAX).unwrap();
        assert!(bucket.take(Millis::new(50_000), slow, u64::MAX).is_ok() && !bucket.is_full(Millis::new(60_000)));
    }

    #[test]
    fn a_bucket_that_is_not_used_for_days_is_full() {
        let (bucket, pace) = (SharedBucket::new(Millis::new(1)), Pace::new(10, 50).unwrap());
        let last =
            (1..200).map(|hours| hours * 3_600_000).filter(|ms| bucket.is_full(Millis::new(*ms))).last().unwrap();
        assert_eq!(taken(&bucket, last + 1, pace), 50);
    }
}
