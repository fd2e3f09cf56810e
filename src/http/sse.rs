//! `/sse?room=R&room=…`: authenticate, join, and stream (docs/protocol/sse.md).

use crate::auth::{AuthError, Identity, bare_token};
use crate::handlers::room_access::JoinError;
use crate::handlers::session_start::Attempt;
use crate::handlers::{backend_calls, lifecycle_rules, resume, room_access, session_start};
use crate::http::answer::{Reply, error, no_store, noted, overloaded, refused};
use crate::http::body::Answer;
use crate::http::caller::Caller;
use crate::http::keys::bearer;
use crate::http::origin::Origin;
use crate::http::{Api, ws};
use crate::model::clock::unix_ms;
use crate::model::close::{CloseReason, jittered};
use crate::model::id::Id;
use crate::model::names::{EVERYBODY, MAIN_NAMESPACE, Room};
use crate::model::place::Place;
use crate::model::provenance::Provenance;
use crate::model::refusal::Refusal;
use crate::model::session_note::SessionNote;
use crate::model::transport::Protocol;
use crate::node::backfill;
use crate::node::context::LocalNode;
use crate::presence::Ticket;
use crate::presence::local::Reservation;
use crate::protocol::sse;
use crate::session::connection::{Connection, ConnectionKey, Link, SessionKey};
use crate::session::connection_limiter::ClientKind;
use crate::session::frame::Frame;
use crate::session::recovery::NotRecovered;
use crate::session::replay::Replay;
use crate::transport::sse::SseBody;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// One request: authenticates it.
pub async fn serve(
    api: &Api,
    local: &Rc<LocalNode>,
    request: Request<Incoming>,
    caller: &Caller,
    origin: &Origin,
) -> Reply {
    if !origin.is_allowed() {
        return ws::foreign();
    }
    if local.context.memory.is_tight() {
        return overloaded();
    }
    let query = match sse::Query::parse(request.uri().query().unwrap_or_default()) {
        Ok(query) => query,
        Err(problem) => return error(StatusCode::BAD_REQUEST, problem.code(), &problem.to_string()),
    };
    let given = [bearer(request.headers()), query.token.as_deref()];
    let token = given.into_iter().flatten().find_map(bare_token);
    let checked = local.node.auth.authenticate(token, unix_ms() / 1000).await;
    let attempt = Attempt { address: Some(caller.client()), namespace: MAIN_NAMESPACE, token };
    session_start::note_handshake(local, attempt, &checked);
    let identity = match checked {
        Ok(identity) => identity,
        Err(problem) => return error(StatusCode::UNAUTHORIZED, problem.code(), &problem.to_string()),
    };
    caller.socket.carry();
    let since = last_event_id(request.headers()).or(query.last_event_id.as_deref());
    if since.is_some() {
        // Before there is a session: one that is older than the history would be notified that the log was reset.
        local.shard.history_read().await;
    }
    let rooms = query.rooms.iter().map(|room| room.as_str().into()).collect();
    open(api, local, caller, identity, rooms, since).await
}

/// Opens the connection and begins its session.
async fn open(
    api: &Api,
    local: &Rc<LocalNode>,
    caller: &Caller,
    identity: Arc<Identity>,
    rooms: Vec<Room>,
    since: Option<&str>,
) -> Reply {
    let permit = match api.node.connection_limiter.take(caller.client(), ClientKind::Http) {
        Ok(permit) => permit,
        Err(full) => return ws::full(full),
    };
    let namespace = local.context.namespaces.main();
    let link = Link::Sse(caller.socket.cut().clone());
    let key = local.shard.open(Connection::new(Id::random(), Protocol::Sse, link, permit));
    // From here on the connection ends with its body, also if this future is dropped.
    let body = SseBody::new(local.clone(), key, caller.socket.clone());
    if let Err(many) = session_start::enter_account(local, key, &identity) {
        let mut response = refuse(local, key, StatusCode::TOO_MANY_REQUESTS, many.code, many.message);
        if let Some(ms) = many.retry_ms {
            response.headers_mut().insert(RETRY_AFTER, ms.div_ceil(1_000).into());
        }
        return response;
    }
    let newcomer = session_start::Newcomer { connection: key, namespace, identity, auth: None };
    let session = newcomer.session(local, Id::random_session(), None);
    let first = match session_start::first_rooms(local, &session) {
        Ok(rooms) => rooms,
        // The token itself is refused.
        Err(problem) => return refuse(local, key, StatusCode::UNAUTHORIZED, problem.code(), &problem.to_string()),
    };
    if session_start::was_revoked(local, MAIN_NAMESPACE, &session.identity) {
        let problem = AuthError::Revoked;
        return refuse(local, key, StatusCode::UNAUTHORIZED, problem.code(), &problem.to_string());
    }
    let mut online = local.shard.reserve(&session, &[]);
    let session = session_start::admit(local, session, [], &mut online);
    let first =
        first.memberships().filter(|(room, _)| !rooms.contains(room)).map(|(room, by)| (room.clone(), by)).unzip();
    match join(local, key, session, rooms, first, since, online.ticket()).await {
        None => stream(body),
        Some(refusal) => refusal,
    }
}

