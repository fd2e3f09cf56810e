//! Outcomes and decisions in words, for operators. Times are beside them.

use crate::explain::decide::{Outcome, Waiting};
use crate::model::provenance::Provenance;
use crate::model::session_note::LeftBy;
use crate::rules::config::JoinPolicy;
use crate::rules::{RoomRule, Verdict};

/// An outcome in words.
pub fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered(_) => "written to the client's connection".into(),
        Outcome::Replayed(_) => "it came while the client was away, and was replayed when the client came back".into(),
        Outcome::HadIt(_) => {
            "the client had it before it came back: it named a later position as the last that it got".into()
        }
        Outcome::Waiting(Waiting::Outbox) => {
            "it waits in the outbox: the client takes less than there is for it, or does not poll".into()
        }
        Outcome::Waiting(Waiting::Replay) => {
            "it waits in the recent log: the client still reads what it missed before it".into()
        }
        Outcome::Waiting(Waiting::Node) => "the session's node has not come to it in the log yet".into(),
        Outcome::Dropped(reason, _) => {
            format!("it waited for the client when the connection ended: {}. {}", reason.label(), reason.meaning())
        }
        Outcome::Gap(code, _) => {
            format!("the client was notified that it may have missed it: {code}, {}", gap(code))
        }
        Outcome::Excepted(room) => format!("the session was in room \"{room}\", which the event excepts"),
        Outcome::JoinedLater(_) => "the session joined the room after the event".into(),
        Outcome::LeftBefore(_, by) => format!("the session had left the room: {}", left_by(*by)),
        Outcome::NotInRoom => "the session was not in the room".into(),
        Outcome::ConnectedLater => "the session began after the event".into(),
        Outcome::EndedBefore(reason, _) => {
            format!("the session had ended, or lost its connection: {}. {}", reason.label(), reason.meaning())
        }
        Outcome::Unknown => {
            "when the session was in the room is no longer known: see explain.window and explain.bytes".into()
        }
    }
}

fn left_by(by: LeftBy) -> &'static str {
    match by {
        LeftBy::Client => "its client wanted that, or the backend's answer to one of its events",
        LeftBy::Command => "a /leave of the backend",
        LeftBy::Token => "its new token does not give it the room",
        LeftBy::Rules => "the rules that were put in force by a reload do not give it the room",
        LeftBy::Undone => "its join was not written in time and undone",
    }
}

/// What a reason of `roomcast_gaps_total` or `roomcast_recoveries_total` means.
fn gap(code: &str) -> &'static str {
    match code {
        "too_old" => "the recent log no longer had it (recovery.window, recovery.window_bytes)",
        "foreign_epoch" => "the client's position is of another log, or of before the log lost entries",
        "future" => "the client's position is ahead of the log",
        "bad_offset" => "the client's position cannot be read",
        "unknown_session" => {
            "no node had the session any more (recovery.window, recovery.window_bytes), or it was another user's"
        }
        "rooms_unknown" => "the session's rooms had changed too often",
        "undecided" => "the token had changed, and the backend did not say which rooms it still gives",
        "disconnected" | "gone" => "the session had been ended for good",
        "log_reset" => "the log had lost entries, or this node had missed some",
        _ => "what was missed could not be proven",
    }
}

/// What keeps a session in a room, by the rules as they are now.
pub fn inside(by: Provenance, verdict: &Verdict<'_>, listing: Option<&str>) -> String {
    let rule = rule_of(verdict).map_or("a rule of [[rooms]]", RoomRule::name);
    match by {
        Provenance::Auto => format!("joined at connect by {rule}"),
        Provenance::Rule => format!("let in by {rule}"),
        Provenance::Grant => match listing {
            Some(listing) => format!("the token's rooms claim (auth.rooms_claim) lists \"{listing}\""),
            None => "the token's rooms claim (auth.rooms_claim) listed it".into(),
        },
        Provenance::Asked => format!("the backend let it in, asked by {rule}"),
        Provenance::Answered => "the backend's answer to an event of its client".into(),
        Provenance::Command => "a /join of the backend".into(),
    }
}

/// Why a session is not in a room, by the rules as they are now.
pub fn outside(verdict: &Verdict<'_>, listing: Option<&str>) -> String {
    match verdict {
        Verdict::Allow(rule, _) if rule.join() == JoinPolicy::Auto => {
            format!("{} joins it at connect: the session has left it since, or its token has changed", rule.name())
        }
        Verdict::Allow(rule, _) => format!("{} lets it in, but its client has not joined", rule.name()),
        Verdict::Granted(_) => format!(
            "the token's rooms claim (auth.rooms_claim) lists \"{}\", but its client has not joined",
            listing.unwrap_or_default()
        ),
        Verdict::Ask(rule, _) => {
            format!("{} lets the backend decide, and its client has not joined", rule.name())
        }
        Verdict::Deny(rule) => {
            format!("{} refuses it, and the token's rooms claim (auth.rooms_claim) does not list it", rule.name())
        }
        Verdict::NoRule => "no [[rooms]] rule matches it, and the token's rooms claim (auth.rooms_claim) does not \
                            list it: it cannot be joined"
            .into(),
        Verdict::Refused(error) => format!("a value of its token cannot be in a room's name: {error}"),
    }
}

/// What decides on a user of whom there is no live session.
pub fn rule(rule: Option<&RoomRule>) -> String {
    match rule {
        Some(rule) => rule.name().to_owned(),
        None => "no [[rooms]] rule matches it: only a token whose rooms claim (auth.rooms_claim) lists it, or a /join \
                 of the backend, brings a session into it"
            .into(),
    }
}

fn rule_of<'r>(verdict: &Verdict<'r>) -> Option<&'r RoomRule> {
    match verdict {
        Verdict::Allow(rule, _) | Verdict::Ask(rule, _) | Verdict::Deny(rule) => Some(rule),
        Verdict::Granted(rule) => rule.as_ref().map(|(rule, _)| *rule),
        Verdict::NoRule | Verdict::Refused(_) => None,
    }
}
