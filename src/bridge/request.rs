//! What publishers ask for, and the pieces that all of their formats share. Sans-IO.
//!
//! Taken as the stock receiver and old emitters have it (docs/protocol/emitters.md section 6): `rooms`, `except` and
//! `flags` may be missing, null, an empty string or an empty list; no `nsp` is `/`; packet type 5 is 2; numbers are names of
//! rooms and events. Since names are text here, `42`, `42.0` and `"42"` are the same. No rooms are everybody in the
//! namespace.

use crate::model::args::{Args, MAX_JSON_DEPTH, is_too_deep};
use crate::model::command::{Action, Selector};
use crate::model::draft::{Draft, DraftError, DraftLimits, Source, check_room_name};
use crate::model::names::{EVERYBODY, MAIN_NAMESPACE, Namespace, Room};
use crate::model::number::number_text;
use crate::protocol::json_text;
use crate::protocol::msgpack::MsgpackError;
use crate::protocol::socketio_encode::check_draft;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What a message asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// An event.
    Event(Box<Draft>),
    /// `socketsJoin`, `socketsLeave` or `disconnectSockets`.
    SessionCommand(Directive),
    /// Something between Node servers, which is ignored.
    Foreign,
}

/// A session command before it has an id.
#[derive(Clone, Debug, PartialEq)]
pub struct Directive {
    /// The sessions' namespace.
    pub namespace: Namespace,
    /// The sessions.
    pub selector: Selector,
    /// What is done to them.
    pub action: Action,
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitterError {
    /// The event breaks a limit, or the message is not even an event.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// Not MessagePack, or nothing that JSON can express.
    #[error(transparent)]
    Msgpack(#[from] MsgpackError),
    /// A Python pickle. Reading one would run the code in it.
    #[error(
        "the message is a Python pickle, which is never read; upgrade the publisher to python-socketio 5.14 or later, \
         which publishes JSON"
    )]
    Pickle,
    /// The publisher wants the clients' acknowledgements, which only its own servers can collect.
    #[error("broadcasts that ask clients for acknowledgements are not delivered; emit without `timeout` and callback")]
    Acknowledgements,
    /// A packet that is not an event.
    #[error("the packet's `type` must be 2 or 5, an event")]
    PacketType,
}

impl EmitterError {
    /// The `reason` of `roomcast_events_refused_total`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Draft(error) => error.code(),
            Self::Msgpack(_) => "bad_msgpack",
            Self::Pickle => "pickle",
            Self::Acknowledgements => "ack_unsupported",
            Self::PacketType => "bad_packet_type",
        }
    }
}

/// Bytes of JSON text that a message may have: the arguments and, generously, all names.
pub(super) fn max_json_bytes(limits: &DraftLimits) -> usize {
    limits.max_event + 2 * limits.rooms * (6 * limits.room_name_bytes + 16) + 4096
}

/// A message as JSON text whose depth is bounded.
pub(super) fn text<'a>(message: &'a [u8], limits: &DraftLimits) -> Result<&'a str, EmitterError> {
    if message.len() > max_json_bytes(limits) {
        return Err(DraftError::TooBig { bytes: message.len(), max: limits.max_event }.into());
    }
    let text = std::str::from_utf8(message).map_err(|_| DraftError::Json("not UTF-8".into()))?;
    match is_too_deep(text) {
        true => Err(DraftError::Json(format!("nested deeper than {MAX_JSON_DEPTH} levels")).into()),
        false => Ok(text),
    }
}

/// Parses JSON text into the shape that is expected there.
pub(super) fn parse<'a, T: Deserialize<'a>>(what: &str, json: &'a str) -> Result<T, EmitterError> {
    serde_json::from_str(json).map_err(|error| DraftError::Json(format!("{what}: {error}")).into())
}

/// A Socket.IO packet. Its other keys do not matter here.
#[derive(Deserialize)]
pub(super) struct Packet<'a> {
    r#type: Option<u32>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    nsp: Option<String>,
}

/// The receivers, as publishers write them.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Opts {
    #[serde(deserialize_with = "value")]
    pub rooms: Value,
    #[serde(deserialize_with = "value")]
    pub except: Value,
    #[serde(deserialize_with = "value")]
    pub flags: Value,
}

/// A value as a tree. Serde's own decoder refuses half of a surrogate pair.
pub(super) fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    json_text::value(<&RawValue>::deserialize(deserializer)?.get()).map_err(serde::de::Error::custom)
}

