//! What a session's answer says in the end, in words too.

use crate::cluster::ExplainedSession;
use crate::explain::decide::{EventFacts, Facts, Outcome};
use crate::explain::words;

/// The session with what became of the event, or else whether it is in the room.
pub fn concluded(session: ExplainedSession, event: Option<&EventFacts<'_>>, facts: &Facts<'_>) -> ExplainedSession {
    let Some(event) = event else {
        let (outcome, message) = match (facts.end, session.in_room) {
            (Some(end), _) => {
                let message =
                    format!("it has ended, or lost its connection: {}. {}", end.reason.label(), end.reason.meaning());
                return ExplainedSession {
                    outcome: "ended".into(),
                    outcome_ms: Some(end.at.unix_ms),
                    message,
                    ..session
                };
            }
            (None, true) => ("in_room", format!("in the room: {}", session.decided_by)),
            (None, false) => ("not_in_room", not_in_room(&session)),
        };
        let outcome_ms = if session.in_room { session.in_room_since_ms } else { session.refused.as_ref().map(|r| r.0) };
        return ExplainedSession { outcome: outcome.into(), outcome_ms, message, ..session };
    };
    let outcome = facts.outcome(event);
    let outcome_ms = match &outcome {
        Outcome::Delivered(at) | Outcome::JoinedLater(at) => *at,
        Outcome::Replayed(at) | Outcome::HadIt(at) => Some(*at),
        Outcome::Dropped(_, at) | Outcome::Gap(_, at) | Outcome::LeftBefore(at, _) | Outcome::EndedBefore(_, at) => {
            Some(*at)
        }
        Outcome::ConnectedLater => Some(facts.since_ms),
        Outcome::NotInRoom => session.refused.as_ref().map(|(at, _)| *at),
        Outcome::Waiting(_) | Outcome::Excepted(_) | Outcome::Unknown => None,
    };
    let message = match &outcome {
        Outcome::NotInRoom => not_in_room(&session),
        outcome => words::outcome(outcome),
    };
    ExplainedSession { outcome: outcome.label().into(), outcome_ms, message, ..session }
}

fn not_in_room(session: &ExplainedSession) -> String {
    match &session.refused {
        Some((_, code)) => format!("not in the room: its join was refused, {code}. {}", session.decided_by),
        None => format!("not in the room: {}", session.decided_by),
    }
}
