//! What nodes tell each other to explain why a user did or did not get an event. Fields that a node does not know are left
//! out, so that releases can add some.

use serde::{Deserialize, Serialize};

/// What is to be explained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExplainQuery {
    /// Whose sessions.
    pub user: String,
    /// In which room.
    pub room: String,
    /// Of which namespace.
    pub namespace: String,
    /// The offset of an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}

/// What one node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeExplanation {
    /// Whether clients of the node can be in the namespace.
    pub has_namespace: bool,
    /// The rule that decides on the user in this room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `auto`, `allow`, `ask` or `deny`: what that rule says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<String>,
    /// Since when it knows of all sessions of the user that have ended, in Unix milliseconds.
    pub sees_back_to_ms: u64,
    /// What it knows of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<EventView>,
    /// Other namespaces in which the user has live sessions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<String>,
    /// When clients of the user were not let in, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub turned_away: Vec<TurnedAwayView>,
    /// Sessions of the user that are live or have ended: those of most interest, if there are very many.
    pub sessions: Vec<ExplainedSession>,
    /// How many of all sessions of the user had which outcome.
    pub outcomes: Vec<(String, u64)>,
}

/// A client was not let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TurnedAwayView {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// The error code that it got.
    pub code: String,
    /// Whose client it is, is only what its refused token says.
    pub claimed: bool,
}

/// What a node knows of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventView {
    /// `kept`, `gone`, `unknown`, `ahead` or `other_log`.
    pub status: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its rooms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<String>,
    /// The rooms whose members did not get it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// A label of `roomcast_events_total`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it was accepted, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_ms: Option<u64>,
}

/// A session of the user, and what became of the event for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExplainedSession {
    /// Its id.
    pub session: String,
    /// `websocket`, `polling` or `sse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// `socketio`, `ws` or `sse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Where its client is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When it began on the node, or came back to it, in Unix milliseconds.
    pub since_ms: u64,
    /// When it ended, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<String>,
    /// Until when it may resume, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumable_until_ms: Option<u64>,
    /// Whether it is in the room, or was at its end.
    pub in_room: bool,
    /// Since when, in Unix milliseconds, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_room_since_ms: Option<u64>,
    /// What let it in: `auto`, `rule`, `grant`, `asked`, `answered` or `command`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What decided on it, or would: the rule, the claim or the command, in words.
    pub decided_by: String,
    /// When its wish to join the room was refused last, in Unix milliseconds, and the error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<(u64, String)>,
    /// Bytes that wait for its client.
    pub outbox_bytes: u64,
    /// Volatile events that it did not get because its connection could not take them, and when the last one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volatile_skipped: Option<(u64, u64)>,
    /// What became of the event, or whether it is in the room: `delivered`, `excepted`, `in_room` …
    pub outcome: String,
    /// When, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome_ms: Option<u64>,
    /// The same in words.
    pub message: String,
}

impl NodeExplanation {
    /// Bytes of it, near enough for limits.
    pub fn size(&self) -> usize {
        let of_event = |event: &EventView| event.rooms.iter().chain(&event.except).map(|room| room.len() + 3).sum();
        let event: usize = self.event.as_ref().map_or(0, of_event);
        let sessions = self.sessions.iter().map(|session| 600 + session.message.len() + session.decided_by.len());
        500 + self.turned_away.len() * 80 + event + sessions.sum::<usize>() + self.outcomes.len() * 24
    }
}
