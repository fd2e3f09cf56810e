//! The rate limit of one connection (sans-IO): a token bucket, and a second one for what was refused.

use crate::model::millis::Millis;
use std::time::Duration;

/// Messages that may be refused without a pause. A client that sends more ignores refusals and is closed.
pub const MAX_REFUSED: u32 = 5_000;
/// Seconds of the rate that may come at once, besides a join of every room that a session may be in.
const BURST_SECONDS: u32 = 4;

/// What one connection may send.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_second: u32,
    /// Thousandths of a message.
    burst: u32,
}

impl Rate {
    /// `limits.events_per_second` and `limits.rooms_per_session`: a client that comes back joins its rooms and sends what it
    /// kept while it was offline, all at once.
    pub fn new(per_second: u32, rooms_per_session: usize) -> Self {
        let rooms = u32::try_from(rooms_per_session).unwrap_or(u32::MAX);
        let burst = per_second.saturating_mul(BURST_SECONDS).saturating_add(rooms).saturating_mul(1000);
        Self { per_second: per_second.max(1), burst }
    }

    /// The time until so many thousandths are refilled, in whole milliseconds.
    fn time(self, thousandths: u64) -> Duration {
        Duration::from_millis(thousandths.div_ceil(u64::from(self.per_second)))
    }
}

/// What a connection has spent of its [`Rate`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Thousandths of a message that are spent and not refilled yet.
    spent: u32,
    /// The same of refused messages: they wear off as fast.
    refused: u32,
    /// When that was right, wrapped to 32 bits.
    at: u32,
}

impl Bucket {
    /// Takes one message; `false` when the limit is passed.
    pub fn take(&mut self, now: Millis, rate: Rate) -> bool {
        self.refill(now, rate);
        match self.spent.checked_add(1000) {
            Some(spent) if spent <= rate.burst => {
                self.spent = spent;
                true
            }
            _ => false,
        }
    }

    /// Notes that a message was refused while `ahead` messages wait for their turn. Answers how long its sender should wait
    /// before it retries, or `None` if it does not stop. A sender that waits that long for each refused message gets each
    /// through.
    pub fn refuse(&mut self, now: Millis, rate: Rate, ahead: usize) -> Option<Duration> {
        self.refill(now, rate);
        if self.refused > (MAX_REFUSED - 1) * 1000 {
            return None;
        }
        self.refused += 1000;
        let needed = u64::from(self.spent) + u64::from(self.refused) + ahead as u64 * 1000;
        Some(rate.time(needed.saturating_sub(u64::from(rate.burst))).max(Duration::from_millis(1)))
    }

    /// Whether a refusal that was just noted is the first after a pause.
    pub fn is_first_refusal(&self) -> bool {
        self.refused <= 1000
    }

    /// The time until one more message may be taken.
    pub fn wait(&self, rate: Rate) -> Duration {
        rate.time((u64::from(self.spent) + 1000).saturating_sub(u64::from(rate.burst)))
    }

    fn refill(&mut self, now: Millis, rate: Rate) {
        let now = now.get() as u32;
        let refilled = u64::from(now.wrapping_sub(self.at)) * u64::from(rate.per_second);
        let refilled = u32::try_from(refilled).unwrap_or(u32::MAX);
        self.spent = self.spent.saturating_sub(refilled);
        self.refused = self.refused.saturating_sub(refilled);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ms: u64) -> Millis {
        Millis::new(5_000_000_000 + ms)
    }

    fn taken(bucket: &mut Bucket, now: Millis, rate: Rate) -> usize {
        (0..10_000).filter(|_| bucket.take(now, rate)).count()
    }

    #[test]
    fn burst_then_rate() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(50, 256));
        assert_eq!(taken(&mut bucket, after(0), rate), 456);
        assert_eq!(taken(&mut bucket, after(100), rate), 5);
        assert_eq!(bucket.wait(rate), Duration::from_millis(20));
        assert_eq!(taken(&mut bucket, after(120), rate), 1);
        assert_eq!(taken(&mut bucket, after(100_000), rate), 456);
        let huge = Rate::new(1_000_000, 1_000_000);
        assert_eq!(taken(&mut Bucket::default(), after(0), huge), 10_000);
    }

    #[test]
    fn who_waits_as_told_is_let_in() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(50, 256));
        let now = after(0);
        taken(&mut bucket, now, rate);
        let mut again: Vec<Millis> = (0..100).map(|_| now.after(bucket.refuse(now, rate, 0).unwrap())).collect();
        assert_eq!((again[0], again[99]), (after(20), after(2_000)));
        again.retain(|at| !bucket.take(*at, rate));
        assert_eq!(again, []);
    }

    #[test]
    fn who_does_not_stop_is_found_out() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(50, 256));
        let now = after(0);
        taken(&mut bucket, now, rate);
        assert!(bucket.refuse(now, rate, 0).is_some() && bucket.is_first_refusal());
        assert!(bucket.refuse(now, rate, 0).is_some() && !bucket.is_first_refusal());
        assert_eq!((0..10_000).filter(|_| bucket.refuse(now, rate, 0).is_some()).count(), 4_998);
        assert!(bucket.refuse(after(60_000), rate, 0).is_some(), "after a pause it is another beginning");
        assert!((0..100_000).all(|n| bucket.refuse(after(200_000 + n * 25), rate, 0).is_some()), "a little too fast");
    }
}
