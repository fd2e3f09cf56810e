//! One clock for all nodes: times in entries are Redis', because the clocks of nodes differ, also by minutes.

use crate::model::clock::unix_us;
use crate::redis::clock::RedisClock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// How many microseconds Redis' clock is ahead of this node's.
#[derive(Default)]
pub(super) struct ClockOffset {
    ahead_us: AtomicI64,
    is_known: AtomicBool,
}

impl ClockOffset {
    /// Takes over what Redis says.
    pub(super) fn note(&self, clock: &RedisClock) {
        self.ahead_us.store(difference(clock.now_us(), unix_us()), Ordering::Relaxed);
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Redis' Unix time, in microseconds.
    pub(super) fn redis_now_us(&self) -> u64 {
        unix_us().saturating_add_signed(self.ahead_us.load(Ordering::Relaxed))
    }

    /// Redis' Unix time, in milliseconds, if Redis has answered once.
    pub(super) fn redis_now_ms(&self) -> Option<u64> {
        self.is_known.load(Ordering::Relaxed).then(|| self.redis_now_us() / 1000)
    }

    /// What this node's clock showed at a time of Redis' clock.
    pub(super) fn local_us(&self, redis_us: u64) -> u64 {
        redis_us.saturating_add_signed(self.ahead_us.load(Ordering::Relaxed).saturating_neg())
    }
}

fn difference(one: u64, other: u64) -> i64 {
    i64::try_from(i128::from(one) - i128::from(other)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_redis_are_those_of_a_node_that_is_minutes_apart() {
        for apart in [300_000_000, -300_000_000, 0] {
            let offset = ClockOffset { ahead_us: AtomicI64::new(apart), ..ClockOffset::default() };
            let now = unix_us();
            let redis = offset.redis_now_us();
            assert!(difference(redis, now) - apart < 1_000_000);
            assert!(difference(offset.local_us(redis), now) < 1_000_000, "{apart}");
        }
        assert_eq!(difference(5, 8), -3);
    }
}
