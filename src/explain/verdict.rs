//! One answer from what all nodes say.

use crate::cluster::{EventView, ExplainQuery, ExplainedSession, NodeExplanation, TurnedAwayView};
use crate::model::names::EVERYBODY;
use std::collections::BTreeMap;

/// What nodes know of an event, best first.
const STATUSES: [&str; 5] = ["kept", "gone", "unknown", "other_log", "ahead"];
/// What became of an event for a session, and whether one is in a room: the best of them is the verdict on the user.
const OUTCOMES: [&str; 12] = [
    "delivered",
    "waiting",
    "in_room",
    "dropped",
    "gap",
    "excepted",
    "left_before",
    "joined_later",
    "not_in_room",
    "unknown",
    "connected_later",
    "ended_before",
];

/// The answer in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// A code.
    pub code: &'static str,
    /// The same in words.
    pub message: String,
    /// The time that belongs to it, in Unix milliseconds.
    pub at_ms: Option<u64>,
}

/// What is known of the event over all nodes.
pub fn event(nodes: &[&NodeExplanation]) -> Option<EventView> {
    let rank =
        |event: &&EventView| STATUSES.iter().position(|status| *status == event.status).unwrap_or(STATUSES.len());
    nodes.iter().filter_map(|node| node.event.as_ref()).min_by_key(rank).cloned()
}

/// How many sessions of all nodes had which outcome.
pub fn outcomes<'a>(nodes: &[&'a NodeExplanation]) -> BTreeMap<&'a str, u64> {
    let mut sums = BTreeMap::new();
    for (outcome, count) in nodes.iter().flat_map(|node| &node.outcomes) {
        *sums.entry(outcome.as_str()).or_default() += count;
    }
    sums
}

/// The answer to a question about a user.
pub fn of(query: &ExplainQuery, nodes: &[&NodeExplanation], sees_back_to: &str) -> Verdict {
    let verdict = |code, message| Verdict { code, message, at_ms: None };
    let ExplainQuery { user, room, namespace, .. } = query;
    if !nodes.iter().any(|node| node.has_namespace) {
        let message = format!("no client can be in namespace {namespace}: it is not in socketio.namespaces");
        return verdict("unknown_namespace", message);
    }
    let event = event(nodes);
    let event = event.as_ref();
    match event.map(|event| event.status.as_str()) {
        Some("kept") => {
            let event = event.cloned().unwrap_or_default();
            if event.namespace.as_deref() != Some(namespace) {
                let other = event.namespace.unwrap_or_default();
                return verdict("other_namespace", format!("the event is of namespace {other}, not of {namespace}"));
            }
            if !event.rooms.iter().any(|to| to == room || to == EVERYBODY) {
                let rooms = event.rooms.join(", ");
                return verdict("other_room", format!("the event did not go to this room: it went to {rooms}"));
            }
        }
        Some("unknown") => {
            let why = "the log has no event with this offset: an offset is in the answer to /publish, and volatile \
                       events have none";
            return verdict("unknown_event", why.into());
        }
        Some("other_log") => {
            let why = "the offset is of another log, or of before the log lost entries: clients were notified that they \
                       may have missed events";
            return verdict("other_log", why.into());
        }
        Some("ahead") => {
            return verdict("event_ahead", "no node has come to this offset in the log yet".into());
        }
        _ => {}
    }
    let found = of_sessions(query, nodes, sees_back_to, event.is_some());
    match event.is_some_and(|event| event.status == "gone") {
        true => {
            let message = format!(
                "the event is no longer kept (recovery.window, recovery.window_bytes), so that its rooms are not known; \
                 if it went to {room}: {}",
                found.message
            );
            Verdict { message, ..found }
        }
        false => Verdict { message: format!("user {user}: {}", found.message), ..found },
    }
}

fn of_sessions(query: &ExplainQuery, nodes: &[&NodeExplanation], sees_back_to: &str, has_event: bool) -> Verdict {
    let sums = outcomes(nodes);
    let all: u64 = sums.values().sum();
    let sessions = || nodes.iter().flat_map(|node| &node.sessions);
    let newest = |outcome: &str| {
        let time = |session: &&ExplainedSession| session.ended_ms.unwrap_or(session.since_ms);
        sessions().filter(|session| session.outcome == outcome).max_by_key(time)
    };
    let best = OUTCOMES.into_iter().find(|outcome| sums.contains_key(outcome));
    let Some(best) = best.filter(|best| !matches!(*best, "connected_later" | "ended_before")) else {
        return not_connected(query, nodes, newest(best.unwrap_or("ended")), sees_back_to, has_event);
    };
    let Some(session) = newest(best) else {
        return Verdict { code: best, message: best.to_owned(), at_ms: None };
    };
    let mut message = session.message.clone();
    if all > 1 {
        let others: Vec<String> = sums.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        message = format!("{message} (of {all} sessions: {})", others.join(", "));
    }
    Verdict { code: best, message, at_ms: session.outcome_ms }
}

