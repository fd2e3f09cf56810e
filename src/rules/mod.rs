//! What a client may join, and what its events do: `[[rooms]]` and `[[on]]`, compiled at start (docs/rules.md).
//! Sans-IO.
//!
//! ```
//! use roomcast::rules::Rules;
//! use roomcast::rules::config::{JoinPolicy, RoomRuleConfig};
//!
//! let rule = |pattern: &str, join| RoomRuleConfig {
//!     pattern: pattern.to_owned(),
//!     join,
//!     presence: false,
//!     joined: None,
//!     left: None,
//! };
//! assert!(Rules::compile(&[rule("user:{user}", JoinPolicy::Auto)], &[]).is_ok());
//! let mistakes = Rules::compile(&[rule("user:{usr}", JoinPolicy::Auto)], &[]).unwrap_err();
//! assert_eq!((mistakes[0].table, mistakes[0].key), ("rooms", "match"));
//! ```
//!
//! A name is cut into segments at `:`. Values in names cannot contain `:` or wildcards, and a segment has at most one
//! value, so two different lists of values never make the same name. A message is filled by appending the raw JSON text
//! of values to literals; no value becomes a tree or a float.

mod auth_keys;
mod compile;
pub mod config;
mod doubts;
mod error;
mod json;
mod message;
mod pattern;
mod placeholder;
mod rights;
mod template;
#[cfg(test)]
mod tests;
mod values;

pub use auth_keys::AuthKeys;
pub use compile::RuleMistake;
pub use error::{MAX_FILLED_BYTES, TemplateError};
pub use message::{Emission, Message};
pub use placeholder::is_forbidden_in_names;
pub use rights::Decision;
pub use values::{Call, Caller, Captures, Problem, UserRef};

use crate::model::args::Args;
use crate::model::names::Room;
use config::{JoinPolicy, OnRuleConfig, RoomRuleConfig};
use message::{ArgsTemplate, EmitRule, MessageRule};
use pattern::{Fit, Pattern, TokenValue};
use placeholder::{Slot, Source};
use std::borrow::Cow;
use std::collections::HashMap;
use template::RoomTemplate;
use values::Values;

/// All rules of the configuration.
#[derive(Debug, Default)]
pub struct Rules {
    rooms: Vec<RoomRule>,
    /// By namespace and event, with `connection` and `disconnect` among the events.
    on: HashMap<Box<str>, HashMap<Box<str>, OnRule>>,
    /// The keys of the handshake auth that they use.
    pub auth_keys: AuthKeys,
}

