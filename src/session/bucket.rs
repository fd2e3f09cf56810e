//! The rate limit of one connection (sans-IO): a token bucket in eight bytes.

use crate::model::millis::Millis;

/// Seconds of the rate that may come at once: a client that was offline sends what it kept.
const BURST_SECONDS: u32 = 2;

/// Allows `rate` events a second with a burst of [`BURST_SECONDS`] times that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Thousandths of an event that are spent and not refilled yet.
    spent: u32,
    /// When that was right, wrapped to 32 bits.
    at: u32,
}

impl Bucket {
    /// Takes one event; `false` when the limit is passed.
    pub fn take(&mut self, now: Millis, rate: u32) -> bool {
        let now = now.get() as u32;
        let refilled = u64::from(now.wrapping_sub(self.at)) * u64::from(rate);
        let spent = u64::from(self.spent).saturating_sub(refilled) + 1000;
        if spent > u64::from(rate) * u64::from(BURST_SECONDS) * 1000 {
            return false;
        }
        (self.spent, self.at) = (u32::try_from(spent).unwrap_or(u32::MAX), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let mut bucket = Bucket::default();
        assert_eq!((0..1000).filter(|_| bucket.take(Millis::new(5_000_000_000), 50)).count(), 100);
        assert_eq!((0..1000).filter(|_| bucket.take(Millis::new(5_000_000_100), 50)).count(), 5);
        assert_eq!((0..1000).filter(|_| bucket.take(Millis::new(5_000_100_000), 50)).count(), 100);
    }
}
