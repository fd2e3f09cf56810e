//! Entries of `@socket.io/redis-streams-adapter` and its emitter (docs/protocol/emitters.md section 4), with the fields
//! `uid`, `nsp`, `type` and `data`. The data is JSON, or base64 of MessagePack where it contains bytes. Sans-IO.

use crate::bridge::request::{
    Directive, EmitterError, Opts, Packet, Request, max_json_bytes, packet_event, parse, room_names, text, value,
    with_slash,
};
use crate::model::command::Action;
use crate::model::draft::{DraftError, DraftLimits};
use crate::protocol::{base64, msgpack};
use serde::Deserialize;
use serde_json::Value;

/// Message types of the cluster adapter. The classic adapter's requests have other numbers.
const BROADCAST: &str = "3";
const JOIN: &str = "4";
const LEAVE: &str = "5";
const DISCONNECT: &str = "6";

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    packet: Option<Packet<'a>>,
    #[serde(default)]
    opts: Option<Opts>,
    #[serde(default, deserialize_with = "value")]
    rooms: Value,
    #[serde(rename = "requestId", default)]
    request_id: Value,
}

/// Decodes the fields of an entry; messages between servers are [`Request::Foreign`].
///
/// # Errors
/// See [`EmitterError`].
pub fn decode(fields: &[(Vec<u8>, Vec<u8>)], limits: &DraftLimits) -> Result<Request, EmitterError> {
    let field = |name: &str| fields.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, value)| &value[..]);
    let missing = |name: &str| DraftError::Field(format!("field `{name}` is missing or not text"));
    let word = |name: &str| field(name).and_then(|value| std::str::from_utf8(value).ok()).ok_or_else(|| missing(name));
    let kind = word("type")?;
    if ![BROADCAST, JOIN, LEAVE, DISCONNECT].contains(&kind) {
        return Ok(Request::Foreign);
    }
    let namespace = word("nsp").unwrap_or("/");
    let data = field("data").ok_or_else(|| missing("data"))?;
    let unpacked;
    let json = match data.first() {
        Some(b'{') => text(data, limits)?,
        _ => {
            let max = max_json_bytes(limits);
            if data.len() > max {
                return Err(DraftError::TooBig { bytes: data.len(), max: limits.max_event }.into());
            }
            let bytes = std::str::from_utf8(data).ok().and_then(base64::decode);
            let bytes = bytes.ok_or_else(|| DraftError::Field("`data` is neither JSON nor base64".into()))?;
            unpacked = msgpack::to_json(&bytes, max)?;
            &*unpacked
        }
    };
    let data: Data<'_> = parse("data", json)?;
    let opts = data.opts.ok_or_else(|| missing("opts"))?;
    if !data.request_id.is_null() {
        return Err(EmitterError::Acknowledgements);
    }
    let rooms = || room_names("rooms", &data.rooms, limits);
    let action = match kind {
        BROADCAST => {
            let packet = data.packet.ok_or_else(|| missing("packet"))?;
            return packet_event(&packet, &opts, Some(namespace), limits);
        }
        JOIN => Action::Join(rooms()?),
        LEAVE => Action::Leave(rooms()?),
        _ => Action::Disconnect,
    };
    Ok(Request::SessionCommand(Directive {
        namespace: with_slash(namespace),
        selector: opts.selector(limits)?,
        action,
    }))
}
