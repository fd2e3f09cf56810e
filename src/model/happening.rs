//! What happens to clients, as operators follow it live: without payloads and tokens, unless payloads are asked for and
//! allowed.

use crate::model::id::Id;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

macro_rules! kinds {
    ($($name:ident, $label:literal, $doc:literal;)*) => {
        /// The kind of a [`Happening`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum Kind {
            $(#[doc = $doc] $name,)*
            /// One of a newer release.
            #[default]
            Unknown,
        }

        impl Kind {
            /// Its name on the wire.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* Self::Unknown => "unknown" }
            }

            fn from_label(label: &str) -> Self {
                match label { $($label => Self::$name,)* _ => Self::Unknown }
            }
        }
    };
}

kinds! {
    Handshake, "handshake", "A token was accepted, or a client without one let in.";
    Refused, "refused", "Something was refused: `reason` is one of `roomcast_refusals_total`.";
    Error, "error", "A session got an error; `reason` is its code.";
    Connected, "connected", "A session began, in `rooms`.";
    Resumed, "resumed", "A session continues on another connection, in `rooms`.";
    Upgraded, "upgraded", "A long-polling session continues on a WebSocket.";
    Disconnected, "disconnected", "A session ended, or lost its connection and may resume; `reason` is one of `roomcast_closes_total`.";
    Joined, "joined", "A session joined a room; `by` says what let it in.";
    Left, "left", "A session left a room.";
    EventIn, "event_in", "A client sent an event.";
    EventOut, "event_out", "An event for one session; `outcome` says what became of it.";
    Event, "event", "An event of the log for a room, and how many sessions received it.";
    Gap, "gap", "A client got a signal that events may be missing.";
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_label(&<Cow<'de, str>>::deserialize(deserializer)?))
    }
}

/// One thing that happened. Only what applies is set, and what a node does not know is left out, so that releases can add
/// fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Happening {
    /// When, in Unix milliseconds of its node.
    pub at_ms: u64,
    /// What.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whose client it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user is only what a refused token says.
    #[serde(skip_serializing_if = "is_false")]
    pub claimed: bool,
    /// The session's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Id>,
    /// The namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Where the client is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `websocket`, `polling` or `sse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// `socketio`, `ws` or `sse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The rooms that it concerns, as many as fit into a kilobyte.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<String>,
    /// What let a session into the room, or why it left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why it was refused or closed, as a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The event's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Bytes of its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Its offset in the log; a volatile event and a reply have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    /// The event is not stored.
    #[serde(skip_serializing_if = "is_false")]
    pub volatile: bool,
    /// What became of an event for one session: `queued`, `replayed`, `reply`, `excepted`, `behind` or `dropped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Sessions into whose outbox the event was put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receivers: Option<u64>,
    /// The event's arguments as JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Happening {
    /// Bytes of it, near enough for limits.
    pub fn size(&self) -> usize {
        let texts = [&self.user, &self.namespace, &self.by, &self.reason, &self.message, &self.event, &self.args];
        let rooms = self.rooms.iter().map(|room| room.len() + 3).sum::<usize>();
        200 + rooms + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_kinds_of_a_newer_release_are_read_over() {
        let read: Happening = serde_json::from_str(r#"{"at_ms":7,"type":"teleported","user":"7","far":[1]}"#).unwrap();
        assert_eq!((read.at_ms, read.kind, read.user.as_deref()), (7, Kind::Unknown, Some("7")));
        let text = serde_json::to_string(&Happening { kind: Kind::EventIn, ..Happening::default() }).unwrap();
        assert_eq!(text, r#"{"at_ms":0,"type":"event_in"}"#);
    }
}
