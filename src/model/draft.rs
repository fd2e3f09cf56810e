//! A published event that the log has not accepted yet, and its limits.

use crate::model::args::Args;
use crate::model::names::{EVERYBODY, MAIN_NAMESPACE, Namespace, Room};
use crate::model::trace_context::TraceContext;
use std::sync::Arc;

/// Event names that stock Socket.IO clients treat as a protocol violation (docs/protocol/socketio.md sections 3.3 and
/// 3.4).
pub const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// At most this many binary attachments in one event; stock clients drop the connection at 11
/// (docs/protocol/socketio.md section 3.4).
pub const MAX_ATTACHMENTS: usize = 10;

/// Where an event came from; the `source` label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `POST /publish`.
    Http,
    /// An `XADD` by another program.
    Stream,
    /// A Socket.IO Redis emitter or adapter.
    Emitter,
    /// A client's event, through an `[[on]]` rule.
    Client,
    /// The backend's answer to a forwarded event.
    Backend,
}

impl Source {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Http, Self::Stream, Self::Emitter, Self::Client, Self::Backend];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Stream => "stream",
            Self::Emitter => "emitter",
            Self::Client => "client",
            Self::Backend => "backend",
        }
    }
}

/// An event that the log has not accepted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The namespace of its rooms.
    pub namespace: Namespace,
    /// The members of any of these get it. The id of a session is a room with that one member.
    pub rooms: Vec<Room>,
    /// Members of these do not get it.
    pub except: Vec<Room>,
    /// The event's name.
    pub event: Arc<str>,
    /// Its arguments.
    pub args: Args,
    /// Not stored, not replayed, and dropped for a receiver that is not writable.
    pub volatile: bool,
    /// Idempotency key: a repeat within five minutes gets the offset of the first and is not published again.
    pub id: Option<String>,
    /// Who published it.
    pub source: Source,
    /// The span that it belongs to; `None` unless its trace is recorded.
    pub trace: Option<Box<TraceContext>>,
}

impl Draft {
    /// A draft to one room of the main namespace.
    pub fn new(room: &str, event: &str, args: Args, source: Source) -> Self {
        Self {
            namespace: MAIN_NAMESPACE.into(),
            rooms: vec![room.into()],
            except: Vec::new(),
            event: event.into(),
            args,
            volatile: false,
            id: None,
            source,
            trace: None,
        }
    }

    /// Whether it goes to every session of the namespace.
    pub fn is_for_everybody(&self) -> bool {
        self.source == Source::Emitter && matches!(&self.rooms[..], [room] if **room == *EVERYBODY)
    }

    /// Checks the limits, each of which has its [`DraftError`].
    pub fn check(&self, limits: &DraftLimits) -> Result<(), DraftError> {
        if self.rooms.is_empty() {
            return Err(DraftError::NoRoom);
        }
        if self.rooms.len() > limits.rooms || self.except.len() > limits.rooms {
            return Err(DraftError::TooManyRooms { max: limits.rooms });
        }
        let named = if self.is_for_everybody() { &[] } else { &self.rooms[..] };
        for room in named.iter().chain(&self.except) {
            check_room_name(room, limits.room_name_bytes)?;
        }
        if !self.namespace.starts_with('/') || self.namespace.len() > limits.room_name_bytes {
            return Err(DraftError::Namespace(shown(&self.namespace)));
        }
        match self.source {
            // Emitters may send an empty name, and Socket.IO servers deliver it.
            Source::Emitter if self.event.is_empty() => {}
            _ => check_event_name(&self.event, limits.room_name_bytes)?,
        }
        if self.id.as_ref().is_some_and(|id| id.is_empty() || id.len() > limits.room_name_bytes) {
            return Err(DraftError::Id { max: limits.room_name_bytes });
        }
        if self.args.len() > limits.max_event {
            return Err(DraftError::TooBig { bytes: self.args.len(), max: limits.max_event });
        }
        Ok(())
    }
}

/// A room name: 1 to `max` bytes, no control characters.
pub fn check_room_name(room: &str, max: usize) -> Result<(), DraftError> {
    match room.is_empty() || room.len() > max || room.chars().any(char::is_control) {
        true => Err(DraftError::Room { name: shown(room), max }),
        false => Ok(()),
    }
}

/// An event name: 1 to `max` bytes, no control characters, none of [`RESERVED_EVENTS`].
pub fn check_event_name(event: &str, max: usize) -> Result<(), DraftError> {
    if RESERVED_EVENTS.contains(&event) {
        return Err(DraftError::ReservedEvent(event.to_owned()));
    }
    match event.is_empty() || event.len() > max || event.chars().any(char::is_control) {
        true => Err(DraftError::EventName { name: shown(event), max }),
        false => Ok(()),
    }
}

