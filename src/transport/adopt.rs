//! A polling connection of another node goes on here, with the WebSocket that came to this one
//! (docs/protocol/socketio.md section 2.8).

use crate::auth::Identity;
use crate::cluster::{Moving, MovingSession, RpcRequest, RpcResponse};
use crate::handlers::resume;
use crate::handlers::session_start;
use crate::handlers::session_start::Newcomer;
use crate::model::close::CloseReason;
use crate::model::id::Id;
use crate::model::place::Place;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::peer::forward;
use crate::presence::local::Reservation;
use crate::protocol::engineio;
use crate::protocol::engineio::Packet;
use crate::protocol::websocket::{FrameReader, Message, binary_frame, text_frame};
use crate::session::accepted::ClientStream;
use crate::session::connection::{Connection, ConnectionKey, Link};
use crate::session::connection_limiter::Permit;
use crate::session::frame::Frame;
use crate::session::parked::Parked;
use crate::session::recovery;
use crate::transport::handshake::WebSocketHandshake;
use crate::transport::{packets, websocket};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long the other node may take to hand over: it first finishes the client's last request.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// A WebSocket that has taken over.
pub struct Opened {
    /// What its request said.
    pub handshake: WebSocketHandshake,
    /// The socket.
    pub stream: Arc<ClientStream>,
    /// Its reader.
    pub frames: FrameReader,
    /// What the client has sent on it already.
    pub early: Vec<EarlyMessage>,
}

/// A message that came before its session.
pub enum EarlyMessage {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl EarlyMessage {
    /// Pings and closes need no keeping: the client's next read or write shows what they said.
    pub fn of(message: Message<'_>) -> Option<Self> {
        match message {
            Message::Text(text) => Some(Self::Text(text.to_owned())),
            Message::Binary(bytes) => Some(Self::Binary(bytes.to_vec())),
            Message::Ping(_) | Message::Pong(_) | Message::Close(..) => None,
        }
    }
}

/// Asks the owner for the connection and goes on with it. Where that fails the WebSocket ends, and its client comes
/// back for what it missed.
pub async fn adopt(local: &Rc<LocalNode>, sid: Id, permit: Permit, opened: Opened) {
    let Opened { handshake, stream, frames, early } = opened;
    let mut moving = match forward::question(local, sid, RpcRequest::Release(sid), RELEASE_TIMEOUT).await {
        Ok(RpcResponse::Released(Some(moving))) => *moving,
        _ => return dismiss(stream).await,
    };
    let mut connection = Connection::new(sid, Protocol::SocketIo, Link::WebSocket(stream.clone()), permit);
    connection.keep_token(moving.token.take().map(Into::into));
    handshake.apply(&mut connection);
    let base64 = connection.is_base64();
    let key = local.shard.open(connection);
    local.await_proof(key);
    local.shard.start_timers(key, Duration::ZERO);
    if !go_on(local, key, moving, base64).await {
        local.shard.close(key, CloseReason::TransportClose);
    }
    for message in early {
        match message {
            EarlyMessage::Text(text) => packets::receive_text(local, key, &text),
            EarlyMessage::Binary(bytes) => packets::receive_binary(local, key, &bytes),
        }
    }
    websocket::start(local, key, frames);
}

async fn dismiss(stream: Arc<ClientStream>) {
    if let Ok(stream) = Arc::try_unwrap(stream) {
        websocket::dismiss(stream).await;
    }
}

/// What waited is sent first, then what came since, then the sessions are live. `false` where that cannot be proven to
/// be all.
async fn go_on(local: &Rc<LocalNode>, key: ConnectionKey, moving: Moving, base64: bool) -> bool {
    let Some(position) = Place::parse(&moving.position) else { return false };
    local.shard.catch_up_with(&position).await;
    let mut waited = Vec::new();
    for packet in engineio::parse_payload(&moving.payload).map_while(Result::ok) {
        let frame = match packet {
            Packet::Message(text) => text_frame(&format!("4{text}")),
            Packet::Binary(bytes) if base64 => text_frame(&format!("b{}", STANDARD.encode(bytes))),
            Packet::Binary(bytes) => binary_frame(&bytes),
            Packet::Ping => text_frame("2"),
            _ => continue,
        };
        waited.push(Frame::Raw(frame));
    }
    local.shard.push_waiting(key, waited.into_iter());
    let mut whole = true;
    for session in moving.sessions {
        whole &= take_up(local, key, &position, session).await;
    }
    whole
}

async fn take_up(local: &Rc<LocalNode>, key: ConnectionKey, position: &Place, moving: MovingSession) -> bool {
    let Some(namespace) = local.context.namespaces.find_joinable(&moving.namespace) else { return false };
    let Some(mut parked) = Parked::from_record(&moving.record, namespace) else { return false };
    resume::fetch_parked(local, &parked, position).await;
    let identity = Identity {
        claims: moving.claims.into(),
        expiry: Identity::expiry_at(moving.expires),
        user: parked.identity.user.clone(),
        grants: parked.identity.grants.clone(),
    };
    if session_start::was_revoked(local, &moving.namespace, &identity) {
        return false;
    }
    // It was let in by the other node, so it stays where it is over a limit here.
    let _ = local.shard.enter_account(key, &identity);
    let newcomer =
        Newcomer { connection: key, namespace, identity: Arc::new(identity), auth: moving.auth.map(Into::into) };
    let here = local.shard.position();
    let name = &**local.context.namespaces.name(namespace);
    let before = parked.clone();
    match recovery::take_up(&mut parked, &*local.context.window, &here, name, position) {
        Ok(missed) => {
            resume::go_on(local, newcomer, moving.pid, parked, missed, &mut Reservation::default());
            true
        }
        Err(lost) => {
            // Its client returns, and gets its answer by the same rules.
            local.context.metrics.recovery.attempt(lost.code());
            if let Some(pid) = moving.pid {
                local.shard.park(pid, before);
            }
            false
        }
    }
}
