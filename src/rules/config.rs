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

/// `{ event = "…", args = […] }`.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageTemplate {
    /// The event's name, may hold placeholders.
    pub event: String,
    /// Its arguments, with placeholders in strings.
    pub args: Vec<Value>,
}

/// An item of `emit`.
#[derive(Clone, Debug, PartialEq)]
pub struct EmitTemplate {
    /// The room, with placeholders.
    pub room: String,
    /// What is emitted.
    pub message: MessageTemplate,
    /// Not stored, not replayed.
    pub volatile: bool,
    /// Whether the caller gets it too.
    pub include_caller: bool,
}

/// One `[[rooms]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomRuleConfig {
    /// The pattern.
    pub pattern: String,
    /// What happens on a join.
    pub join: JoinPolicy,
    /// Whether users are counted over the cluster.
    pub presence: bool,
    /// To the others, when a user's first connection joins.
    pub joined: Option<MessageTemplate>,
    /// To the others, when a user's last connection is gone.
    pub left: Option<MessageTemplate>,
}

/// One `[[on]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct OnRuleConfig {
    /// The namespace, `/` where not given.
    pub namespace: String,
    /// A client event's name, or `connection` or `disconnect`.
    pub event: String,
    /// Rooms to join (a string or a list in the file).
    pub join: Vec<String>,
    /// Rooms to leave.
    pub leave: Vec<String>,
    /// To the caller.
    pub reply: Option<MessageTemplate>,
    /// To rooms.
    pub emit: Vec<EmitTemplate>,
    /// The acknowledgement's arguments.
    pub ack: Option<Vec<Value>>,
    /// To the caller, when something failed.
    pub on_error: Option<MessageTemplate>,
    /// The acknowledgement, when something failed.
    pub ack_error: Option<Vec<Value>>,
    /// Whether the backend is asked.
    pub forward: bool,
}
