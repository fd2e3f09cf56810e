//! Leaves a backend alone that fails again and again, so that clients get their error at once. Sans-IO.

/// Failures in a row after which it rests.
const MAX_FAILURES: u32 = 5;
/// How long it is left alone; then one request tries.
const REST_MS: u64 = 1_000;

/// What is known of the backend's health.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Requests are let through from then on; each one that is let through after a rest starts the next.
    rests_until: u64,
}

impl Breaker {
    /// Whether a request may be made now.
    pub(super) fn lets_through(&mut self, now_ms: u64) -> bool {
        if self.failures < MAX_FAILURES {
            return true;
        }
        let trial = now_ms >= self.rests_until;
        if trial {
            self.rests_until = now_ms + REST_MS;
        }
        trial
    }

    /// A request was answered, if only by a refusal.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A request failed; whether the backend rests from now on.
    pub(super) fn failed(&mut self, now_ms: u64) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= MAX_FAILURES {
            self.rests_until = now_ms + REST_MS;
        }
        self.failures == MAX_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_after_failures_in_a_row_and_tries_with_one() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert!(!breaker.failed(0) && breaker.lets_through(0));
        }
        breaker.succeeded();
        assert!((0..4).all(|_| !breaker.failed(0)));
        assert!(breaker.failed(0), "the fifth in a row");
        assert!(!breaker.lets_through(999));
        assert!(breaker.lets_through(1_000), "one tries");
        assert!(!breaker.lets_through(1_001), "and the others wait for it");
        breaker.succeeded();
        assert!(breaker.lets_through(1_002));
    }
}
