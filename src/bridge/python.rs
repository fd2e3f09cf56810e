//! What python-socketio's `RedisManager` publishes, write-only or with a server: JSON on one channel (docs/protocol/emitters.md
//! section 5).
//! Sans-IO. Pickles, which versions before 5.14 publish, are refused: reading one runs what is in it.

use crate::bridge::request::{
    Directive, EmitterError, EventParts, Request, event_of, max_json_bytes, parse, room_names, text, with_slash,
};
use crate::model::command::{Action, Selector};
use crate::model::draft::{DraftError, DraftLimits, check_room_name};
use crate::model::names::{Namespace, Room};
use crate::protocol::raw_json;
use crate::protocol::raw_json::{Kind, Special};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Deserialize)]
struct Message<'a> {
    method: String,
    event: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    binary: Option<bool>,
    namespace: Option<String>,
    #[serde(default)]
    room: Value,
    #[serde(default)]
    skip_sid: Value,
    #[serde(default)]
    callback: Value,
    sid: Option<String>,
}

/// Reads a message.
pub(super) fn decode(message: &[u8], limits: &DraftLimits) -> Result<Request, EmitterError> {
    match message.first() {
        Some(b'{') => {}
        // The opcode with which pickles begin since protocol 2.
        Some(0x80) => return Err(EmitterError::Pickle),
        _ => return Err(DraftError::Json("neither JSON nor a pickle".into()).into()),
    }
    let message: Message<'_> = parse("message", text(message, limits)?)?;
    let namespace = with_slash(message.namespace.as_deref().unwrap_or("/"));
    match &*message.method {
        "emit" => emit(&message, namespace, limits),
        "enter_room" => order(&message, namespace, |room| Action::Join(vec![room]), limits),
        "leave_room" => order(&message, namespace, |room| Action::Leave(vec![room]), limits),
        "close_room" => {
            let room = one_room(&message, limits)?;
            let selector = Selector::RoomsExcept { rooms: vec![room.clone()], except: Vec::new() };
            Ok(Request::SessionCommand(Directive { namespace, selector, act: Action::Leave(vec![room]) }))
        }
        "disconnect" => {
            let selector = session(&message, limits)?;
            Ok(Request::SessionCommand(Directive { namespace, selector, act: Action::Disconnect }))
        }
        // `callback`: answers between servers.
        _ => Ok(Request::Foreign),
    }
}

fn order(
    message: &Message<'_>,
    namespace: Namespace,
    act: fn(Room) -> Action,
    limits: &DraftLimits,
) -> Result<Request, EmitterError> {
    let selector = session(message, limits)?;
    Ok(Request::SessionCommand(Directive { namespace, selector, act: act(one_room(message, limits)?) }))
}

/// A session's own id is a room.
fn session(message: &Message<'_>, limits: &DraftLimits) -> Result<Selector, EmitterError> {
    let sid = message.sid.as_deref().ok_or_else(|| DraftError::Field("`sid` is missing".into()))?;
    check_room_name(sid, limits.room_name_bytes)?;
    Ok(Selector::RoomsExcept { rooms: vec![sid.into()], except: Vec::new() })
}

fn one_room(message: &Message<'_>, limits: &DraftLimits) -> Result<Room, EmitterError> {
    let room = message.room.as_str().ok_or_else(|| DraftError::Field("`room` must be a name".into()))?;
    check_room_name(room, limits.room_name_bytes)?;
    Ok(room.into())
}

fn emit(message: &Message<'_>, namespace: Namespace, limits: &DraftLimits) -> Result<Request, EmitterError> {
    if !message.callback.is_null() {
        return Err(EmitterError::Acknowledgements);
    }
    let missing = || DraftError::Field("`event` is missing".into());
    let data = message.data.map_or("null", RawValue::get);
    let filled;
    let data = match message.binary {
        Some(true) => {
            filled = with_attachments(data, limits)?;
            &*filled
        }
        _ => data,
    };
    // Since 5.15.1 always a list of arguments; before 5.14.2, told by the missing `binary`, a list was one argument.
    let items: Vec<&RawValue> = match message.binary.is_some() && data.trim_start().starts_with('[') {
        true => parse("data", data)?,
        false => vec![parse("data", data)?],
    };
    // `None` is no argument.
    let args = if matches!(items[..], [only] if only.get() == "null") { &[] } else { &items[..] };
    event_of(EventParts {
        namespace,
        rooms: one_or_many("room", &message.room, limits)?,
        except: one_or_many("skip_sid", &message.skip_sid, limits)?,
        event: message.event.clone().ok_or_else(missing)?,
        args,
        volatile: false,
        limits,
    })
}

/// A name, a list of names, or null for none. An empty name is not everybody: python-socketio's reaches nobody.
fn one_or_many(what: &str, value: &Value, limits: &DraftLimits) -> Result<Vec<Room>, EmitterError> {
    match value {
        Value::String(_) => room_names(what, &Value::Array(vec![value.clone()]), limits),
        value => room_names(what, value, limits),
    }
}

/// `[data with placeholders, "<base64>", …]` becomes data with `{"$binary":…}`.
fn with_attachments(data: &str, limits: &DraftLimits) -> Result<String, EmitterError> {
    let parts: Vec<&RawValue> = parse("data", data)?;
    let Some((data, attachments)) = parts.split_first() else {
        return Err(DraftError::Field("`data` is empty".into()).into());
    };
    let attachments: Vec<Quoted<'_>> =
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
        // Many placeholders may name one attachment.
        if out.len() > max_json_bytes(limits) {
            return Err(DraftError::TooBig { bytes: out.len(), max: limits.max_event }.into());
        }
    }
    out.push_str(&data[done..]);
    Ok(out)
}

/// Base64 as it stands between the quotes.
struct Quoted<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Quoted<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        match text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)) {
            true => Ok(Self(text)),
            false => Err(D::Error::custom("not base64")),
        }
    }
}
