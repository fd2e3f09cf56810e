//! `/socket.io/`: Engine.IO requests to sessions (docs/protocol/socketio.md section 2).

use crate::auth::{MAX_TOKEN, bare_token};
use crate::http::answer::{Reply, error, no_store, overloaded, refused, typed};
use crate::http::body;
use crate::http::body::{Answer, BodyError};
use crate::http::caller::{Caller, ListenerKind};
use crate::http::keys::bearer;
use crate::http::origin::Origin;
use crate::http::upgrade::{Intent, Slot, accept, is_upgrade};
use crate::http::{Api, drain, ws};
use crate::model::id::Id;
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::peer::forward;
use crate::peer::forward::Forwarding;
use crate::protocol::engineio::{HandshakeError, Query, Transport};
use crate::protocol::query::bounded;
use crate::session::accepted::AcceptedSocket;
use crate::session::connection::ConnectionUse;
use crate::session::connection_limiter::ClientKind;
use crate::session::forwarded::PollKind;
use crate::session::polling::PollAnswer;
use crate::transport::handshake::WebSocketHandshake;
use crate::transport::polling;
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use hyper::{Method, Request, Response, StatusCode};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// One Engine.IO request.
pub async fn serve(
    api: &Api,
    local: &Rc<LocalNode>,
    request: Request<Incoming>,
    caller: &Caller,
    origin: &Origin,
) -> Reply {
    if !origin.is_allowed() {
        return refuse(HandshakeError::Forbidden);
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let upgrade = is_upgrade(&request);
    let enabled = match query.transport {
        Some(Transport::Polling) => local.context.socketio.polling,
        Some(Transport::WebSocket) => local.context.socketio.websocket,
        None => false,
    };
    if !enabled {
        return refuse(HandshakeError::TransportUnknown);
    }
    if upgrade != (query.transport == Some(Transport::WebSocket)) {
        return refuse(HandshakeError::BadRequest);
    }
    match &query.sid {
        Some(sid) => match Id::parse(sid) {
            Some(_) if !query.version_ok => refuse(HandshakeError::BadRequest),
            Some(_) if upgrade && request.method() != Method::GET => refuse(HandshakeError::BadMethod),
            Some(sid) if forward::is_invented(&local.node, sid) => refuse(HandshakeError::UnknownSid),
            Some(sid) if upgrade => {
                let handshake = handshake(request.headers(), &query, caller);
                Box::pin(probe(api, local, request.headers(), caller, sid, handshake)).await
            }
            Some(sid) => Box::pin(poll(local, request, caller, sid)).await,
            None => refuse(HandshakeError::UnknownSid),
        },
        None => open(api, local, &request, &query, caller),
    }
}

fn refuse(error: HandshakeError) -> Reply {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let (reason, why) = match error {
        HandshakeError::Forbidden => (Refusal::Origin, "the origin is not in cors.origins"),
        HandshakeError::TransportUnknown => (Refusal::Transport, "the transport is not in socketio.transports"),
        HandshakeError::UnknownSid => (Refusal::Session, "the session is over, or was on a node that is gone"),
        HandshakeError::UnsupportedVersion => {
            (Refusal::Handshake, "EIO is not 4: the client is older than Socket.IO 3")
        }
        HandshakeError::BadMethod | HandshakeError::BadRequest => (Refusal::Handshake, error.message()),
    };
    refused(typed(status, "application/json", error.body()), reason, why.to_owned())
}

/// A handshake.
fn open(api: &Api, local: &Rc<LocalNode>, request: &Request<Incoming>, query: &Query, caller: &Caller) -> Reply {
    if request.method() != Method::GET {
        return refuse(HandshakeError::BadMethod);
    }
    if !query.version_ok {
        return refuse(HandshakeError::UnsupportedVersion);
    }
    if local.context.memory.is_tight() {
        return overloaded();
    }
    let is_websocket = query.transport == Some(Transport::WebSocket);
    let kind = if is_websocket { ClientKind::WebSocket } else { ClientKind::Http };
    let permit = match api.node.connection_limiter.take(caller.client(), kind) {
        Ok(permit) => permit,
        Err(full) => return ws::full(full),
    };
    let handshake = handshake(request.headers(), query, caller);
    if is_websocket {
        return accept_engine(request.headers(), &caller.slot, Intent::SocketIo(permit, handshake));
    }
    let (opened, ticket) = polling::open(local, permit, handshake, caller.waited());
    if let Some(oldest) = ticket.and_then(|ticket| caller.begin_session(ticket)) {
        api.node.connection_limiter.evict(oldest);
    }
    payload(opened)
}

fn handshake(headers: &HeaderMap, query: &Query, caller: &Caller) -> WebSocketHandshake {
    let given = [bearer(headers), query.token.as_deref()];
    // Of a token that is too long, only so much is kept that the CONNECT is refused for its length.
    let cut = |token: &str| bounded(token, MAX_TOKEN + 1).into();
    let token = given.into_iter().flatten().find_map(bare_token).map(cut);
    let of = match caller.listener {
        ListenerKind::Public => ConnectionUse::Clients,
        ListenerKind::Admin => ConnectionUse::AdminListener,
    };
    WebSocketHandshake { token, base64: query.base64, of }
}

/// A WebSocket, new or of a polling session. Chooses the first offered subprotocol, as the reference does: a client
/// that offers some fails if the answer has none.
fn accept_engine(headers: &HeaderMap, slot: &Slot, intent: Intent) -> Reply {
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let first = offered.and_then(|value| value.split(',').next()).map(str::trim);
    accept(headers, slot, intent, first.and_then(|name| name.parse().ok()))
}

/// The WebSocket of a polling session; one that cannot take over is ended after the handshake
/// (docs/protocol/socketio.md section 2.8).
async fn probe(
    api: &Api,
    local: &Rc<LocalNode>,
    headers: &HeaderMap,
    caller: &Caller,
    sid: Id,
    handshake: WebSocketHandshake,
) -> Reply {
    let (reply, known) = oneshot::channel();
    if forward::is_elsewhere(&local.node, sid) {
        return probe_elsewhere(api, local, headers, caller, sid, handshake).await;
    }
    let found = polling::on_owner(local, sid, move |local| {
        // The caller may be gone.
        let _ = reply.send(local.shard.by_sid(sid).is_some());
    });
    match found && known.await.unwrap_or(false) {
        true => accept_engine(headers, &caller.slot, Intent::Probe(sid, handshake)),
        false => refuse(HandshakeError::UnknownSid),
    }
}

/// The same for a session of another node, which moves here with the WebSocket.
async fn probe_elsewhere(
    api: &Api,
    local: &Rc<LocalNode>,
    headers: &HeaderMap,
    caller: &Caller,
    sid: Id,
    handshake: WebSocketHandshake,
) -> Reply {
    if api.node.operator_drain.refuses_clients() {
        return drain::refuse();
    }
    let permit = match api.node.connection_limiter.take(caller.client(), ClientKind::WebSocket) {
        Ok(permit) => permit,
        Err(full) => return ws::full(full),
    };
    match forward::may_probe(local, sid).await {
        true => accept_engine(headers, &caller.slot, Intent::ProbeElsewhere(sid, permit, handshake)),
        false => refuse(HandshakeError::UnknownSid),
    }
}

/// A GET or POST of an open session.
async fn poll(local: &Rc<LocalNode>, request: Request<Incoming>, caller: &Caller, sid: Id) -> Reply {
    let socket = &caller.socket;
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return refuse(HandshakeError::BadRequest);
    }
    let answer = match *request.method() {
        Method::GET if forward::is_elsewhere(&local.node, sid) => match Forwarding::begin(local, sid, PollKind::Get) {
            Ok(forwarding) => forwarding.get(local, socket).await,
            Err(answer) => answer,
        },
        Method::GET => polling::get(local, sid, Some(socket)).await,
        _ => post(local, request, socket, sid).await,
    };
    match answer {
        PollAnswer::Payload(bytes) => payload(bytes),
        PollAnswer::Accepted => typed(StatusCode::OK, "text/html", "ok"),
        PollAnswer::Overlap => plain(StatusCode::BAD_REQUEST),
        PollAnswer::TooBig => {
            let why = "the body is over socketio.max_payload".to_owned();
            refused(plain(StatusCode::PAYLOAD_TOO_LARGE), Refusal::Size, why)
        }
        PollAnswer::TooBigUnproven => {
            let message = "the body is over 64 KiB, and its client has not been authenticated yet";
            error(StatusCode::PAYLOAD_TOO_LARGE, "auth_too_big", message)
        }
        PollAnswer::Busy => {
            let why = "too much is on its way to the node of the session".to_owned();
            refused(busy(), Refusal::PeerBusy, why)
        }
        PollAnswer::Unknown => refuse(HandshakeError::UnknownSid),
        PollAnswer::Moved => refuse(HandshakeError::BadRequest),
    }
}

