//! Circuit breakers: where no connection to the backend comes about, all requests fail at once for a second, then some of
//! them try. Where one kind of request is not answered, for several sources and for none in between, the same counts for
//! that kind alone: one event that hangs must not stop the others. What fails for one source alone stops the requests of
//! that source only: it may send what the backend cannot handle. Sans-IO.

use crate::backend::request::RequestKind;
use crate::backend::source::Source;
use std::collections::HashMap;

/// Failed connections in a row, or sources without an answer, that open a circuit; also failures of one source in a row
/// that stop its requests.
const MAX_FAILURES: usize = 5;
/// Sources without an answer that are remembered since the last success.
const MAX_UNANSWERED: usize = 64;
/// Sources whose failures in a row are counted.
const MAX_STREAKS: usize = 1_024;
/// Failing events with a circuit of their own. Where a rule takes any event, clients choose the names: those that come later
/// have one for all of them.
const MAX_EVENTS: usize = 64;
/// How long without a failure an event has its circuit where others need one.
const FORGOTTEN_MS: u64 = 60_000;
/// A topic's circuit opens when so much time has passed since the first failure, and no success.
const QUIET_MS: u64 = 1_000;
/// How long a circuit stays open before requests try.
const OPEN_MS: u64 = 1_000;

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There was no connection, which no request can cause.
    Unreachable,
    /// A connection, but no answer, or one that a proxy writes for a backend that is away.
    Unanswered,
}

/// Which circuit opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    All,
    Topic,
}

/// What a request is about: those that share a circuit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic<'a> {
    pub kind: RequestKind,
    /// The name of a client's event.
    pub event: Option<&'a str>,
}

#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    /// Failed connections in a row.
    unreachable: usize,
    /// For all requests.
    all: Circuit,
    /// Of events without an answer since their last one.
    events: HashMap<Box<str>, TopicCircuit>,
    /// Of all other requests, and of the events that have none of their own.
    kinds: [TopicCircuit; RequestKind::COUNT],
    streaks: HashMap<Source, Streak>,
}

#[derive(Debug, Default)]
struct Circuit {
    is_open: bool,
    /// When it lets the next request try.
    next_trial: u64,
}

impl Circuit {
    /// Whether it was closed.
    fn open(&mut self, now_ms: u64) -> bool {
        let was_open = std::mem::replace(&mut self.is_open, true);
        if !was_open {
            self.next_trial = now_ms + OPEN_MS;
        }
        !was_open
    }

    fn allows(&self, now_ms: u64) -> bool {
        !self.is_open || now_ms >= self.next_trial
    }

    fn note_trial(&mut self, now_ms: u64) {
        if self.is_open {
            self.next_trial = now_ms + OPEN_MS;
        }
    }
}

/// The circuit of one topic.
#[derive(Debug, Default)]
struct TopicCircuit {
    /// Sources that had no answer since the last success.
    unanswered: Vec<Source>,
    first_failure: u64,
    last_failure: u64,
    /// For sources that had an answer last, and for those that had none: who causes failures must not take the trials from
    /// the others.
    circuits: [Circuit; 2],
}

impl TopicCircuit {
    fn circuit(&mut self, source: &Source) -> &mut Circuit {
        &mut self.circuits[usize::from(self.unanswered.contains(source))]
    }

    /// Whether this failure opened it.
    fn note_failure(&mut self, source: &Source, now_ms: u64) -> bool {
        if self.unanswered.is_empty() {
            self.first_failure = now_ms;
        }
        self.last_failure = now_ms;
        if self.unanswered.len() < MAX_UNANSWERED && !self.unanswered.contains(source) {
            self.unanswered.push(source.clone());
        }
        let opens = self.unanswered.len() >= MAX_FAILURES && now_ms >= self.first_failure + QUIET_MS;
        opens && self.circuits.each_mut().map(|circuit| circuit.open(now_ms)) == [true; 2]
    }
}

/// Failures of one source in a row.
#[derive(Debug)]
struct Streak {
    failures: usize,
    /// When its next request may try, after too many.
    rests_until: u64,
}

