//! A circuit breaker: when the backend cannot be reached, or fails for several sources and succeeds for none, requests fail
//! at once for a second, then some of them try. What fails for one source alone stops the requests of that source only: it
//! may send what the backend cannot handle. Sans-IO.

use crate::backend::source::Source;
use std::collections::HashMap;

/// Failed connections in a row, or sources without an answer, that open the circuit; also failures of one source in a row
/// that stop its requests.
const MAX_FAILURES: usize = 5;
/// Sources without an answer that are remembered since the last success.
const MAX_UNANSWERED: usize = 64;
/// Sources whose failures in a row are counted.
const MAX_STREAKS: usize = 1_024;
/// A success in this time keeps the circuit closed, however many sources fail.
const QUIET_MS: u64 = 1_000;
/// How long it stays open before requests try.
const OPEN_MS: u64 = 1_000;

/// How a request failed.
pub(super) enum Failure<'a> {
    /// There was no connection, which no source can cause.
    Unreachable,
    /// A connection, but no answer, or one that a proxy writes for a backend that is away.
    Unanswered(&'a Source),
}

#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    /// Failed connections in a row.
    unreachable: usize,
    /// Sources that had no answer since the last success.
    unanswered: Vec<Source>,
    last_success: u64,
    is_open: bool,
    /// When an open circuit lets the next request try: of a source that had an answer last, and of one that had none.
    /// Those that cause failures must not take the trials from the others.
    trials: [u64; 2],
    streaks: HashMap<Source, Streak>,
}

/// Failures of one source in a row.
#[derive(Debug)]
struct Streak {
    failures: usize,
    /// When its next request may try, after too many.
    rests_until: u64,
}

impl CircuitBreaker {
    /// Whether a request of this source may be sent now.
    pub(super) fn allows(&mut self, source: &Source, now_ms: u64) -> bool {
        if let Some(streak) = self.streaks.get_mut(source)
            && streak.failures >= MAX_FAILURES
        {
            if now_ms < streak.rests_until {
                return false;
            }
            streak.rests_until = now_ms + OPEN_MS;
        }
        let slot = &mut self.trials[usize::from(self.unanswered.contains(source))];
        let is_trial = now_ms >= *slot;
        if self.is_open && is_trial {
            *slot = now_ms + OPEN_MS;
        }
        !self.is_open || is_trial
    }

    /// When the next request may try; `None` while the circuit is closed.
    pub(super) fn next_trial(&self) -> Option<u64> {
        self.is_open.then(|| self.trials[0].min(self.trials[1]))
    }

    /// A request of this source was answered, even if with a refusal.
    pub(super) fn record_success(&mut self, source: &Source, now_ms: u64) {
        self.streaks.remove(source);
        self.unreachable = 0;
        self.unanswered.clear();
        self.is_open = false;
        self.last_success = now_ms;
    }

    /// A request failed; returns whether this one opened the circuit.
    pub(super) fn record_failure(&mut self, failure: &Failure<'_>, now_ms: u64) -> bool {
        match failure {
            Failure::Unreachable => self.unreachable += 1,
            Failure::Unanswered(source) => {
                if self.unanswered.len() < MAX_UNANSWERED && !self.unanswered.contains(source) {
                    self.unanswered.push((*source).clone());
                }
                self.lengthen_streak(source, now_ms);
            }
        }
        let was_open = self.is_open;
        let is_quiet = now_ms >= self.last_success + QUIET_MS;
        self.is_open |= self.unreachable >= MAX_FAILURES || (self.unanswered.len() >= MAX_FAILURES && is_quiet);
        if self.is_open && !was_open {
            self.trials = [now_ms + OPEN_MS; 2];
        }
        self.is_open && !was_open
    }

    fn lengthen_streak(&mut self, source: &Source, now_ms: u64) {
        if self.streaks.len() >= MAX_STREAKS {
            self.streaks.retain(|_, streak| streak.rests_until > now_ms);
        }
        if self.streaks.len() < MAX_STREAKS || self.streaks.contains_key(source) {
            let streak = self.streaks.entry(source.clone()).or_insert(Streak { failures: 0, rests_until: 0 });
            streak.failures += 1;
            streak.rests_until = now_ms + OPEN_MS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Vec<Source> {
        (0..6).map(|user| Source::user(&user.to_string())).collect()
    }

    #[test]
    fn opens_after_failed_connections_in_a_row_and_tries_with_one_request() {
        let mut breaker = CircuitBreaker::default();
        let source = &sources()[0];
        for _ in 0..4 {
            assert!(!breaker.record_failure(&Failure::Unreachable, 0) && breaker.allows(source, 0));
        }
        breaker.record_success(source, 0);
        assert!((0..4).all(|_| !breaker.record_failure(&Failure::Unreachable, 0)));
        assert!(breaker.record_failure(&Failure::Unreachable, 0), "the fifth in a row");
        assert!(!breaker.allows(source, 999));
        assert!(breaker.allows(source, 1_000), "one request tries");
        assert!(!breaker.allows(source, 1_001), "the others do not");
        breaker.record_success(source, 1_001);
        assert!(breaker.allows(source, 1_002));
    }

    #[test]
    fn one_source_never_opens_it_and_several_only_while_nobody_gets_an_answer() {
        let (mut breaker, sources) = (CircuitBreaker::default(), sources());
        assert!((0..100).all(|_| !breaker.record_failure(&Failure::Unanswered(&sources[0]), 5_000)));
        breaker.record_success(&Source::user("bystander"), 5_000);
        assert!(sources.iter().all(|source| !breaker.record_failure(&Failure::Unanswered(source), 5_999)));
        assert!(breaker.record_failure(&Failure::Unanswered(&sources[0]), 6_000), "a second without a success");
        let bystander = Source::user("bystander");
        assert!(!breaker.allows(&bystander, 6_999));
        assert!(breaker.allows(&sources[1], 7_000), "one that failed tries");
        assert!(breaker.allows(&bystander, 7_000), "which takes no trial from the others");
        assert!(!breaker.allows(&bystander, 7_001) && !breaker.allows(&sources[2], 7_001));
        assert_eq!(breaker.next_trial(), Some(8_000));
        breaker.record_success(&bystander, 7_100);
        assert!(breaker.allows(&sources[1], 7_101));
    }

    #[test]
    fn a_source_that_fails_in_a_row_rests_alone() {
        let (mut breaker, sources) = (CircuitBreaker::default(), sources());
        assert!((0..4).all(|_| !breaker.record_failure(&Failure::Unanswered(&sources[0]), 10)));
        assert!(breaker.allows(&sources[0], 11));
        breaker.record_success(&sources[1], 11);
        breaker.record_failure(&Failure::Unanswered(&sources[0]), 12);
        assert!(!breaker.allows(&sources[0], 1_011) && breaker.allows(&sources[1], 13));
        assert!(breaker.allows(&sources[0], 1_012), "one tries");
        assert!(!breaker.allows(&sources[0], 1_013));
        breaker.record_success(&sources[0], 1_020);
        assert!(breaker.allows(&sources[0], 1_021));
        for number in 0..3 * MAX_STREAKS {
            breaker.record_failure(&Failure::Unanswered(&Source::user(&number.to_string())), 2_000);
        }
        assert!(breaker.streaks.len() <= MAX_STREAKS);
    }
}
