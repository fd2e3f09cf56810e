//! What Socket.IO's Redis emitters and adapters publish (wire sheet D1, D2, D6). Sans-IO.
//!
//! | channel | what |
//! |---|---|
//! | `<key>#<nsp>#[<room>#]` | broadcasts: `[uid, packet, opts]`, or `[packet, opts]` of old emitters; MessagePack or JSON. The channel is only a filter for those who subscribe by room, `opts` decides |
//! | `<key>-request#<nsp>#` | commands ([`crate::bridge::command`]) |
//! | `<key>` | python-socketio ([`crate::bridge::python`]) |
//!
//! Taken as the stock receiver and old emitters have it: `rooms`, `except` and `flags` may be missing, null, an empty
//! string or an empty list; no `nsp` is `/`; packet type 5 is 2; numbers are names of rooms and events, and since names are
//! text here, `42`, `42.0` and `"42"` are the same. No rooms are everybody in the namespace.

use crate::bridge::{command, python};
use crate::model::args::{Args, MAX_JSON_DEPTH, json_depth};
use crate::model::command::{Action, Selector};
use crate::model::draft::{Draft, DraftError, DraftLimits, Source, check_room_name};
use crate::model::names::EVERYBODY;
use crate::model::names::{MAIN_NAMESPACE, Namespace, Room};
use crate::model::number::number_text;
use crate::protocol::json_text;
use crate::protocol::msgpack;
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
    /// `socketsJoin`, `socketsLeave`, `disconnectSockets`.
    SessionCommand(Directive),
    /// Something between the Node servers themselves, which is none of our business.
    Foreign,
}

/// An order before it has a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Directive {
    /// Where.
    pub namespace: Namespace,
    /// For whom.
    pub selector: Selector,
    /// What.
    pub act: Action,
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitterError {
    /// No event that clients could take, or not even that.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// Not MessagePack that JSON can show.
    #[error(transparent)]
    Msgpack(#[from] MsgpackError),
    /// A Python pickle, which nobody can read without running what is in it.
    #[error(
        "it is a Python pickle, which is never read; upgrade the publisher to python-socketio 5.14 or later, which \
         publishes JSON"
    )]
    Pickle,
    /// The publisher wants the clients' acknowledgements, which only its own servers can collect.
    #[error(
        "broadcasts that ask clients for acknowledgements are not delivered; emit without `timeout` and \
         callback"
    )]
    Acknowledgements,
    /// A packet that is no event.
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

/// Reads a message that was published on a channel of `key`.
///
/// # Errors
/// See [`EmitterError`].
pub fn decode(key: &str, channel: &str, message: &[u8], limits: &DraftLimits) -> Result<Request, EmitterError> {
    let Some(rest) = channel.strip_prefix(key) else { return Ok(Request::Foreign) };
    if rest.is_empty() {
        return python::decode(message, limits);
    }
    if let Some(namespace) = rest.strip_prefix("-request#") {
        return command::decode(namespace.trim_end_matches('#'), message, limits);
    }
    match message.first() {
        Some(0x90..=0x9f | 0xdc | 0xdd) => broadcast(&msgpack::to_json(message, most_json(limits))?, limits),
        Some(b'[') => broadcast(text(message, limits)?, limits),
        Some(0x80..=0x8f | 0xde | 0xdf) => between_servers(&msgpack::to_json(message, most_json(limits))?),
        Some(b'{') => between_servers(text(message, limits)?),
        _ => Err(DraftError::Json("neither a MessagePack array nor a JSON one".into()).into()),
    }
}

/// Bytes of JSON text that a message may come to: the arguments and, generously, all the names.
pub(super) fn most_json(limits: &DraftLimits) -> usize {
    limits.max_event + 2 * limits.rooms * (6 * limits.room_name_bytes + 16) + 4096
}

