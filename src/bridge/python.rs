//! Messages of python-socketio's `RedisManager`: JSON on one channel (docs/protocol/emitters.md section 5). Versions before
//! 5.14 publish pickles, which are refused: reading one runs the code in it. Sans-IO.

use crate::bridge::request::{
    Directive, EmitterError, EventParts, Request, event_name, event_of, max_json_bytes, parse, room_names, text, value,
    with_slash,
};
use crate::model::command::{Action, Selector};
use crate::model::draft::{DraftError, DraftLimits, check_room_name};
use crate::model::names::{Namespace, Room};
use crate::protocol::base64;
use crate::protocol::json_text::Text;
use crate::protocol::raw_json;
use crate::protocol::raw_json::{Kind, Special};
use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Message<'a> {
    method: String,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    binary: Option<bool>,
    namespace: Option<String>,
    #[serde(default, deserialize_with = "value")]
    room: Value,
    #[serde(default, deserialize_with = "value")]
    skip_sid: Value,
    #[serde(default)]
    callback: Value,
    sid: Option<Text>,
}

/// Decodes a message.
pub(super) fn decode(message: &[u8], limits: &DraftLimits) -> Result<Request, EmitterError> {
    match message.first() {
        Some(b'{') => {}
        // Pickles begin with this opcode since protocol 2.
        Some(0x80) => return Err(EmitterError::Pickle),
        _ => return Err(DraftError::Json("neither JSON nor a pickle".into()).into()),
    }
    let message: Message<'_> = parse("message", text(message, limits)?)?;
    let namespace = with_slash(message.namespace.as_deref().unwrap_or("/"));
    match &*message.method {
        "emit" => emit(&message, namespace, limits),
        "enter_room" => command(&message, namespace, Action::Join, limits),
        "leave_room" => command(&message, namespace, Action::Leave, limits),
        "close_room" => {
            let rooms = some_rooms(&message, limits)?;
            let selector = Selector::RoomsExcept { rooms: rooms.clone(), except: Vec::new() };
            Ok(Request::SessionCommand(Directive { namespace, selector, action: Action::Leave(rooms) }))
        }
        "disconnect" => {
            let selector = session(&message, limits)?;
            Ok(Request::SessionCommand(Directive { namespace, selector, action: Action::Disconnect }))
        }
        // `callback` is an answer between servers.
        _ => Ok(Request::Foreign),
    }
}

fn command(
    message: &Message<'_>,
    namespace: Namespace,
    action: fn(Vec<Room>) -> Action,
    limits: &DraftLimits,
) -> Result<Request, EmitterError> {
    let selector = session(message, limits)?;
    Ok(Request::SessionCommand(Directive { namespace, selector, action: action(some_rooms(message, limits)?) }))
}

/// A session is selected by its own room.
fn session(message: &Message<'_>, limits: &DraftLimits) -> Result<Selector, EmitterError> {
    let Text(sid) = message.sid.as_ref().ok_or_else(|| DraftError::Field("`sid` is missing".into()))?;
    check_room_name(sid, limits.room_name_bytes)?;
    Ok(Selector::RoomsExcept { rooms: vec![sid.as_str().into()], except: Vec::new() })
}

fn some_rooms(message: &Message<'_>, limits: &DraftLimits) -> Result<Vec<Room>, EmitterError> {
    let rooms = one_or_many("room", &message.room, limits)?;
    if rooms.is_empty() { Err(DraftError::Field("`room` must be a name".into()).into()) } else { Ok(rooms) }
}

fn emit(message: &Message<'_>, namespace: Namespace, limits: &DraftLimits) -> Result<Request, EmitterError> {
    if !message.callback.is_null() {
        return Err(EmitterError::Acknowledgements);
    }
    let event = message.event.ok_or_else(|| DraftError::Field("`event` is missing".into()))?;
    let data = message.data.map_or("null", RawValue::get);
    let filled;
    let data = match message.binary {
        Some(true) => {
            filled = with_attachments(data, limits)?;
            &*filled
        }
        _ => data,
    };
    // Since 5.15.1 this always is a list of arguments. Before 5.14.2, which wrote no `binary`, a list was one argument.
    let items: Vec<&RawValue> = match message.binary.is_some() && data.trim_start().starts_with('[') {
        true => parse("data", data)?,
        false => vec![parse("data", data)?],
    };
    // Python's `None` is no argument.
    let args = if matches!(items[..], [only] if only.get() == "null") { &[] } else { &items[..] };
    event_of(EventParts {
        namespace,
        rooms: one_or_many("room", &message.room, limits)?,
        except: one_or_many("skip_sid", &message.skip_sid, limits)?,
        event: event_name(event)?,
        args,
        volatile: false,
        limits,
    })
}

/// A name, a list of names, or null for none. An empty name does not mean everybody: in python-socketio it reaches nobody.
fn one_or_many(what: &str, value: &Value, limits: &DraftLimits) -> Result<Vec<Room>, EmitterError> {
    match value {
        Value::String(_) | Value::Number(_) => room_names(what, &Value::Array(vec![value.clone()]), limits),
        value => room_names(what, value, limits),
    }
}

/// `[data with placeholders, "<base64>", …]` becomes data with `{"$binary":…}`.
fn with_attachments(data: &str, limits: &DraftLimits) -> Result<String, EmitterError> {
    let parts: Vec<&RawValue> = parse("data", data)?;
    let Some((data, attachments)) = parts.split_first() else {
        return Err(DraftError::Field("`data` is empty".into()).into());
    };
    let attachments: Vec<Quoted> =
        attachments.iter().map(|part| parse("attachment", part.get())).collect::<Result<_, _>>()?;
    let (data, mut out, mut done) = (data.get(), String::new(), 0);
    for Special { span, kind } in raw_json::specials(data) {
        let Kind::Placeholder(number) = kind else { continue };
        let missing = || DraftError::Field("a placeholder has no attachment".into());
        let Quoted(base64) = number.and_then(|number| attachments.get(number)).ok_or_else(missing)?;
        out.push_str(&data[done..span.start]);
        out.push_str("{\"$binary\":\"");
        out.push_str(base64);
        out.push_str("\"}");
        done = span.end;
        // Many placeholders may name the same attachment.
        if out.len() > max_json_bytes(limits) {
            return Err(DraftError::TooBig { bytes: out.len(), max: limits.max_event }.into());
        }
    }
    out.push_str(&data[done..]);
    Ok(out)
}

/// Base64 of a JSON string, in the standard alphabet and without line breaks.
struct Quoted(String);

impl<'de> Deserialize<'de> for Quoted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        let bytes = base64::decode(&text).ok_or_else(|| D::Error::custom("not base64"))?;
        Ok(Self(STANDARD.encode(bytes)))
    }
}
