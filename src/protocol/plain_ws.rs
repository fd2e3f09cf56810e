//! The messages of `/ws`: one JSON object in each text frame (docs/protocol/websocket.md).

use crate::model::args::{Args, ArgsError, MAX_JSON_DEPTH, is_too_deep};
use crate::model::event::Event;
use crate::protocol::event_fields::is_empty_list;
use crate::protocol::json_text::{name, unquote};
use crate::protocol::raw_json::{Quoted, push_string, string_len};
use crate::protocol::socketio_encode::OffsetText;
use crate::protocol::websocket::{Opcode, header_len, push_header};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Bytes of an `id`, quotes included. It is kept until the answer.
pub const MAX_ID: usize = 256;
/// No message has more keys.
const MAX_KEYS: usize = 8;

/// A message from a client.
#[derive(Clone, Debug)]
pub enum ClientMessage {
    /// Authenticates, or renews the token.
    Auth {
        /// The token.
        token: String,
    },
    /// Joins a room.
    Join {
        /// The room.
        room: String,
        /// Replay the events after this offset.
        since: Option<String>,
        /// Echoed in the answer.
        id: Option<Box<RawValue>>,
    },
    /// Leaves a room.
    Leave {
        /// The room.
        room: String,
        /// Echoed in the answer.
        id: Option<Box<RawValue>>,
    },
    /// An event for an `[[on]]` rule.
    Event {
        /// Its name.
        event: String,
        /// The arguments in `args`, the one in `data`, or none.
        args: Args,
        /// Asks for an acknowledgement, which echoes it.
        id: Option<Box<RawValue>>,
    },
    /// Asks for a pong.
    Ping,
}

/// Why a message is refused, and its id if that could be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}")]
pub struct JsonError {
    /// What was wrong.
    pub kind: JsonErrorKind,
    /// The message's id.
    pub id: Option<Box<RawValue>>,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// Not a JSON object, or deeper than the limit; the parser's message.
    #[error("the message must be one JSON object: {0}")]
    BadJson(String),
    /// `type` is missing or unknown.
    #[error("`type` must be \"auth\", \"join\", \"leave\", \"event\" or \"ping\", not {0}")]
    UnknownType(String),
    /// A key that this type needs is missing.
    #[error("`{0}` is missing")]
    MissingKey(&'static str),
    /// A key that this type does not have.
    #[error("this type of message has no key `{0}`")]
    UnknownKey(String),
    /// A key is there twice.
    #[error("`{0}` is given twice")]
    DuplicateKey(String),
    /// More keys than any message has.
    #[error("a message has at most {MAX_KEYS} keys")]
    TooManyKeys,
    /// A key, and what its value must be.
    #[error("`{0}` must be {1}")]
    WrongType(&'static str, &'static str),
    /// An event has both `data` and `args`.
    #[error("give `data` (one argument) or `args` (a list), not both")]
    DataAndArgs,
}

impl JsonError {
    /// The `code` of the error message.
    pub fn code(&self) -> &'static str {
        match self.kind {
            JsonErrorKind::BadJson(_) => "bad_json",
            JsonErrorKind::UnknownType(_) => "unknown_type",
            JsonErrorKind::MissingKey(_) => "missing_key",
            JsonErrorKind::UnknownKey(_) => "unknown_key",
            JsonErrorKind::DuplicateKey(_) => "duplicate_key",
            JsonErrorKind::TooManyKeys => "too_many_keys",
            JsonErrorKind::WrongType(..) => "bad_field",
            JsonErrorKind::DataAndArgs => "data_and_args",
        }
    }
}

/// Reads a client's message.
pub fn parse(text: &str) -> Result<ClientMessage, JsonError> {
    let without_id = |kind| JsonError { kind, id: None };
    if is_too_deep(text) {
        let why = format!("nested deeper than {MAX_JSON_DEPTH} levels");
        return Err(without_id(JsonErrorKind::BadJson(why)));
    }
    let mut fields: Fields<'_> =
        serde_json::from_str(text).map_err(|error| without_id(JsonErrorKind::BadJson(error.to_string())))?;
    let id = fields.id().map_err(without_id)?;
    fields.message(id.clone()).map_err(|kind| JsonError { kind, id })
}

