//! How fast a subscription takes what it follows (sans-IO).

/// Seconds of the rate that may come at once.
const BURST_SECONDS: u64 = 2;

/// A token bucket, in thousandths, so that each millisecond adds a whole number.
pub(super) struct Pace {
    per_second: u64,
    left: u64,
    at_ms: u64,
}

impl Pace {
    /// Full.
    pub(super) fn new(per_second: u64) -> Self {
        let per_second = per_second.max(1);
        Self { per_second, left: per_second * BURST_SECONDS * 1_000, at_ms: 0 }
    }

    /// Whether so much is left. It is not taken yet.
    pub(super) fn has(&mut self, count: u64, now_ms: u64) -> bool {
        let elapsed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let full = self.per_second * BURST_SECONDS * 1_000;
        self.left = full.min(self.left.saturating_add(self.per_second.saturating_mul(elapsed)));
        // What is larger than a full bucket passes through a full one.
        self.left >= (count * 1_000).min(full)
    }

    pub(super) fn take(&mut self, count: u64) {
        self.left = self.left.saturating_sub(count * 1_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut pace = Pace::new(10);
        let mut passed = |now_ms| {
            let mut count = 0;
            while pace.has(1, now_ms) {
                pace.take(1);
                count += 1;
            }
            count
        };
        assert_eq!((passed(1_000), passed(1_000), passed(1_500), passed(61_500)), (20, 0, 5, 20));
        let mut small = Pace::new(1);
        assert!(small.has(1_000_000, 0), "one that is larger than the bucket is not held up for good");
        small.take(1_000_000);
        assert!(!small.has(1, 0));
    }
}