/// The start of an untrusted text, for an error message.
fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

/// Limits of a draft, from `[publish]` and `[limits]`.
#[derive(Clone, Copy, Debug)]
pub struct DraftLimits {
    /// Bytes of arguments in one event.
    pub max_event: usize,
    /// Bytes of a room's name, and of other names and ids.
    pub room_name_bytes: usize,
    /// Rooms in `rooms`, and in `except`.
    pub rooms: usize,
}

/// What is wrong with a draft.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// Neither `room` nor `rooms`, or an empty list.
    #[error("`room` or `rooms` must name at least one room")]
    NoRoom,
    /// Longer lists than the limit.
    #[error("`rooms` and `except` take at most {max} names each")]
    TooManyRooms {
        /// The limit.
        max: usize,
    },
    /// An empty or too long room name, or one with control characters.
    #[error("room \"{name}\" must have 1 to {max} bytes and no control characters")]
    Room {
        /// Its start.
        name: String,
        /// The limit in bytes.
        max: usize,
    },
    /// A namespace that does not start with `/`, or is too long.
    #[error("namespace \"{0}\" must start with \"/\" and not be too long")]
    Namespace(String),
    /// An empty or too long event name, or one with control characters.
    #[error("event \"{name}\" must have 1 to {max} bytes and no control characters")]
    EventName {
        /// Its start.
        name: String,
        /// The limit in bytes.
        max: usize,
    },
    /// A name that makes stock clients drop their connection.
    #[error("event \"{0}\" is reserved by Socket.IO; choose another name")]
    ReservedEvent(String),
    /// An empty or too long idempotency id.
    #[error("`id` must have 1 to {max} bytes")]
    Id {
        /// The limit in bytes.
        max: usize,
    },
    /// Arguments over the limit.
    #[error("the arguments have {bytes} bytes; `publish.max_event` allows {max}")]
    TooBig {
        /// Their size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A key that is missing, of the wrong type, unknown or contradictory; the text says which.
    #[error("{0}")]
    Field(String),
    /// Not JSON, or too deep.
    #[error("{0}")]
    Json(String),
    /// More binary attachments than stock clients take.
    #[error("an event takes at most {MAX_ATTACHMENTS} binary values; Socket.IO clients drop more")]
    TooManyAttachments,
}

impl DraftError {
    /// The `code` of the error body, and the `reason` of `roomcast_events_refused_total`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRoom => "no_room",
            Self::TooManyRooms { .. } => "too_many_rooms",
            Self::Room { .. } => "bad_room",
            Self::Namespace(_) => "bad_namespace",
            Self::EventName { .. } => "bad_event_name",
            Self::ReservedEvent(_) => "reserved_event",
            Self::Id { .. } => "bad_id",
            Self::TooBig { .. } => "event_too_big",
            Self::Field(_) => "bad_field",
            Self::Json(_) => "bad_json",
            Self::TooManyAttachments => "too_many_attachments",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_kept() {
        let limits = DraftLimits { max_event: 10, room_name_bytes: 8, rooms: 2 };
        let draft = |room: &str, event: &str| Draft::new(room, event, Args::none(), Source::Http);
        assert_eq!(draft("r", "e").check(&limits), Ok(()));
        let code = |draft: Draft| draft.check(&limits).unwrap_err().code();
        assert_eq!(code(draft("", "e")), "bad_room");
        let everybody = Draft { source: Source::Emitter, ..draft(EVERYBODY, "e") };
        assert!(everybody.check(&limits).is_ok() && everybody.is_for_everybody());
        assert_eq!(code(Draft { rooms: vec![EVERYBODY.into(), "r".into()], ..everybody.clone() }), "bad_room");
        assert_eq!(code(Draft { except: vec![EVERYBODY.into()], ..everybody }), "bad_room");
        assert_eq!(code(draft("r\n", "e")), "bad_room");
        assert_eq!(code(draft("123456789", "e")), "bad_room");
        assert_eq!(code(draft("r", "")), "bad_event_name");
        assert_eq!(Draft { source: Source::Emitter, ..draft("r", "") }.check(&limits), Ok(()));
        assert_eq!(code(draft("r", "disconnect")), "reserved_event");
        assert_eq!(code(Draft { rooms: vec![], ..draft("r", "e") }), "no_room");
        assert_eq!(code(Draft { rooms: vec!["r".into(); 3], ..draft("r", "e") }), "too_many_rooms");
        assert_eq!(code(Draft { namespace: "chat".into(), ..draft("r", "e") }), "bad_namespace");
        assert_eq!(code(Draft { id: Some(String::new()), ..draft("r", "e") }), "bad_id");
        assert_eq!(code(Draft { args: Args::one("12345678901").unwrap(), ..draft("r", "e") }), "event_too_big");
    }
}
