//! What a new token of a session's user, or new rules, make of the rooms that the session is in.

use crate::model::provenance::Provenance;
use crate::rules::config::JoinPolicy;
use crate::rules::{Caller, Rules, Verdict};

/// What becomes of a room that a session is in when its token or the rules change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It stays, for this reason from now on.
    Keep(Provenance),
    /// The backend decides.
    Ask,
    /// The session leaves it.
    Leave,
}

impl Verdict<'_> {
    /// Why a session is in the room once it has joined; `None`: it may not.
    pub fn provenance(&self) -> Option<Provenance> {
        match self {
            Self::Allow(rule, _) if rule.join == JoinPolicy::Auto => Some(Provenance::Auto),
            Self::Allow(..) => Some(Provenance::Rule),
            Self::Granted(_) => Some(Provenance::Grant),
            Self::Ask(..) => Some(Provenance::Asked),
            Self::Deny(_) | Self::NoRule | Self::Refused(_) => None,
        }
    }
}

impl Rules {
    /// Whether a session stays in a room that it is in by an earlier token of the same user. `same_claims`: the claims that
    /// the backend may have decided on are the same, so that its decisions stand.
    pub fn decide_again(&self, room: &str, caller: &Caller<'_>, by: Provenance, same_claims: bool) -> Decision {
        match by {
            // It was about the user, and not about what their token says. `/leave` takes it back.
            Provenance::Command => return Decision::Keep(by),
            Provenance::Asked | Provenance::Answered if same_claims => return Decision::Keep(by),
            _ => {}
        }
        match self.room(room, caller).provenance() {
            Some(Provenance::Asked) => Decision::Ask,
            Some(by) => Decision::Keep(by),
            None => Decision::Leave,
        }
    }

    /// Whether a session stays in a room that it is in by other rules and the same token. What the backend has decided stands,
    /// as far as these rules ask it.
    pub fn decide_by_rules(&self, room: &str, caller: &Caller<'_>, by: Provenance) -> Decision {
        // No rule is asked about what the backend does by itself.
        if matches!(by, Provenance::Command | Provenance::Answered) {
            return Decision::Keep(by);
        }
        match self.room(room, caller).provenance() {
            Some(Provenance::Asked) if by == Provenance::Asked => Decision::Keep(by),
            Some(Provenance::Asked) => Decision::Ask,
            Some(by) => Decision::Keep(by),
            None => Decision::Leave,
        }
    }
}