/// A message as JSON text whose depth is bounded.
pub(super) fn text<'a>(message: &'a [u8], limits: &DraftLimits) -> Result<&'a str, EmitterError> {
    if message.len() > most_json(limits) {
        return Err(DraftError::TooBig { bytes: message.len(), max: limits.max_event }.into());
    }
    let text = std::str::from_utf8(message).map_err(|_| DraftError::Json("not UTF-8".into()))?;
    match json_depth(text) > MAX_JSON_DEPTH {
        true => Err(DraftError::Json(format!("nested deeper than {MAX_JSON_DEPTH} levels")).into()),
        false => Ok(text),
    }
}

/// Parses JSON text into the shape that is expected there.
pub(super) fn parse<'a, T: Deserialize<'a>>(what: &str, json: &'a str) -> Result<T, EmitterError> {
    serde_json::from_str(json).map_err(|error| DraftError::Json(format!("{what}: {error}")).into())
}

/// The streams adapter's servers ask each other on the channels of the classic one's broadcasts (wire sheet D4).
fn between_servers(json: &str) -> Result<Request, EmitterError> {
    #[derive(Deserialize)]
    struct Message {
        r#type: Option<u32>,
    }
    match parse::<Message>("message", json)?.r#type {
        Some(3) => Err(EmitterError::Acknowledgements),
        _ => Ok(Request::Foreign),
    }
}

fn broadcast(json: &str, limits: &DraftLimits) -> Result<Request, EmitterError> {
    let parts: Vec<&RawValue> = parse("message", json)?;
    let (packet, opts) = match parts[..] {
        [_, packet, opts] | [packet, opts] => (packet, opts),
        _ => return Err(DraftError::Field("the array must have two or three items".into()).into()),
    };
    event(&parse("packet", packet.get())?, &parse("options", opts.get())?, None, limits)
}

/// A Socket.IO packet; the other keys it may have do not matter here.
#[derive(Deserialize)]
pub(super) struct Packet<'a> {
    r#type: Option<u32>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    nsp: Option<String>,
}

/// Whom it is for, as publishers write it.
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

/// A value as a tree. Serde's own refuses half of a surrogate pair.
pub(super) fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    json_text::value(<&RawValue>::deserialize(deserializer)?.get()).map_err(serde::de::Error::custom)
}

impl Opts {
    /// Everybody in any of the rooms, or in the namespace, but those in none of the others.
    pub(super) fn selector(&self, limits: &DraftLimits) -> Result<Selector, EmitterError> {
        Ok(Selector::RoomsExcept {
            rooms: names("rooms", &self.rooms, limits)?,
            except: names("except", &self.except, limits)?,
        })
    }
}

/// The draft of a packet. `namespace`: where the packet itself does not say.
pub(super) fn event(
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
    draft(Parts {
        namespace: slashed(packet.nsp.as_deref().or(namespace).unwrap_or(MAIN_NAMESPACE)),
        rooms: names("rooms", &opts.rooms, limits)?,
        except: names("except", &opts.except, limits)?,
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

/// What a draft is made of.
pub(super) struct Parts<'a> {
    pub namespace: Namespace,
    pub rooms: Vec<Room>,
    pub except: Vec<Room>,
    pub event: String,
    pub args: &'a [&'a RawValue],
    pub volatile: bool,
    pub limits: &'a DraftLimits,
}

/// Puts a draft together and checks it.
pub(super) fn draft(parts: Parts<'_>) -> Result<Request, EmitterError> {
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
    };
    check_draft(&draft, parts.limits)?;
    Ok(Request::Event(Box::new(draft)))
}

/// `of("admin")` of some emitters leaves the slash out.
pub(super) fn slashed(namespace: &str) -> Namespace {
    if namespace.starts_with('/') { namespace.into() } else { format!("/{namespace}").into() }
}

/// A list of room names, in all the ways in which publishers write an empty one. A number alone is a list of one, since it
/// can be nothing else; a text alone is refused, as the stock receiver takes it for a list of characters.
pub(super) fn names(what: &str, value: &Value, limits: &DraftLimits) -> Result<Vec<Room>, EmitterError> {
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

#[cfg(test)]
pub(super) mod tests;
