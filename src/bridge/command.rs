//! Commands of emitters and Node servers to all servers: JSON on `<key>-request#<nsp>#` (docs/protocol/emitters.md sections 1
//! and 2). Sans-IO.

use crate::bridge::request::{Directive, EmitterError, Opts, Request, parse, room_names, text, value, with_slash};
use crate::model::command::{Action, Selector};
use crate::model::draft::{DraftError, DraftLimits};
use crate::protocol::json_text::{Name, Text};
use serde::Deserialize;
use serde_json::Value;

const JOIN: u32 = 2;
const LEAVE: u32 = 3;
const DISCONNECT: u32 = 4;
const BROADCAST_WITH_ACK: u32 = 7;

#[derive(Deserialize)]
struct Command {
    r#type: Option<u32>,
    opts: Option<Opts>,
    #[serde(default, deserialize_with = "value")]
    rooms: Value,
    /// Adapters before 6.1 have this and `room` instead of `opts` and `rooms`.
    sid: Option<Text>,
    room: Option<Name>,
}

/// Decodes a command; requests between servers are [`Request::Foreign`].
pub(super) fn decode(namespace: &str, message: &[u8], limits: &DraftLimits) -> Result<Request, EmitterError> {
    match message.first() {
        Some(b'{') => {}
        // Only this request is MessagePack.
        Some(0x80..=0x8f | 0xde | 0xdf) => return Err(EmitterError::Acknowledgements),
        _ => return Err(DraftError::Json("a command must be a JSON object".into()).into()),
    }
    let command: Command = parse("command", text(message, limits)?)?;
    let action: fn(_) -> Action = match command.r#type {
        Some(JOIN) => Action::Join,
        Some(LEAVE) => Action::Leave,
        Some(DISCONNECT) => |_| Action::Disconnect,
        Some(BROADCAST_WITH_ACK) => return Err(EmitterError::Acknowledgements),
        _ => return Ok(Request::Foreign),
    };
    let (selector, rooms) = match (command.opts, command.sid) {
        (Some(opts), _) => (opts.selector(limits)?, command.rooms),
        (None, Some(sid)) => {
            let room = command.room.map_or(Value::Null, |room| Value::Array(vec![room.0.into()]));
            let sid = room_names("sid", &Value::Array(vec![sid.0.into()]), limits)?;
            (Selector::RoomsExcept { rooms: sid, except: Vec::new() }, room)
        }
        // Without a selector everybody would be affected.
        (None, None) => return Err(DraftError::Field("`opts` is missing".into()).into()),
    };
    let action = action(room_names("rooms", &rooms, limits)?);
    let namespace = with_slash(if namespace.is_empty() { "/" } else { namespace });
    Ok(Request::SessionCommand(Directive { namespace, selector, action }))
}