async fn post(local: &Rc<LocalNode>, request: Request<Incoming>, socket: &Arc<AcceptedSocket>, sid: Id) -> PollAnswer {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // Only Engine.IO 3 had binary bodies (docs/protocol/socketio.md section 2.6).
    let binary = content_type.is_some_and(|value| value.starts_with("application/octet-stream"));
    if forward::is_elsewhere(&local.node, sid) {
        return forward_post(local, request, socket, sid, binary).await;
    }
    let post = match polling::begin_post(local, sid, Some(socket)).await {
        Ok(post) => post,
        Err(answer) => return answer,
    };
    if binary {
        post.refuse(local).await;
        return PollAnswer::Overlap;
    }
    match body::read(request, post.max_body.bytes).await {
        Ok(bytes) => post.finish(local, bytes).await,
        Err(BodyError::TooBig) => post.max_body.over.clone(),
        Err(BodyError::Slow | BodyError::Broken) => PollAnswer::Overlap,
    }
}

/// A POST for a session of another node: its body is read here, once the owner says that there is such a session.
async fn forward_post(
    local: &Rc<LocalNode>,
    request: Request<Incoming>,
    socket: &AcceptedSocket,
    sid: Id,
    binary: bool,
) -> PollAnswer {
    let forwarding = match Forwarding::begin(local, sid, PollKind::Post) {
        Ok(forwarding) => forwarding,
        Err(answer) => return answer,
    };
    let max = match forwarding.max_body(local, socket, request.body().size_hint().exact()).await {
        Ok(max) => max,
        Err(answer) => return answer,
    };
    if binary {
        return forwarding.post(local, None).await;
    }
    match body::read(request, max.bytes).await {
        Ok(bytes) => forwarding.post(local, String::from_utf8(bytes.into()).ok()).await,
        Err(BodyError::TooBig) => max.over,
        Err(BodyError::Slow | BodyError::Broken) => PollAnswer::Overlap,
    }
}

fn payload(bytes: impl Into<Bytes>) -> Reply {
    no_store(typed(StatusCode::OK, "text/plain; charset=UTF-8", bytes))
}

fn busy() -> Reply {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn plain(status: StatusCode) -> Reply {
    let mut response = Response::new(Answer::full(""));
    *response.status_mut() = status;
    response
}