/// No session that counts was connected.
fn not_connected(
    query: &ExplainQuery,
    nodes: &[&NodeExplanation],
    last: Option<&ExplainedSession>,
    sees_back_to: &str,
    has_event: bool,
) -> Verdict {
    let when = if has_event { "not connected when the event came" } else { "not connected" };
    let elsewhere: Vec<&str> = nodes.iter().flat_map(|node| &node.elsewhere).map(String::as_str).collect();
    let turned_away = nodes.iter().flat_map(|node| &node.turned_away).max_by_key(|turned_away| turned_away.at_ms);
    let ended_ms = last.and_then(|session| session.outcome_ms).unwrap_or_default();
    if let Some(TurnedAwayView { at_ms, code, claimed }) = turned_away.filter(|later| later.at_ms >= ended_ms) {
        let who = match claimed {
            true => "a client whose token names this user, be it theirs or not,",
            false => "a client of this user",
        };
        let message = format!("{when}: {who} was not let in, {code}");
        return Verdict { code: "not_connected", message, at_ms: Some(*at_ms) };
    }
    let message = match last {
        Some(session) => format!("{when}: {}", session.message),
        None if !elsewhere.is_empty() => {
            format!("{when} in namespace {}; connected in {}", query.namespace, elsewhere.join(", "))
        }
        None => format!("{when}, and no session of this user has ended since {sees_back_to}"),
    };
    Verdict { code: "not_connected", message, at_ms: last.and_then(|session| session.outcome_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(outcome: &str, since_ms: u64) -> ExplainedSession {
        let message = format!("it was {outcome}");
        ExplainedSession {
            outcome: outcome.into(),
            since_ms,
            outcome_ms: Some(since_ms),
            message,
            ..Default::default()
        }
    }

    fn node(sessions: &[ExplainedSession]) -> NodeExplanation {
        NodeExplanation {
            has_namespace: true,
            sessions: sessions.to_vec(),
            outcomes: sessions.iter().map(|session| (session.outcome.clone(), 1)).collect(),
            ..Default::default()
        }
    }

    fn query() -> ExplainQuery {
        ExplainQuery { user: "7".into(), room: "a".into(), namespace: "/".into(), event: Some("x".into()) }
    }

    fn code(nodes: &[NodeExplanation]) -> &'static str {
        of(&query(), &nodes.iter().collect::<Vec<_>>(), "T").code
    }

    fn with(status: &str, rooms: &[&str], namespace: &str) -> NodeExplanation {
        let rooms = rooms.iter().map(|room| (*room).to_owned()).collect();
        let event = EventView { status: status.into(), rooms, namespace: Some(namespace.into()), ..Default::default() };
        NodeExplanation { event: Some(event), ..node(&[session("delivered", 1)]) }
    }

    #[test]
    fn the_best_of_all_sessions_counts() {
        let nodes = [node(&[session("ended_before", 1)]), node(&[session("dropped", 2), session("not_in_room", 3)])];
        let verdict = of(&query(), &[&nodes[0], &nodes[1]], "T");
        assert_eq!((verdict.code, verdict.at_ms), ("dropped", Some(2)));
        assert_eq!(verdict.message, "user 7: it was dropped (of 3 sessions: 1 dropped, 1 ended_before, 1 not_in_room)");
        assert_eq!(code(&[node(&[session("dropped", 1)]), node(&[session("delivered", 0)])]), "delivered");
        assert_eq!(code(&[node(&[session("a newer release", 1)])]), "not_connected");
    }

    #[test]
    fn nobody_is_connected() {
        let ended = |since| session("ended_before", since);
        let nodes = [node(&[ended(1)]), node(&[ended(5), ended(3)])];
        let verdict = of(&query(), &[&nodes[0], &nodes[1]], "T");
        assert_eq!((verdict.code, verdict.at_ms), ("not_connected", Some(5)));
        let verdict = of(&query(), &[&node(&[])], "T");
        assert_eq!(verdict.message, "user 7: not connected, and no session of this user has ended since T");
        let elsewhere = NodeExplanation { elsewhere: vec!["/chat".into()], ..node(&[]) };
        assert!(of(&query(), &[&elsewhere], "T").message.ends_with("in namespace /; connected in /chat"));
        assert_eq!(code(&[NodeExplanation::default()]), "unknown_namespace");
        let turned_away = |at_ms| TurnedAwayView { at_ms, code: "token_expired".into(), claimed: true };
        let refused = |at_ms| NodeExplanation { turned_away: vec![turned_away(at_ms)], ..node(&[ended(5)]) };
        let message = |at_ms| of(&query(), &[&refused(at_ms)], "T").message;
        assert!(message(6).ends_with("was not let in, token_expired") && message(4).ends_with("it was ended_before"));
    }

    #[test]
    fn what_is_known_of_the_event_comes_first() {
        assert_eq!(code(&[with("kept", &["b", "a"], "/")]), "delivered");
        assert_eq!(code(&[with("kept", &["b"], "/")]), "other_room");
        assert_eq!(code(&[with("kept", &[EVERYBODY], "/")]), "delivered");
        assert_eq!(code(&[with("kept", &["a"], "/chat")]), "other_namespace");
        let codes = ["unknown", "other_log", "ahead"].map(|status| code(&[with(status, &[], "/")]));
        assert_eq!(codes, ["unknown_event", "other_log", "event_ahead"]);
        assert_eq!(code(&[with("ahead", &[], "/"), with("kept", &["a"], "/")]), "delivered");
        let gone = of(&query(), &[&with("gone", &[], "/")], "T");
        assert!(gone.code == "delivered" && gone.message.contains("if it went to a: it was delivered"));
    }
}
