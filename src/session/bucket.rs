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
    bytes_per_second: u32,
    /// Bytes that may come at once. One message may exceed it, if nothing was spent before.
    bytes_burst: u32,
    joins_per_second: u32,
    /// Thousandths of a join.
    joins_burst: u32,
}

impl Rate {
    /// `limits.events_per_second` and `limits.rooms_per_session`: a client that comes back joins its rooms and sends what it
    /// kept while it was offline, all at once. Bytes and joins are not limited yet.
    pub fn new(per_second: u32, rooms_per_session: usize) -> Self {
        Self {
            per_second: per_second.max(1),
            burst: burst(per_second, rooms_per_session),
            bytes_per_second: u32::MAX,
            bytes_burst: u32::MAX,
            joins_per_second: u32::MAX,
            joins_burst: u32::MAX,
        }
    }

    /// `limits.bytes_per_second`; a message may have `max_message` bytes.
    #[must_use]
    pub fn with_bytes(self, per_second: usize, max_message: usize) -> Self {
        let number = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let per_second = number(per_second).max(1);
        let bytes_burst = per_second.saturating_mul(BURST_SECONDS).saturating_add(number(max_message));
        Self { bytes_per_second: per_second, bytes_burst, ..self }
    }

    /// `limits.joins_per_second` and `limits.rooms_per_session`.
    #[must_use]
    pub fn with_joins(self, per_second: u32, rooms_per_session: usize) -> Self {
        let joins_burst = burst(per_second, rooms_per_session);
        Self { joins_per_second: per_second.max(1), joins_burst, ..self }
    }

    /// The time until so many thousandths of a message are refilled, in whole milliseconds.
    fn time(self, thousandths: u64) -> Duration {
        Duration::from_millis(thousandths.div_ceil(u64::from(self.per_second)))
    }

    fn time_of_bytes(self, bytes: u32) -> Duration {
        Duration::from_millis((u64::from(bytes) * 1000).div_ceil(u64::from(self.bytes_per_second)))
    }
}

/// In thousandths.
fn burst(per_second: u32, rooms_per_session: usize) -> u32 {
    let rooms = u32::try_from(rooms_per_session).unwrap_or(u32::MAX);
    per_second.saturating_mul(BURST_SECONDS).saturating_add(rooms).saturating_mul(1000)
}

/// What a connection has spent of its [`Rate`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Thousandths of a message that are spent and not refilled yet.
    spent: u32,
    /// The same of refused messages: they wear off as fast.
    refused: u32,
    /// The same of bytes.
    bytes: u32,
    /// The same in thousandths of a join.
    joins: u32,
    /// When that was right, wrapped to 32 bits.
    at: u32,
}

impl Bucket {
    /// Takes one message of so many bytes; `false` when a limit is passed.
    pub fn take(&mut self, now: Millis, rate: Rate, bytes: usize) -> bool {
        self.refill(now, rate);
        match self.spent.checked_add(1000) {
            Some(spent) if spent <= rate.burst && self.bytes < rate.bytes_burst => {
                self.spent = spent;
                self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
                true
            }
            _ => false,
        }
    }

    /// Takes so many joins; `false` when the limit is passed.
    pub fn take_joins(&mut self, now: Millis, rate: Rate, count: usize) -> bool {
        self.refill(now, rate);
        let thousandths = u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(1000);
        let fits = self.joins == 0 || self.joins.saturating_add(thousandths) <= rate.joins_burst;
        if fits {
            self.joins = self.joins.saturating_add(thousandths);
        }
        fits
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
        let messages = rate.time(needed.saturating_sub(u64::from(rate.burst)));
        Some(messages.max(self.wait_for_bytes(rate)).max(Duration::from_millis(1)))
    }

    /// Whether a refusal that was just noted is the first after a pause.
    pub fn is_first_refusal(&self) -> bool {
        self.refused <= 1000
    }

    /// Milliseconds since the last message, taken or refused; `None` if there was none.
    pub fn idle(&self, now: Millis) -> Option<u64> {
        (self.at != 0).then(|| u64::from((now.get() as u32).wrapping_sub(self.at)))
    }

    /// The time until one more message may be taken.
    pub fn wait(&self, rate: Rate) -> Duration {
        rate.time((u64::from(self.spent) + 1000).saturating_sub(u64::from(rate.burst))).max(self.wait_for_bytes(rate))
    }

    /// The same as far as bytes are limited.
    pub fn wait_for_bytes(&self, rate: Rate) -> Duration {
        // Strictly less than the burst must be spent.
        rate.time_of_bytes((self.bytes + u32::from(self.bytes == rate.bytes_burst)).saturating_sub(rate.bytes_burst))
    }

    /// The time until so many more joins may be taken.
    pub fn wait_for_joins(&self, rate: Rate, count: usize) -> Duration {
        let needed = (u64::from(self.joins) + count as u64 * 1000).saturating_sub(u64::from(rate.joins_burst));
        Duration::from_millis(needed.div_ceil(u64::from(rate.joins_per_second)))
    }

    fn refill(&mut self, now: Millis, rate: Rate) {
        let now = now.get() as u32;
        let elapsed = u64::from(now.wrapping_sub(self.at));
        let after = |spent: u32, refilled: u64| spent.saturating_sub(u32::try_from(refilled).unwrap_or(u32::MAX));
        let messages = elapsed * u64::from(rate.per_second);
        self.spent = after(self.spent, messages);
        self.refused = after(self.refused, messages);
        if self.bytes > 0 {
            self.bytes = after(self.bytes, elapsed * u64::from(rate.bytes_per_second) / 1000);
        }
        if self.joins > 0 {
            self.joins = after(self.joins, elapsed * u64::from(rate.joins_per_second));
        }
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
        (0..10_000).filter(|_| bucket.take(now, rate, 0)).count()
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
        again.retain(|at| !bucket.take(*at, rate, 0));
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
    #[test]
    fn bytes_and_joins_have_their_own_limits() {
        let rate = Rate::new(1_000, 256).with_bytes(1_000, 6_000).with_joins(10, 60);
        let mut bucket = Bucket::default();
        assert!(bucket.take(after(0), rate, 25_000), "one large message passes");
        assert!(!bucket.take(after(0), rate, 1));
        assert_eq!(bucket.wait(rate), Duration::from_secs(15));
        assert!(bucket.refuse(after(0), rate, 0).unwrap() >= Duration::from_secs(15));
        assert!(!bucket.take(after(14_999), rate, 1) && bucket.take(after(15_001), rate, 1));
        assert!(bucket.take_joins(after(15_001), rate, 100));
        assert!(!bucket.take_joins(after(15_001), rate, 2));
        assert_eq!(bucket.wait_for_joins(rate, 2), Duration::from_millis(200));
        assert!(bucket.take_joins(after(15_201), rate, 2));
    }
}
