//! What Socket.IO's Redis emitters and adapters publish (docs/protocol/emitters.md). Sans-IO.
//!
//! | channel | what |
//! |---|---|
//! | `<key>#<nsp>#[<room>#]` | broadcasts: `[uid, packet, opts]`, or `[packet, opts]` of old emitters, as MessagePack or JSON. The channel only filters for those who subscribe by room; `opts` decides |
//! | `<key>-request#<nsp>#` | commands ([`crate::bridge::command`]) |
//! | `<key>` | python-socketio ([`crate::bridge::python`]) |

use crate::bridge::request::{EmitterError, Request, max_json_bytes, packet_event, parse, text};
use crate::bridge::{command, python};
use crate::model::draft::{DraftError, DraftLimits};
use crate::protocol::msgpack;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Decodes a message that was published on a channel of `key`.
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
        Some(0x90..=0x9f | 0xdc | 0xdd) => broadcast(&msgpack::to_json(message, max_json_bytes(limits))?, limits),
        Some(b'[') => broadcast(text(message, limits)?, limits),
        Some(0x80..=0x8f | 0xde | 0xdf) => between_servers(&msgpack::to_json(message, max_json_bytes(limits))?),
        Some(b'{') => between_servers(text(message, limits)?),
        _ => Err(DraftError::Json("neither a MessagePack array nor a JSON one".into()).into()),
    }
}

/// Servers with the streams adapter send each other requests on the channels of the classic adapter's broadcasts (docs/protocol/emitters.md section 4).
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
    packet_event(&parse("packet", packet.get())?, &parse("options", opts.get())?, None, limits)
}

#[cfg(test)]
pub(super) mod tests;