/// The keys of a message and their raw values, in order. Those over the limit are only counted.
struct Fields<'a> {
    pairs: Vec<(Cow<'a, str>, &'a RawValue)>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a \"type\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields { pairs: Vec::with_capacity(MAX_KEYS), count: 0 };
                while let Some((key, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                    fields.count += 1;
                    if fields.count <= MAX_KEYS {
                        fields.pairs.push((unquote(key.get()).unwrap_or_default(), value));
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

type Checked<T> = Result<T, JsonErrorKind>;

impl Fields<'_> {
    fn take(&mut self, key: &str) -> Option<&str> {
        let at = self.pairs.iter().position(|(name, _)| name == key)?;
        Some(self.pairs.swap_remove(at).1.get())
    }

    fn text(&mut self, key: &'static str) -> Checked<Option<String>> {
        let Some(raw) = self.take(key) else { return Ok(None) };
        unquote(raw).map(|text| Some(text.into_owned())).ok_or(JsonErrorKind::WrongType(key, "a string"))
    }

    fn needed(&mut self, key: &'static str) -> Checked<String> {
        self.text(key)?.ok_or(JsonErrorKind::MissingKey(key))
    }

    /// A room: its name, or a number as JavaScript writes it.
    fn room(&mut self) -> Checked<String> {
        let raw = self.take("room").ok_or(JsonErrorKind::MissingKey("room"))?;
        name(raw).map(Cow::into_owned).ok_or(JsonErrorKind::WrongType("room", "a string"))
    }

    /// Typed languages write every key, with `null`, an empty text or `[]` for absent ones. An empty `room`, `event` or
    /// `token` that the message needs is an error nevertheless, and a single `"data":null` is an argument.
    fn drop_zero_values(&mut self, kind: &str) {
        let has_args = self.pairs.iter().any(|(key, value)| key == "args" && value.get() != "null");
        let has_data = self.pairs.iter().any(|(key, value)| key == "data" && value.get() != "null");
        self.pairs.retain(|(key, value)| {
            let is_value = match value.get() {
                "null" => key == "data" && kind == "event" && !has_args,
                "\"\"" => known_keys(kind).contains(&&**key) && key != "since",
                list if key == "args" && is_empty_list(list) => kind == "event" && !has_data,
                _ => true,
            };
            is_value || !KEYS.contains(&&**key)
        });
    }

    fn id(&mut self) -> Checked<Option<Box<RawValue>>> {
        const WANTED: JsonErrorKind = JsonErrorKind::WrongType("id", "a string or a number of at most 256 bytes");
        let Some(at) = self.pairs.iter().position(|(name, _)| name == "id") else { return Ok(None) };
        let raw = self.pairs.swap_remove(at).1;
        match raw.get().as_bytes() {
            b"null" => Ok(None),
            [b'"' | b'-' | b'0'..=b'9', ..] if raw.get().len() <= MAX_ID => Ok(Some(raw.to_owned())),
            _ => Err(WANTED),
        }
    }

    fn message(&mut self, id: Option<Box<RawValue>>) -> Checked<ClientMessage> {
        if self.count > MAX_KEYS {
            return Err(JsonErrorKind::TooManyKeys);
        }
        let Some(kind) = self.take("type") else { return Err(JsonErrorKind::MissingKey("type")) };
        let kind = match unquote(kind).as_deref() {
            Some(kind @ ("auth" | "join" | "leave" | "event" | "ping")) => kind.to_owned(),
            _ => return Err(JsonErrorKind::UnknownType(shown(kind))),
        };
        self.drop_zero_values(&kind);
        let has_id = id.is_some();
        let (message, takes_id) = match kind.as_str() {
            "auth" => (ClientMessage::Auth { token: self.needed("token")? }, false),
            "join" => {
                let (room, since) = (self.room()?, self.text("since")?);
                (ClientMessage::Join { room, since, id }, true)
            }
            "leave" => (ClientMessage::Leave { room: self.room()?, id }, true),
            "event" => {
                let (event, args) = (self.needed("event")?, self.args()?);
                (ClientMessage::Event { event, args, id }, true)
            }
            _ => (ClientMessage::Ping, false),
        };
        self.nothing_left(&kind)?;
        if has_id && !takes_id { Err(JsonErrorKind::UnknownKey("id".into())) } else { Ok(message) }
    }

    fn args(&mut self) -> Checked<Args> {
        let data = self.take("data").map(Args::one);
        let list = self.take("args").map(Args::list);
        match (data, list) {
            (Some(_), Some(_)) => Err(JsonErrorKind::DataAndArgs),
            (Some(args), None) => args.map_err(|error: ArgsError| JsonErrorKind::BadJson(error.to_string())),
            (None, Some(args)) => args.map_err(|_| JsonErrorKind::WrongType("args", "an array")),
            (None, None) => Ok(Args::none()),
        }
    }

    /// The remaining keys are duplicates or not of this type.
    fn nothing_left(&self, kind: &str) -> Checked<()> {
        let known = known_keys(kind);
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) if known.contains(&key.as_ref()) => Err(JsonErrorKind::DuplicateKey(key.to_string())),
            Some((key, _)) => Err(JsonErrorKind::UnknownKey(shown(key))),
        }
    }
}

/// Every key of every type.
const KEYS: [&str; 8] = ["type", "id", "token", "room", "since", "event", "data", "args"];

/// The keys of a type.
fn known_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "auth" => &["type", "id", "token"],
        "join" => &["type", "id", "room", "since"],
        "leave" => &["type", "id", "room"],
        "event" => &["type", "id", "event", "data", "args"],
        _ => &["type", "id"],
    }
}

/// The start of an untrusted text, for an error message.
fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