impl Opts {
    /// Everybody in any of `rooms`, or in the namespace where there are none, except members of `except`.
    pub(super) fn selector(&self, limits: &DraftLimits) -> Result<Selector, EmitterError> {
        Ok(Selector::RoomsExcept {
            rooms: room_names("rooms", &self.rooms, limits)?,
            except: room_names("except", &self.except, limits)?,
        })
    }
}

/// The event of a packet. `namespace` is used where the packet has none.
pub(super) fn packet_event(
    packet: &Packet<'_>,
    opts: &Opts,
    namespace: Option<&str>,
    limits: &DraftLimits,
) -> Result<Request, EmitterError> {
    if !matches!(packet.r#type, Some(2 | 5)) {
        return Err(EmitterError::PacketType);
    }
    let data: Vec<&RawValue> = match packet.data {
        Some(data) => parse("data", data.get())?,
        None => Vec::new(),
    };
    let Some((event, args)) = data.split_first() else {
        return Err(DraftError::Field("`data` must begin with the event's name".into()).into());
    };
    event_of(EventParts {
        namespace: with_slash(packet.nsp.as_deref().or(namespace).unwrap_or(MAIN_NAMESPACE)),
        rooms: room_names("rooms", &opts.rooms, limits)?,
        except: room_names("except", &opts.except, limits)?,
        event: event_name(event)?,
        args,
        volatile: opts.flags.get("volatile") == Some(&Value::Bool(true)),
        limits,
    })
}

/// The event's name: a string, or a number.
pub(super) fn event_name(event: &RawValue) -> Result<String, EmitterError> {
    let name = json_text::text(event.get()).map(Cow::into_owned);
    name.ok_or_else(|| DraftError::Field("the event's name must be a string or a number".into()).into())
}

/// The parts of an event.
pub(super) struct EventParts<'a> {
    pub namespace: Namespace,
    pub rooms: Vec<Room>,
    pub except: Vec<Room>,
    pub event: String,
    pub args: &'a [&'a RawValue],
    pub volatile: bool,
    pub limits: &'a DraftLimits,
}

/// Makes an event of its parts and checks it.
pub(super) fn event_of(parts: EventParts<'_>) -> Result<Request, EmitterError> {
    let args: Vec<&str> = parts.args.iter().map(|arg| arg.get()).collect();
    let count = u32::try_from(args.len()).map_err(|_| DraftError::Field("too many arguments".into()))?;
    let draft = Draft {
        namespace: parts.namespace,
        rooms: if parts.rooms.is_empty() { vec![EVERYBODY.into()] } else { parts.rooms },
        except: parts.except,
        event: parts.event.into(),
        args: Args::trusted(format!("[{}]", args.join(",")), count),
        volatile: parts.volatile,
        id: None,
        source: Source::Emitter,
        trace: None,
    };
    check_draft(&draft, parts.limits)?;
    Ok(Request::Event(Box::new(draft)))
}

/// Some emitters write `of("admin")` without the slash.
pub(super) fn with_slash(namespace: &str) -> Namespace {
    if namespace.starts_with('/') { namespace.into() } else { format!("/{namespace}").into() }
}

/// A list of room names. Publishers write an empty one in several ways. A number alone is a list of one, since it can be
/// nothing else. A text alone is refused: the stock receiver takes it for a list of characters.
pub(super) fn room_names(what: &str, value: &Value, limits: &DraftLimits) -> Result<Vec<Room>, EmitterError> {
    let wrong = || DraftError::Field(format!("`{what}` must be a list of room names"));
    let items = match value {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) if text.is_empty() => return Ok(Vec::new()),
        Value::Array(items) if items.len() > limits.rooms => {
            return Err(DraftError::TooManyRooms { max: limits.rooms }.into());
        }
        Value::Array(items) => &items[..],
        Value::Number(_) => std::slice::from_ref(value),
        _ => return Err(wrong().into()),
    };
    let name = |item: &Value| -> Result<Room, EmitterError> {
        let name: Room = match item {
            Value::String(name) => name.as_str().into(),
            Value::Number(number) => number_text(&number.to_string()).into(),
            _ => return Err(wrong().into()),
        };
        check_room_name(&name, limits.room_name_bytes)?;
        Ok(name)
    };
    items.iter().map(name).collect()
}
