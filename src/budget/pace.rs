//! A token bucket that several threads share (sans-IO): one atomic, no lock.

use crate::model::millis::Millis;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// So many a second, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The time that one takes.
    nanos: u64,
    /// The time that those take which may come at once.
    burst: u64,
}

impl Pace {
    /// `per_second` 0 is no limit.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let nanos = NANOS_PER_SECOND.checked_div(per_second.into())?.max(1);
        Some(Self { nanos, burst: nanos.saturating_mul(burst.into()) })
    }
}

/// What is spent of a [`Pace`], as the time at which all of it is refilled.
#[derive(Debug, Default)]
pub struct SharedBucket(AtomicU64);

impl SharedBucket {
    /// Takes `count`. As long as the burst is not spent it may be exceeded once, so that one large message always passes.
    ///
    /// # Errors
    /// When to try again.
    pub fn take(&self, now: Millis, pace: Pace, count: u64) -> Result<(), Duration> {
        let now = now.get().saturating_mul(NANOS_PER_MILLI);
        let cost = pace.nanos.saturating_mul(count);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |refilled| {
            let begins = refilled.max(now);
            (begins - now < pace.burst.max(1)).then(|| begins.saturating_add(cost))
        });
        taken.map(drop).map_err(|refilled| wait(refilled.saturating_sub(now), pace))
    }

    /// How long until something may be taken; `None` where it may be taken now.
    pub fn wait(&self, now: Millis, pace: Pace) -> Option<Duration> {
        let spent = self.0.load(Ordering::Relaxed).saturating_sub(now.get().saturating_mul(NANOS_PER_MILLI));
        (spent >= pace.burst.max(1)).then(|| wait(spent, pace))
    }

    /// Whether nothing is spent.
    pub fn is_full(&self, now: Millis) -> bool {
        self.0.load(Ordering::Relaxed) <= now.get().saturating_mul(NANOS_PER_MILLI)
    }
}

fn wait(spent: u64, pace: Pace) -> Duration {
    let over = spent.saturating_sub(pace.burst).saturating_add(pace.nanos);
    Duration::from_nanos(over).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &SharedBucket, ms: u64, pace: Pace) -> usize {
        (0..1_000).filter(|_| bucket.take(Millis::new(ms), pace, 1).is_ok()).count()
    }

    #[test]
    fn burst_then_pace() {
        let (bucket, pace) = (SharedBucket::default(), Pace::new(10, 50).unwrap());
        assert_eq!(taken(&bucket, 1_000, pace), 50);
        let wait = bucket.take(Millis::new(1_000), pace, 1).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(taken(&bucket, 1_100, pace), 1);
        assert_eq!(taken(&bucket, 2_100, pace), 10);
        assert!(!bucket.is_full(Millis::new(2_100)) && bucket.is_full(Millis::new(7_100)));
        assert_eq!(Pace::new(0, 9), None);
    }

    #[test]
    fn one_that_is_larger_than_the_burst_passes_and_is_paid_off() {
        let (bucket, pace) = (SharedBucket::default(), Pace::new(1_000, 4_000).unwrap());
        assert!(bucket.take(Millis::new(1), pace, 10_000).is_ok());
        let wait = bucket.take(Millis::new(1), pace, 1).unwrap_err();
        assert!((6_000..6_010).contains(&wait.as_millis()), "{wait:?}");
        assert!(bucket.take(Millis::new(6_010), pace, 1).is_ok());
    }
}