/// What the rules decide about a join.
#[derive(Debug)]
pub enum Verdict<'r> {
    /// `join = "auto"` or `"allow"`.
    Allow(&'r RoomRule, Captures),
    /// The token's rooms claim allows it, although the rules ask, deny or do not match. With the first rule that
    /// matches, for its presence.
    Granted(Option<(&'r RoomRule, Captures)>),
    /// The backend decides.
    Ask(&'r RoomRule, Captures),
    /// `join = "deny"`.
    Deny(&'r RoomRule),
    /// No rule matches: refused.
    NoRule,
    /// It depends on a value of the token that must not be in a name: refused.
    Refused(TemplateError),
}

impl Rules {
    /// Compiles both tables, or reports all mistakes.
    pub fn compile(rooms: &[RoomRuleConfig], on: &[OnRuleConfig]) -> Result<Self, Vec<RuleMistake>> {
        compile::compile(rooms, on)
    }

    /// What compiles but is probably not intended: rules that never decide, joins that are always refused, events that
    /// do nothing.
    pub fn doubts(rooms: &[RoomRuleConfig], on: &[OnRuleConfig]) -> Vec<RuleMistake> {
        doubts::doubts(rooms, on)
    }

    /// The rule for a client's event; `None`: refused. `connection` and `disconnect` are not events of clients.
    pub fn on(&self, namespace: &str, event: &str) -> Option<&OnRule> {
        (!matches!(event, "connection" | "disconnect")).then(|| self.rule(namespace, event)).flatten()
    }

    /// The rule for a client that has connected to a namespace.
    pub fn connection(&self, namespace: &str) -> Option<&OnRule> {
        self.rule(namespace, "connection")
    }

    /// The rule for a client that has disconnected.
    pub fn disconnect(&self, namespace: &str) -> Option<&OnRule> {
        self.rule(namespace, "disconnect")
    }

    fn rule(&self, namespace: &str, event: &str) -> Option<&OnRule> {
        self.on.get(namespace)?.get(event)
    }

    /// Whether the caller may join the room. The first rule that matches decides; if it does not allow the join, the
    /// token's grants may. The length of the name is not checked here.
    pub fn room(&self, room: &str, caller: &Caller<'_>) -> Verdict<'_> {
        if room.is_empty() || room.chars().any(char::is_control) {
            return Verdict::NoRule;
        }
        let matched = match self.first(room, |slot| token_value(slot, caller)) {
            Ok(matched) => matched,
            Err(error) => return Verdict::Refused(error),
        };
        match matched {
            Some((rule, captures)) if matches!(rule.join, JoinPolicy::Auto | JoinPolicy::Allow) => {
                Verdict::Allow(rule, captures)
            }
            matched if (caller.granted)(room) => Verdict::Granted(matched),
            Some((rule, captures)) if rule.join == JoinPolicy::Ask => Verdict::Ask(rule, captures),
            Some((rule, _)) => Verdict::Deny(rule),
            None => Verdict::NoRule,
        }
    }

    /// The rule for a user's presence in a room: the first that matches if `{claims.x}` may be anything, so that all
    /// sessions of a user are announced alike, whatever their tokens say. `None`: no presence.
    pub fn presence(&self, room: &str, user: &str) -> Option<(&RoomRule, Captures)> {
        self.present(room, |slot| match slot.source {
            Source::User => TokenValue::Is(Cow::Borrowed(user)),
            _ => TokenValue::Any,
        })
    }

    /// The rule that decides on a user in a room, if `{claims.x}` may be anything.
    pub fn deciding(&self, room: &str, user: &str) -> Option<&RoomRule> {
        let of_user = |slot: &Slot| match slot.source {
            Source::User => TokenValue::Is(Cow::Borrowed(user)),
            _ => TokenValue::Any,
        };
        self.first(room, of_user).ok().flatten().map(|(rule, _)| rule)
    }

    /// Whether the room has presence.
    pub fn has_presence(&self, room: &str) -> bool {
        self.present(room, |_| TokenValue::Any).is_some()
    }

    fn present<'a>(&self, room: &str, value_of: impl Fn(&Slot) -> TokenValue<'a>) -> Option<(&RoomRule, Captures)> {
        if !self.rooms.iter().any(|rule| rule.presence) {
            return None;
        }
        self.first(room, value_of).ok().flatten().filter(|(rule, _)| rule.presence)
    }

    fn first<'a>(
        &self,
        room: &str,
        value_of: impl Fn(&Slot) -> TokenValue<'a>,
    ) -> Result<Option<(&RoomRule, Captures)>, TemplateError> {
        for rule in &self.rooms {
            match rule.pattern.fit(room, &value_of) {
                Fit::No => {}
                Fit::Yes(captures) => return Ok(Some((rule, captures))),
                Fit::Refused(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The rooms that a session joins when it connects, in the order of the rules. A rule with a missing value (no
    /// user, no such claim, an empty text) does not apply to this caller.
    ///
    /// # Errors
    /// If a value in a pattern must not be in a name, or is null, an object or an array. Such a token is refused.
    pub fn auto_rooms(&self, caller: &Caller<'_>) -> Result<Vec<Room>, TemplateError> {
        let values = Values::of_caller(caller);
        let mut rooms = Vec::new();
        for rule in &self.rooms {
            for slot in rule.pattern.slots() {
                if let Err(error @ (TemplateError::Forbidden(..) | TemplateError::NotText(_))) = values.name(slot) {
                    return Err(error);
                }
            }
            if rule.join == JoinPolicy::Auto
                && let Ok(name) = rule.pattern.name(|slot| values.name(slot))
            {
                rooms.push(name.into());
            }
        }
        Ok(rooms)
    }
}

fn token_value<'a>(slot: &Slot, caller: &'a Caller<'a>) -> TokenValue<'a> {
    match Values::of_caller(caller).name(slot) {
        Ok(value) => TokenValue::Is(value),
        Err(error @ TemplateError::Forbidden(..)) => TokenValue::Refused(error),
        Err(_) => TokenValue::Absent,
    }
}

/// A compiled `[[rooms]]` table.
#[derive(Debug)]
pub struct RoomRule {
    /// Where it is in the configuration, and what it says.
    name: Box<str>,
    join: JoinPolicy,
    pattern: Pattern,
    presence: bool,
    joined: Option<MessageRule>,
    left: Option<MessageRule>,
}

impl RoomRule {
    /// Where it is in the configuration, and what it says: `[[rooms]] 2: match = "chat:<id>", join = "ask"`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who may join.
    pub fn join(&self) -> JoinPolicy {
        self.join
    }

    /// The event for the others when a user's first connection has joined. `captures` are of this rule.
    pub fn joined(&self, caller: &Caller<'_>, captures: &Captures) -> Result<Option<Message>, TemplateError> {
        self.message(&self.joined, caller, captures)
    }

    /// The event for the others when a user's last connection has left.
    pub fn left(&self, caller: &Caller<'_>, captures: &Captures) -> Result<Option<Message>, TemplateError> {
        self.message(&self.left, caller, captures)
    }

    fn message(
        &self,
        message: &Option<MessageRule>,
        caller: &Caller<'_>,
        captures: &Captures,
    ) -> Result<Option<Message>, TemplateError> {
        let values = Values { captures: &captures.0, ..Values::of_caller(caller) };
        message.as_ref().map(|message| message.fill(&values)).transpose()
    }
}

/// A compiled `[[on]]` table.
#[derive(Debug)]
pub struct OnRule {
    forward: bool,
    join: Vec<RoomTemplate>,
    leave: Vec<RoomTemplate>,
    reply: Option<MessageRule>,
    emit: Vec<EmitRule>,
    ack: Option<ArgsTemplate>,
    on_error: Option<MessageRule>,
    ack_error: Option<ArgsTemplate>,
}

impl OnRule {
    /// Whether the event is forwarded to the backend, before anything else.
    pub fn forward(&self) -> bool {
        self.forward
    }

    /// Rooms to join.
    pub fn joins(&self, call: &Call<'_>) -> Result<Vec<Room>, TemplateError> {
        let values = Values::of_call(call);
        self.join.iter().map(|room| room.fill(&values)).collect()
    }

    /// Rooms to leave.
    pub fn leaves(&self, call: &Call<'_>) -> Result<Vec<Room>, TemplateError> {
        let values = Values::of_call(call);
        self.leave.iter().map(|room| room.fill(&values)).collect()
    }

    /// The event for the caller.
    pub fn reply(&self, call: &Call<'_>) -> Result<Option<Message>, TemplateError> {
        self.reply.as_ref().map(|message| message.fill(&Values::of_call(call))).transpose()
    }

    /// The events for rooms.
    pub fn emits(&self, call: &Call<'_>) -> Result<Vec<Emission>, TemplateError> {
        let values = Values::of_call(call);
        self.emit.iter().map(|emit| emit.fill(&values)).collect()
    }

    /// The acknowledgement's arguments; `None`: the rule has none.
    pub fn ack(&self, call: &Call<'_>) -> Result<Option<Args>, TemplateError> {
        self.ack.as_ref().map(|args| args.fill(&Values::of_call(call))).transpose()
    }

    /// The event for the caller after a failure; `None` also if the template cannot be filled.
    pub fn on_error(&self, call: &Call<'_>, error: Problem<'_>) -> Option<Message> {
        let values = Values { error: Some(error), ..Values::of_call(call) };
        self.on_error.as_ref().and_then(|message| message.fill(&values).ok())
    }

    /// The acknowledgement after a failure; `None` also if the template cannot be filled.
    pub fn ack_error(&self, call: &Call<'_>, error: Problem<'_>) -> Option<Args> {
        let values = Values { error: Some(error), ..Values::of_call(call) };
        self.ack_error.as_ref().and_then(|args| args.fill(&values).ok())
    }
}
