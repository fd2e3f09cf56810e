//! `/socket.io/`: Engine.IO requests to sessions (wire sheet A).

use crate::http::answer::{Reply, no_store, typed};
use crate::http::body;
use crate::http::body::{Answer, BodyError};
use crate::http::keys::bearer;
use crate::http::origin::Origin;
use crate::http::upgrade::{Intent, Slot, accept, is_upgrade};
use crate::http::{Api, ws};
use crate::model::id::Id;
use crate::node::context::LocalNode;
use crate::peer::forward;
use crate::protocol::engineio::{HandshakeError, Query, Transport};
use crate::session::polling::PollAnswer;
use crate::transport::polling;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL};
use hyper::{Method, Request, Response, StatusCode};
use std::net::IpAddr;
use std::rc::Rc;
use tokio::sync::oneshot;

/// One Engine.IO request.
pub async fn serve(
    api: &Api,
    local: &Rc<LocalNode>,
    request: Request<Incoming>,
    peer: IpAddr,
    slot: &Slot,
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
            Some(sid) if upgrade => probe(api, local, request, peer, slot, sid).await,
            Some(sid) => poll(local, request, sid).await,
            None => refuse(HandshakeError::UnknownSid),
        },
        None => open(api, local, request, &query, peer, slot),
    }
}

fn refuse(error: HandshakeError) -> Reply {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    typed(status, "application/json", error.body())
}

/// A handshake.
fn open(
    api: &Api,
    local: &Rc<LocalNode>,
    request: Request<Incoming>,
    query: &Query,
    peer: IpAddr,
    slot: &Slot,
) -> Reply {
    if request.method() != Method::GET {
        return refuse(HandshakeError::BadMethod);
    }
    if !query.version_ok {
        return refuse(HandshakeError::UnsupportedVersion);
    }
    let place = match api.node.places.take(peer) {
        Ok(place) => place,
        Err(full) => return ws::full(full),
    };
    let token = bearer(request.headers()).or(query.token.as_deref()).map(Into::into);
    if query.transport == Some(Transport::WebSocket) {
        let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
        let first = offered.and_then(|value| value.split(',').next()).map(str::trim);
        let first = first.and_then(|name| name.parse().ok());
        return accept(request.headers(), slot, Intent::SocketIo(place, token), first);
    }
    payload(polling::open(local, place, token))
}

/// The WebSocket of a polling session; one that cannot take over is ended after the handshake (wire sheet A8).
async fn probe(
    api: &Api,
    local: &Rc<LocalNode>,
    request: Request<Incoming>,
    peer: IpAddr,
    slot: &Slot,
    sid: Id,
) -> Reply {
    let (reply, known) = oneshot::channel();
    if forward::is_elsewhere(&local.node, sid) {
        return probe_elsewhere(api, local, request, peer, slot, sid).await;
    }
    let found = polling::on_owner(local, sid, move |local| {
        // Whoever asked may be gone.
        let _ = reply.send(local.shard.by_sid(sid).is_some());
    });
    match found && known.await.unwrap_or(false) {
        true => accept(request.headers(), slot, Intent::Probe(sid), None),
        false => refuse(HandshakeError::UnknownSid),
    }
}

/// The same for a session of another node: with the WebSocket it comes here.
async fn probe_elsewhere(
    api: &Api,
    local: &Rc<LocalNode>,
    request: Request<Incoming>,
    peer: IpAddr,
    slot: &Slot,
    sid: Id,
) -> Reply {
    let place = match api.node.places.take(peer) {
        Ok(place) => place,
        Err(full) => return ws::full(full),
    };
    match forward::may_probe(local, sid).await {
        true => accept(request.headers(), slot, Intent::ProbeElsewhere(sid, place), None),
        false => refuse(HandshakeError::UnknownSid),
    }
}

/// A GET or POST of an open session.
async fn poll(local: &Rc<LocalNode>, request: Request<Incoming>, sid: Id) -> Reply {
    let answer = match *request.method() {
        Method::GET if forward::is_elsewhere(&local.node, sid) => forward::get(local, sid).await,
        Method::GET => polling::get(local, sid).await,
        Method::POST => post(local, request, sid).await,
        _ => return refuse(HandshakeError::BadRequest),
    };
    match answer {
        PollAnswer::Payload(bytes) => payload(bytes),
        PollAnswer::Accepted => typed(StatusCode::OK, "text/html", "ok"),
        PollAnswer::Overlap => plain(StatusCode::BAD_REQUEST),
        PollAnswer::TooBig => plain(StatusCode::PAYLOAD_TOO_LARGE),
        PollAnswer::Unknown => refuse(HandshakeError::UnknownSid),
        PollAnswer::Moved => refuse(HandshakeError::BadRequest),
    }
}

async fn post(local: &Rc<LocalNode>, request: Request<Incoming>, sid: Id) -> PollAnswer {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // Binary bodies were version 3's (wire sheet A6).
    let binary = content_type.is_some_and(|value| value.starts_with("application/octet-stream"));
    if forward::is_elsewhere(&local.node, sid) {
        return forward_post(local, request, sid, binary).await;
    }
    let post = match polling::begin_post(local, sid).await {
        Ok(post) => post,
        Err(answer) => return answer,
    };
    if binary {
        post.refuse(local);
        return PollAnswer::Overlap;
    }
    match body::read(request.into_body(), local.context.socketio.max_payload).await {
        Ok(bytes) => post.finish(local, bytes).await,
        Err(BodyError::TooBig) => PollAnswer::TooBig,
        Err(BodyError::Slow | BodyError::Broken) => PollAnswer::Overlap,
    }
}

/// A POST for a session of another node: its body is read here.
async fn forward_post(local: &Rc<LocalNode>, request: Request<Incoming>, sid: Id, binary: bool) -> PollAnswer {
    if !forward::has_owner(&local.node, sid).await {
        return PollAnswer::Unknown;
    }
    if binary {
        return forward::post(local, sid, None).await;
    }
    match body::read(request.into_body(), local.context.socketio.max_payload).await {
        Ok(bytes) => forward::post(local, sid, String::from_utf8(bytes.into()).ok()).await,
        Err(BodyError::TooBig) => PollAnswer::TooBig,
        Err(BodyError::Slow | BodyError::Broken) => PollAnswer::Overlap,
    }
}

fn payload(bytes: impl Into<Bytes>) -> Reply {
    no_store(typed(StatusCode::OK, "text/plain; charset=UTF-8", bytes))
}

fn plain(status: StatusCode) -> Reply {
    let mut response = Response::new(Answer::full(""));
    *response.status_mut() = status;
    response
}
