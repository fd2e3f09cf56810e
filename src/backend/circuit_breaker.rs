//! A circuit breaker: after several failures in a row requests fail at once for a second, then one of them tries.
//! Sans-IO.

/// Failures in a row that open the circuit.
const MAX_FAILURES: u32 = 5;
/// How long it stays open before one request tries.
const OPEN_MS: u64 = 1_000;

#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    failures: u32,
    /// An open circuit lets one request try from then on, which postpones the next trial.
    open_until: u64,
}

impl CircuitBreaker {
    /// Whether a request may be sent now.
    pub(super) fn allows(&mut self, now_ms: u64) -> bool {
        if self.failures < MAX_FAILURES {
            return true;
        }
        let trial = now_ms >= self.open_until;
        if trial {
            self.open_until = now_ms + OPEN_MS;
        }
        trial
    }

    /// A request was answered, even if with a refusal.
    pub(super) fn record_success(&mut self) {
        self.failures = 0;
    }

    /// A request failed; returns whether this one opened the circuit.
    pub(super) fn record_failure(&mut self, now_ms: u64) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= MAX_FAILURES {
            self.open_until = now_ms + OPEN_MS;
        }
        self.failures == MAX_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_tries_with_one_request() {
        let mut breaker = CircuitBreaker::default();
        for _ in 0..4 {
            assert!(!breaker.record_failure(0) && breaker.allows(0));
        }
        breaker.record_success();
        assert!((0..4).all(|_| !breaker.record_failure(0)));
        assert!(breaker.record_failure(0), "the fifth in a row");
        assert!(!breaker.allows(999));
        assert!(breaker.allows(1_000), "one request tries");
        assert!(!breaker.allows(1_001), "the others do not");
        breaker.record_success();
        assert!(breaker.allows(1_002));
    }
}