/// Joins the rooms that the stream names, and its `first` ones, and begins to write. Answers the refusal, if it is refused.
async fn join(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    session: SessionKey,
    rooms: Vec<Room>,
    (first, first_by): (Vec<Room>, Vec<Provenance>),
    since: Option<&str>,
    online: Ticket,
) -> Option<Reply> {
    let allowed = match room_access::allow(local, session, &rooms, None).await {
        Ok(allowed) => allowed,
        Err(problem) => {
            let status = match problem.retry() {
                Some(_) => StatusCode::TOO_MANY_REQUESTS,
                None if problem.may_pass() => StatusCode::SERVICE_UNAVAILABLE,
                None => StatusCode::FORBIDDEN,
            };
            return Some(refuse(local, key, status, problem.code(), &problem.to_string()));
        }
    };
    if rooms.is_empty() && first.is_empty() {
        crate::handlers::fail(local, key, CloseReason::Refused);
        let reply = error(StatusCode::BAD_REQUEST, "no_room", "name at least one room: /sse?room=…");
        let why = "the stream names no room, and no rule of [[rooms]] with join = \"auto\" gives it one";
        return Some(refused(reply, Refusal::Request, why.into()));
    }
    if let Some(after) = since.and_then(Place::parse) {
        local.shard.catch_up_with_rooms(&after, &[rooms.as_slice(), &first].concat()).await;
        let own = local.shard.with_session(session, |session| session.id.to_string());
        let names: Vec<Room> = rooms.iter().chain(&first).cloned().chain(own.map(Into::into)).collect();
        resume::fetch(local, &after, local.context.namespaces.main(), &names).await;
    }
    let mut reserved = match reserve(local, session, &rooms, &first, online).await {
        Ok(reserved) => reserved,
        Err(late) => {
            return Some(refuse(local, key, StatusCode::SERVICE_UNAVAILABLE, late.code(), &late.to_string()));
        }
    };
    let rooms = [rooms, first].concat();
    let by = [allowed, first_by].concat();
    if since.is_some() {
        backfill::pass_filled(local).await;
    }
    begin(local, key, session, (&rooms, &by), since, &mut reserved);
    lifecycle_rules::run_connection(local, session, MAIN_NAMESPACE).await;
    None
}

/// Writes the session into the presence of its rooms before it joins them, so that there is no gap between replayed and
/// live events. Refuses the rooms that it named if that takes too long.
async fn reserve(
    local: &LocalNode,
    session: SessionKey,
    named: &[Room],
    automatic: &[Room],
    online: Ticket,
) -> Result<Reservation, JoinError> {
    local.shard.with_session(session, |session| {
        backend_calls::connected(local, session, &[named, automatic].concat());
    });
    let (mut reserved, others) =
        (local.shard.reserve_rooms(session, named), local.shard.reserve_rooms(session, automatic));
    let main = local.context.namespaces.main();
    local.shard.pass_left_out(main, &[named, automatic].concat()).await;
    let presence = &local.node.presence;
    if !presence.written(reserved.ticket(), false).await {
        return Err(JoinError::Uncounted);
    }
    presence.written_unless_failing(others.ticket().max(online)).await;
    reserved.append(others);
    Ok(reserved)
}

/// Ends the connection that was to stream. The reason is already noted.
fn refuse(local: &LocalNode, key: ConnectionKey, status: StatusCode, code: &str, message: &str) -> Reply {
    crate::handlers::fail(local, key, CloseReason::Refused);
    noted(error(status, code, message))
}

fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id")?.to_str().ok().filter(|id| !id.is_empty())
}

/// Replays what was missed, or sends a gap, then goes live.
fn begin(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    session: SessionKey,
    (rooms, by): (&[Room], &[Provenance]),
    since: Option<&str>,
    reserved: &mut Reservation,
) {
    let own = local.shard.with_session(session, |session| (session.id, session.namespace));
    let Some((own, namespace)) = own else { return };
    let missed = since.map(|since| {
        let after = Place::parse(since).ok_or(NotRecovered::BadOffset);
        let missed = after.and_then(|after| {
            let names = [rooms, &[own.to_string().into(), EVERYBODY.into()]].concat();
            resume::provable(local, &after, namespace, &names)?;
            Ok(after)
        });
        resume::count(local, &missed);
        missed
    });
    local.shard.join(session, rooms.iter().zip(by.iter().copied()), reserved);
    let here = local.shard.resume_point(session);
    // Sent at once, so that the client sees an open stream; with a resume point if it missed nothing.
    local.shard.push(key, Frame::Raw(sse::comment()));
    local.shard.push(key, Frame::Raw(sse::retry_block(jittered(sse::MIN_RETRY))));
    match missed {
        Some(Ok(after)) => {
            local.shard.note(session, SessionNote::Resumed { after: Box::new(after.clone()), room: None });
            let after = after.only(here.lines());
            let replay = Replay::of_rooms(&own, rooms, local.context.window.partitions(), &after, &here);
            local.shard.begin_replay(session, replay);
        }
        Some(Err(error)) => {
            let reason = error.code();
            local.context.metrics.recovery.gap(reason, 1);
            let after = since.and_then(Place::parse).map(Box::new);
            local.shard.note(session, SessionNote::Gap { code: reason, room: None, after });
            // With an id, so that a reconnect does not report the same gap again.
            let block = sse::gap_block_at(reason, &here);
            local.shard.push(key, Frame::Raw(block));
        }
        None => {
            let block = sse::id_block(&here);
            local.shard.push(key, Frame::Raw(block));
        }
    }
    local.shard.start_timers(key, Duration::ZERO);
}

fn stream(body: SseBody) -> Reply {
    let mut response = Response::new(Answer::Sse(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Without it, nginx buffers streams.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    no_store(response)
}
