//! Moments on a monotonic clock. What decides (sans-IO) gets them as arguments.

use std::num::NonZeroU64;
use std::time::Duration;

/// A moment in milliseconds, at least 1 since the clock began, so that an `Option` of it takes eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(NonZeroU64);

impl Millis {
    /// So many milliseconds since the clock began; 0 counts as 1.
    pub const fn new(ms: u64) -> Self {
        match NonZeroU64::new(ms) {
            Some(ms) => Self(ms),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// Milliseconds since the clock began.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The moment that is so much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(whole_millis(duration)))
    }
}

/// A duration in milliseconds. Longer ones than the clock can tell are cut.
pub fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_costs_nothing_and_nothing_overflows() {
        assert_eq!(size_of::<Option<Millis>>(), size_of::<u64>());
        assert_eq!(Millis::new(0), Millis::new(1));
        assert_eq!(Millis::new(5).after(Duration::from_secs(1)), Millis::new(1_005));
        assert_eq!(Millis::new(5).after(Duration::MAX).get(), u64::MAX);
    }
}
