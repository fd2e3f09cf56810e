//! From an HTTP request to a WebSocket: the answer that hyper sends, and what happens when it releases the socket.

use crate::handlers::plain_ws as json_client;
use crate::http::answer::{Reply, error};
use crate::http::body::Answer;
use crate::model::id::Id;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::protocol::websocket::{FrameReader, Opcode, accept_key, push_frame};
use crate::session::accepted::ClientStream;
use crate::session::connection::{Connection, Link};
use crate::session::connection_limiter::Permit;
use crate::session::frame::Frame;
use crate::transport::handshake::WebSocketHandshake;
use crate::transport::{polling, upgrade as takeover, websocket};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Request, Response, StatusCode, Version};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What an upgraded socket becomes.
pub enum Intent {
    /// A new Socket.IO connection.
    SocketIo(Permit, WebSocketHandshake),
    /// A `/ws` connection, with the handshake's token.
    Json(Permit, Option<Box<str>>),
    /// A WebSocket for a polling session.
    Probe(Id, WebSocketHandshake),
    /// The same for a session of another node.
    ProbeElsewhere(Id, Permit, WebSocketHandshake),
}

impl Intent {
    /// Whether the connection's outbox takes the answer to the upgrade, so that it goes out together with what follows.
    pub fn writes_at_once(&self) -> bool {
        matches!(self, Self::SocketIo(..) | Self::Json(..))
    }
}

/// Where a handler leaves the intent for the connection's task.
pub type Slot = RefCell<Option<Intent>>;

/// Whether a request asks for a WebSocket. In HTTP/1.0 there is no `Upgrade` (RFC 9110 section 7.8).
pub fn is_upgrade(request: &Request<Incoming>) -> bool {
    let says = |name, what: &str| {
        let values = request.headers().get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(what))
    };
    request.version() >= Version::HTTP_11 && says(UPGRADE, "websocket") && says(CONNECTION, "upgrade")
}

/// Answers 101 and leaves the intent in `slot`, or answers 400 if the handshake breaks RFC 6455 section 4.2.1.
/// `subprotocol` is echoed.
pub fn accept(headers: &HeaderMap, slot: &Slot, intent: Intent, subprotocol: Option<HeaderValue>) -> Reply {
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| accept_key(key.as_bytes()));
    let Some(key) = key.and_then(|key| HeaderValue::from_str(&key).ok()) else {
        return error(StatusCode::BAD_REQUEST, "bad_handshake", "Sec-WebSocket-Key must be 16 bytes in base64");
    };
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return error(StatusCode::BAD_REQUEST, "bad_handshake", "Sec-WebSocket-Version must be 13");
    }
    // It would come where the frames begin.
    if has_body(headers) {
        return error(StatusCode::BAD_REQUEST, "bad_handshake", "a request for a WebSocket has no body");
    }
    *slot.borrow_mut() = Some(intent);
    let mut response = Response::new(Answer::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0")
}

/// A socket that hyper has released.
pub struct Upgraded {
    /// The socket.
    pub stream: ClientStream,
    /// The bytes that arrived after the handshake.
    pub early: Bytes,
    /// The answer to the upgrade, where [`Intent::writes_at_once`].
    pub answer: Vec<u8>,
    /// How much of `socketio.connect_timeout` is used up.
    pub waited: Duration,
}

/// Continues with a socket that hyper has released.
pub fn carry_on(local: &Rc<LocalNode>, intent: Intent, upgraded: Upgraded) {
    match intent {
        Intent::SocketIo(permit, handshake) => open_socketio(local, permit, handshake, upgraded),
        Intent::Json(permit, token) => open_json(local, permit, token, upgraded),
        Intent::Probe(sid, handshake) => probe(local, sid, handshake, upgraded),
        Intent::ProbeElsewhere(sid, permit, handshake) => {
            let Upgraded { stream, early, .. } = upgraded;
            let probe = takeover::probe_elsewhere(local.clone(), sid, permit, handshake, stream, early);
            drop(tokio::task::spawn_local(probe));
        }
    }
}

fn open_socketio(local: &Rc<LocalNode>, permit: Permit, handshake: WebSocketHandshake, upgraded: Upgraded) {
    let Upgraded { stream, early, mut answer, waited } = upgraded;
    let sid = local.shard.fresh_id();
    let mut connection = Connection::new(sid, Protocol::SocketIo, Link::WebSocket(Arc::new(stream)), permit);
    handshake.apply(&mut connection);
    let key = local.shard.open(connection);
    local.await_proof(key);
    push_frame(&mut answer, Opcode::Text, polling::handshake(local, sid, &[]).as_bytes());
    local.shard.push(key, Frame::Raw(answer.into()));
    local.shard.start_timers(key, waited);
    let mut frames = FrameReader::new();
    websocket::take_early(local, key, &mut frames, &early);
    websocket::start(local, key, frames);
}

fn open_json(local: &Rc<LocalNode>, permit: Permit, token: Option<Box<str>>, upgraded: Upgraded) {
    let Upgraded { stream, early, answer, waited } = upgraded;
    let connection = Connection::new(Id::random(), Protocol::PlainWs, Link::WebSocket(Arc::new(stream)), permit);
    let key = local.shard.open(connection);
    local.await_proof(key);
    local.shard.push(key, Frame::Raw(answer.into()));
    local.shard.start_timers(key, waited);
    let (early, local) = (early.to_vec(), local.clone());
    tokio::task::spawn_local(async move {
        // Without a token the client may still send one as its first message.
        if token.is_some() || local.node.auth.allows_anonymous() {
            json_client::authenticate(&local, key, token.as_deref()).await;
        }
        let mut frames = FrameReader::new();
        websocket::take_early(&local, key, &mut frames, &early);
        websocket::start(&local, key, frames);
    });
}

/// Hands the socket to the shard of the session.
fn probe(local: &Rc<LocalNode>, sid: Id, handshake: WebSocketHandshake, upgraded: Upgraded) {
    let Upgraded { stream: ClientStream { stream, open }, early, .. } = upgraded;
    if sid.shard() == local.shard.index {
        let stream = ClientStream { stream, open };
        tokio::task::spawn_local(takeover::probe(local.clone(), sid, handshake, stream, early));
        return;
    }
    let (Some(owner), Ok(stream)) = (local.node.shards().get(usize::from(sid.shard())), stream.detach()) else {
        return;
    };
    owner.run(move |local| {
        if let Ok(stream) = stream.attach() {
            let stream = ClientStream { stream, open };
            tokio::task::spawn_local(takeover::probe(local.clone(), sid, handshake, stream, early));
        }
    });
}