impl CircuitBreaker {
    /// Whether a request about this topic and of this source may be sent now.
    pub(super) fn allows(&mut self, topic: Topic<'_>, source: &Source, now_ms: u64) -> bool {
        let rests = |streak: &&mut Streak| streak.failures >= MAX_FAILURES;
        let streak = self.streaks.get_mut(source).filter(rests);
        if streak.as_ref().is_some_and(|streak| now_ms < streak.rests_until) || !self.all.allows(now_ms) {
            return false;
        }
        let own = topic.event.and_then(|event| self.events.get_mut(event));
        let circuit = own.unwrap_or(&mut self.kinds[topic.kind as usize]).circuit(source);
        if !circuit.allows(now_ms) {
            return false;
        }
        circuit.note_trial(now_ms);
        self.all.note_trial(now_ms);
        if let Some(streak) = streak {
            streak.rests_until = now_ms + OPEN_MS;
        }
        true
    }

    /// When the next request may try; `None` while the circuit of all requests is closed.
    pub(super) fn next_trial(&self) -> Option<u64> {
        self.all.is_open.then_some(self.all.next_trial)
    }

    /// A request was answered, even if with a refusal.
    pub(super) fn record_success(&mut self, topic: Topic<'_>, source: &Source) {
        self.streaks.remove(source);
        self.note_reached();
        let own = topic.event.and_then(|event| self.events.remove(event));
        if own.is_none() {
            self.kinds[topic.kind as usize] = TopicCircuit::default();
        }
    }

    fn note_reached(&mut self) {
        self.unreachable = 0;
        self.all.is_open = false;
    }

    /// A request failed; the answer is the circuit that this opened.
    pub(super) fn record_failure(
        &mut self,
        failure: Failure,
        topic: Topic<'_>,
        source: &Source,
        now_ms: u64,
    ) -> Option<Opened> {
        if failure == Failure::Unreachable {
            self.unreachable += 1;
            return (self.unreachable >= MAX_FAILURES && self.all.open(now_ms)).then_some(Opened::All);
        }
        self.note_reached();
        self.lengthen_streak(source, now_ms);
        self.circuit_of(topic, now_ms).note_failure(source, now_ms).then_some(Opened::Topic)
    }

    fn circuit_of(&mut self, topic: Topic<'_>, now_ms: u64) -> &mut TopicCircuit {
        let Some(event) = topic.event else { return &mut self.kinds[topic.kind as usize] };
        if self.events.len() >= MAX_EVENTS && !self.events.contains_key(event) {
            self.events.retain(|_, circuit| circuit.last_failure + FORGOTTEN_MS > now_ms);
        }
        if self.events.len() >= MAX_EVENTS && !self.events.contains_key(event) {
            return &mut self.kinds[topic.kind as usize];
        }
        self.events.entry(event.into()).or_default()
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

    const JOIN: Topic<'_> = Topic { kind: RequestKind::Join, event: None };

    fn event(name: &str) -> Topic<'_> {
        Topic { kind: RequestKind::Event, event: Some(name) }
    }

    fn sources() -> Vec<Source> {
        (0..6).map(|user| Source::user(&user.to_string())).collect()
    }

    #[test]
    fn opens_for_all_after_failed_connections_in_a_row_and_tries_with_one_request() {
        let mut breaker = CircuitBreaker::default();
        let source = &sources()[0];
        let fail = |breaker: &mut CircuitBreaker| breaker.record_failure(Failure::Unreachable, JOIN, source, 0);
        for _ in 0..4 {
            assert!(fail(&mut breaker).is_none() && breaker.allows(JOIN, source, 0));
        }
        breaker.record_success(JOIN, source);
        assert!((0..4).all(|_| fail(&mut breaker).is_none()));
        assert_eq!(fail(&mut breaker), Some(Opened::All), "the fifth in a row");
        assert!(!breaker.allows(event("chat"), source, 999));
        assert_eq!(breaker.next_trial(), Some(1_000));
        assert!(breaker.allows(event("chat"), source, 1_000), "one request tries");
        assert!(!breaker.allows(JOIN, source, 1_001), "the others do not");
        breaker.record_failure(Failure::Unanswered, event("chat"), source, 1_002);
        assert!(breaker.allows(JOIN, source, 1_003), "there was a connection");
    }