/// The first message: the session, the user as raw JSON (`null`: anonymous), and the interval of the server's pings.
pub fn welcome(session: &str, user: Option<&str>, heartbeat_seconds: u64) -> String {
    let user = user.unwrap_or("null");
    let session = Quoted(session);
    format!(r#"{{"type":"welcome","session":{session},"user":{user},"heartbeat_seconds":{heartbeat_seconds}}}"#)
}

/// Confirms a join. Events after `offset` follow; `recovered` answers a `since`.
pub fn joined(room: &str, offset: Option<&str>, recovered: Option<bool>, id: Option<&RawValue>) -> String {
    let offset = offset.map_or_else(|| "null".to_owned(), |offset| Quoted(offset).to_string());
    let recovered = recovered.map_or_else(String::new, |recovered| format!(",\"recovered\":{recovered}"));
    format!(r#"{{"type":"joined","room":{},"offset":{offset}{recovered}{}}}"#, Quoted(room), Id(id))
}

/// Confirms a leave.
pub fn left(room: &str, id: Option<&RawValue>) -> String {
    format!(r#"{{"type":"left","room":{}{}}}"#, Quoted(room), Id(id))
}

/// Acknowledges an event.
pub fn ack(id: &RawValue, args: &Args) -> String {
    let (key, value) = data_or_args(args);
    format!(r#"{{"type":"ack","id":{},"{key}":{value}}}"#, id.get())
}

/// Refuses a message.
pub fn error(code: &str, message: &str, id: Option<&RawValue>) -> String {
    format!(r#"{{"type":"error","code":{},"message":{}{}}}"#, Quoted(code), Quoted(message), Id(id))
}

/// Refuses a message that may be sent again after `retry_after_ms`.
pub fn retry_error(code: &str, message: &str, retry_after_ms: u64, id: Option<&RawValue>) -> String {
    let (code, message, id) = (Quoted(code), Quoted(message), Id(id));
    format!(r#"{{"type":"error","code":{code},"message":{message},"retry_after_ms":{retry_after_ms}{id}}}"#)
}

/// Tells that events of a room may be missing.
pub fn gap(room: &str) -> String {
    format!(r#"{{"type":"gap","room":{}}}"#, Quoted(room))
}

/// Announces the close of the connection; `retry_after_ms` is `null` if the client should not reconnect.
pub fn closing(reason: &str, retry_after_ms: Option<u64>) -> String {
    let retry = retry_after_ms.map_or_else(|| "null".to_owned(), |ms| ms.to_string());
    format!(r#"{{"type":"closing","reason":{},"retry_after_ms":{retry}}}"#, Quoted(reason))
}

/// Answers a ping.
pub fn pong() -> String {
    r#"{"type":"pong"}"#.to_owned()
}

/// An event, for a member of one of its rooms.
pub fn event(event: &Event, room: &str) -> String {
    event_at(event, room, OffsetText::default().write(&event.offset))
}

/// The same with the text of a place.
pub fn event_at(event: &Event, room: &str, offset: &str) -> String {
    let mut out = Vec::new();
    push_event(&mut out, event, room, offset);
    String::from_utf8(out).expect("an event is composed of strings and ASCII only")
}

/// An event as a complete WebSocket text frame that names the first of its rooms. One allocation.
pub fn event_frame(event: &Event) -> Bytes {
    event_frame_at(event, OffsetText::default().write(&event.offset))
}

/// The same with the text of a place.
pub fn event_frame_at(event: &Event, offset: &str) -> Bytes {
    let room = event.draft.rooms.first().map_or("", |room| room);
    let payload = event_len(event, room, offset);
    let mut out = Vec::with_capacity(header_len(payload) + payload);
    push_header(&mut out, Opcode::Text, payload);
    push_event(&mut out, event, room, offset);
    out.into()
}

const EVENT: [&str; 5] = ["{\"type\":\"event\",\"room\":", ",\"event\":", ",\"", "\":", ",\"offset\":\""];

fn event_len(event: &Event, room: &str, offset: &str) -> usize {
    let (key, value) = data_or_args(&event.draft.args);
    let fixed: usize = EVENT.iter().map(|piece| piece.len()).sum();
    fixed + string_len(room) + string_len(&event.draft.event) + key.len() + value.len() + offset.len() + 2
}

fn push_event(out: &mut Vec<u8>, event: &Event, room: &str, offset: &str) {
    let (key, value) = data_or_args(&event.draft.args);
    out.extend_from_slice(EVENT[0].as_bytes());
    push_string(out, room);
    out.extend_from_slice(EVENT[1].as_bytes());
    push_string(out, &event.draft.event);
    for piece in [EVENT[2], key, EVENT[3], value, EVENT[4], offset, "\"}"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// `data` for exactly one argument, else `args`.
fn data_or_args(args: &Args) -> (&'static str, &str) {
    args.single().map_or_else(|| ("args", args.as_array()), |data| ("data", data))
}

/// The echoed id, after the other keys.
struct Id<'a>(Option<&'a RawValue>);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |id| write!(f, ",\"id\":{}", id.get()))
    }
}

#[cfg(test)]
mod tests;
