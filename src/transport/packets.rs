//! Engine.IO packets of an open session, whichever transport brought them (docs/protocol/socketio.md sections 2.4, 2.5
//! and 2.9).

use crate::handlers;
use crate::model::close::CloseReason;
use crate::model::names::MAIN_NAMESPACE;
use crate::node::context::LocalNode;
use crate::protocol::engineio;
use crate::protocol::engineio::Packet;
use crate::protocol::socketio::{DecodeError, MAX_NAMESPACE, max_attached};
use crate::protocol::{socketio, socketio_msgpack};
use crate::session::connection::ConnectionKey;
use crate::session::pending_packets::Inbound;
use std::rc::Rc;

/// One text packet from a WebSocket.
pub fn receive_text(local: &Rc<LocalNode>, key: ConnectionKey, text: &str) {
    match engineio::parse(text) {
        Ok(packet) => receive(local, key, packet),
        Err(_) => handlers::fail(local, key, CloseReason::ParseError),
    }
}

/// One binary message: an attachment, or a packet of a parser that we do not speak.
pub fn receive_binary(local: &Rc<LocalNode>, key: ConnectionKey, bytes: &[u8]) {
    if local.shard.is_silent(key)
        && let Some(namespace) = socketio_msgpack::connect(bytes)
    {
        return handlers::connect::refuse_parser(local, key, &namespace);
    }
    // Each message keeps `max_payload` by itself. A client without a session needs no attachments.
    let max_payload = local.context.socketio.max_payload;
    let known = local.shard.has_sessions(key);
    let max = if known {
        max_attached(max_payload)
    } else {
        max_payload.min(local.context.settings().limits.unproven_message())
    };
    decode(local, key, |decoder| decoder.binary_within(bytes, max));
}

/// One packet.
pub fn receive(local: &Rc<LocalNode>, key: ConnectionKey, packet: Packet<'_>) {
    let polls = local.shard.is_polling(key);
    match packet {
        Packet::Message(text)
            if text.len() > local.context.settings().limits.unproven_message() && !local.shard.is_proven(key) =>
        {
            handlers::connect::refuse_large_auth(local, key, namespace_of_connect(text));
        }
        Packet::Message(text) => decode(local, key, |decoder| decoder.text(text)),
        Packet::Binary(bytes) => receive_binary(local, key, &bytes),
        Packet::Pong => local.shard.pong(key),
        // A client of version 4 does not ping (docs/protocol/socketio.md section 2.5).
        Packet::Ping | Packet::PingProbe => handlers::fail(local, key, CloseReason::ParseError),
        // Not the goodbye of an application, which is a DISCONNECT: the stock client also sends this, by a new request,
        // for a line that went dead, and then resumes (docs/protocol/socketio.md sections 2.6 and 4.3: "transport
        // close").
        Packet::Close if polls => handlers::fail(local, key, CloseReason::TransportClose),
        // Without meaning here, and ignored by the reference (docs/protocol/socketio.md section 2.9).
        Packet::Close | Packet::Open | Packet::Upgrade | Packet::Noop | Packet::PongProbe => {}
    }
}

/// The namespace that a CONNECT names, which is too large to be read.
fn namespace_of_connect(text: &str) -> &str {
    let named = text.strip_prefix('0').filter(|rest| rest.starts_with('/')).and_then(|rest| rest.split_once(','));
    named.map(|(namespace, _)| namespace).filter(|name| name.len() <= MAX_NAMESPACE).unwrap_or(MAIN_NAMESPACE)
}

/// Runs the connection's Socket.IO decoder on a packet's text or attachment.
fn decode(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    read: impl FnOnce(&mut socketio::Decoder) -> Result<Option<socketio::Packet>, DecodeError>,
) {
    let Some(decoded) = local.shard.with_decoder(key, read) else { return };
    match decoded {
        Ok(Some(packet)) => handlers::receive(local, key, Inbound::SocketIo(packet)),
        Ok(None) => {}
        Err(error) => {
            tracing::debug!(%error, "a Socket.IO client broke the protocol");
            handlers::fail(local, key, CloseReason::ParseError);
        }
    }
}