    #[test]
    fn an_event_without_answers_rests_alone() {
        let (mut breaker, sources) = (CircuitBreaker::default(), sources());
        let mut fail =
            |source: usize, at| breaker.record_failure(Failure::Unanswered, event("report"), &sources[source], at);
        assert!((0..100).all(|n| fail(0, 5_000 + n).is_none()), "one source never opens it");
        assert!((1..5).all(|source| fail(source, 5_999).is_none()));
        assert_eq!(fail(5, 6_000), Some(Opened::Topic), "a second without a success");
        let bystander = Source::user("bystander");
        assert!(!breaker.allows(event("report"), &bystander, 6_999));
        assert!(breaker.allows(event("chat"), &bystander, 6_999) && breaker.allows(JOIN, &bystander, 6_999));
        assert_eq!(breaker.next_trial(), None, "notices go on");
        assert!(breaker.allows(event("report"), &sources[1], 7_000), "one that failed tries");
        assert!(breaker.allows(event("report"), &bystander, 7_000), "which takes no trial from the others");
        assert!(!breaker.allows(event("report"), &bystander, 7_001));
        assert!(!breaker.allows(event("report"), &sources[2], 7_001));
        breaker.record_success(event("report"), &bystander);
        assert!(breaker.allows(event("report"), &sources[2], 7_002));
    }

    #[test]
    fn a_success_in_between_keeps_a_topic_going() {
        let (mut breaker, sources) = (CircuitBreaker::default(), sources());
        for at in 0..100 {
            let failures =
                sources.iter().filter_map(|source| breaker.record_failure(Failure::Unanswered, JOIN, source, at * 100));
            assert_eq!(failures.count(), 0);
            if at % 9 == 0 {
                breaker.record_success(JOIN, &Source::user("bystander"));
            }
        }
    }

    #[test]
    fn a_source_that_fails_in_a_row_rests_alone() {
        let (mut breaker, sources) = (CircuitBreaker::default(), sources());
        let fail = |breaker: &mut CircuitBreaker, source: &Source, at| {
            breaker.record_failure(Failure::Unanswered, event("chat"), source, at)
        };
        assert!((0..4).all(|_| fail(&mut breaker, &sources[0], 10).is_none()));
        assert!(breaker.allows(JOIN, &sources[0], 11));
        breaker.record_success(JOIN, &sources[1]);
        fail(&mut breaker, &sources[0], 12);
        assert!(!breaker.allows(JOIN, &sources[0], 1_011) && breaker.allows(JOIN, &sources[1], 13));
        assert!(breaker.allows(JOIN, &sources[0], 1_012), "one tries");
        assert!(!breaker.allows(JOIN, &sources[0], 1_013));
        breaker.record_success(JOIN, &sources[0]);
        assert!(breaker.allows(JOIN, &sources[0], 1_021));
        for number in 0..3 * MAX_STREAKS {
            fail(&mut breaker, &Source::user(&number.to_string()), 2_000);
        }
        assert!(breaker.streaks.len() <= MAX_STREAKS);
    }

    #[test]
    fn names_that_clients_choose_are_bounded_and_forgotten() {
        let (mut breaker, sources) = (CircuitBreaker::default(), sources());
        for number in 0..1_000 {
            breaker.record_failure(Failure::Unanswered, event(&number.to_string()), &sources[0], 0);
        }
        assert_eq!(breaker.events.len(), MAX_EVENTS);
        breaker.record_failure(Failure::Unanswered, event("report"), &sources[0], FORGOTTEN_MS);
        assert!(breaker.events.len() == 1 && breaker.events.contains_key("report"));
    }
}
