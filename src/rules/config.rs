//! `[[rooms]]` and `[[on]]` as written in the file, before they are compiled.

use serde_json::Value;

/// `join` of a `[[rooms]]` rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinPolicy {
    /// Joined at connect, and on request.
    Auto,
    /// On request.
    Allow,
    /// The backend decides.
    Ask,
    /// Never.
    Deny,
}

impl JoinPolicy {
    /// As in the file.
    pub fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// `{ event = "…", args = […] }`.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageTemplate {
    /// The event's name, with placeholders.
    pub event: String,
    /// Its arguments, with placeholders in strings.
    pub args: Vec<Value>,
}

/// An item of `emit`.
#[derive(Clone, Debug, PartialEq)]
pub struct EmitTemplate {
    /// The room, with placeholders.
    pub room: String,
    /// The event.
    pub message: MessageTemplate,
    /// Whether it is neither stored nor replayed.
    pub volatile: bool,
    /// Whether the caller gets it too.
    pub include_caller: bool,
}

/// One `[[rooms]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomRuleConfig {
    /// The pattern.
    pub pattern: String,
    /// Who may join.
    pub join: JoinPolicy,
    /// Whether the cluster keeps the room's presence.
    pub presence: bool,
    /// Sent to the others when a user's first connection joins.
    pub joined: Option<MessageTemplate>,
    /// Sent to the others when a user's last connection has left.
    pub left: Option<MessageTemplate>,
}

/// One `[[on]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct OnRuleConfig {
    /// The namespace. Default `/`.
    pub namespace: String,
    /// The name of a client's event, or `connection` or `disconnect`.
    pub event: String,
    /// Rooms to join (a string or a list in the file).
    pub join: Vec<String>,
    /// Rooms to leave.
    pub leave: Vec<String>,
    /// Sent to the caller.
    pub reply: Option<MessageTemplate>,
    /// Sent to rooms.
    pub emit: Vec<EmitTemplate>,
    /// The acknowledgement's arguments.
    pub ack: Option<Vec<Value>>,
    /// Sent to the caller after a failure.
    pub on_error: Option<MessageTemplate>,
    /// The arguments of the acknowledgement after a failure.
    pub ack_error: Option<Vec<Value>>,
    /// Whether the event is forwarded to the backend.
    pub forward: bool,
}
