//! `/ws` messages of a client: auth, join, leave, event, ping (docs/protocol/websocket.md section 2).

use crate::auth::AuthError;
use crate::backend::request::RequestKind;
use crate::handlers::backend_calls::Ask;
use crate::handlers::backend_lane::{Deferred, Need};
use crate::handlers::connect::AUTH_TOO_BIG;
use crate::handlers::lifecycle_rules;
use crate::handlers::rights::RefreshError;
use crate::handlers::room_access::JoinError;
use crate::handlers::rule_runner::Ran;
use crate::handlers::session_start::{Attempt, TooMany};
use crate::handlers::socketio::{default_ack, unruled};
use crate::handlers::{backend_lane, is_open, overload, resume, rights, room_access, rule_runner, session_start};
use crate::model::args::Args;
use crate::model::clock::unix_ms;
use crate::model::close::CloseReason;
use crate::model::id::Id;
use crate::model::millis::whole_millis;
use crate::model::names::{MAIN_NAMESPACE, Room};
use crate::model::place::Place;
use crate::model::provenance::Provenance;
use crate::model::refusal::Refusal;
use crate::model::session_note::SessionNote;
use crate::model::transport::Protocol;
use crate::node::backfill;
use crate::node::context::LocalNode;
use crate::protocol::plain_ws;
use crate::protocol::plain_ws::ClientMessage;
use crate::session::connection::{ConnectionKey, SessionKey};
use crate::session::pending_packets::Inbound;
use crate::session::recovery::NotRecovered;
use crate::shard::session_face::SessionView;
use serde_json::value::RawValue;
use std::rc::Rc;

/// Works on one message, or gives it back because it has to wait for the backend.
pub async fn handle(local: &Rc<LocalNode>, key: ConnectionKey, message: ClientMessage) -> Option<Deferred> {
    let session = local.shard.session_in(key, local.context.namespaces.main());
    match (message, session) {
        (ClientMessage::Ping, _) => local.shard.push_json(key, &plain_ws::pong()),
        (ClientMessage::Auth { token }, None) => authenticate(local, key, Some(&token)).await,
        (ClientMessage::Auth { token }, Some(session)) if is_anonymous(local, session) => {
            // The client was let in without a token. With one, a new session begins.
            local.shard.dismiss(session, CloseReason::ClientClose);
            authenticate(local, key, Some(&token)).await;
        }
        (_, None) => {
            let why =
                format_args!("its first message is not {{\"type\":\"auth\"}}, and it has no token in the handshake");
            local.context.refusals.note(Refusal::Token, &local.shard.who(key), why);
            error(local, key, "unauthorized", "send {\"type\":\"auth\",\"token\":…} first", None);
            session_start::turn_away(local, key);
        }
        (message, Some(session)) => {
            if let Some(need) = need(local, session, &message) {
                return Some(Deferred { packet: Inbound::PlainWs(message), session, need });
            }
            return handle_asking(local, key, session, message, None).await;
        }
    }
    None
}

/// What a join or a leave has to wait for.
fn need(local: &LocalNode, session: SessionKey, message: &ClientMessage) -> Option<Need> {
    match message {
        ClientMessage::Join { room, .. } => backend_lane::need(local, session, false, &[room.as_str().into()], &[]),
        ClientMessage::Leave { room, .. } => backend_lane::need(local, session, false, &[], &[room.as_str().into()]),
        // The backend decides again on the rooms that it let the session into.
        ClientMessage::Auth { .. } => {
            let is_asked = |session: &SessionView<'_>| session.memberships().any(|(_, by)| by == Provenance::Asked);
            let need = Need { kind: RequestKind::Join, rooms: Vec::new() };
            local.shard.with_session(session, is_asked).unwrap_or(false).then_some(need)
        }
        _ => None,
    }
}

/// Works on a message of a session; `ask`: its turn with the backend has come. Otherwise an event that needs the backend is
/// given back.
pub async fn handle_asking(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    session: SessionKey,
    message: ClientMessage,
    ask: Option<&Ask>,
) -> Option<Deferred> {
    match message {
        ClientMessage::Join { room, since, id } => {
            if since.is_some() && overload::refuse_replay(local, key, id.as_deref()) {
                return None;
            }
            let room = room.into();
            if let Some(after) = since.as_deref().and_then(Place::parse) {
                local.shard.history_read().await;
                local.shard.catch_up_with_rooms(&after, std::slice::from_ref(&room)).await;
            }
            join(local, key, session, room, since.as_deref(), id.as_deref(), ask).await;
        }
        ClientMessage::Leave { room, id } => leave(local, key, session, &room, id.as_deref()).await,
        ClientMessage::Event { event, args, id } => {
            let need = on_event(local, key, session, &event, &args, id.as_deref(), ask).await?;
            let packet = Inbound::PlainWs(ClientMessage::Event { event, args, id });
            return Some(Deferred { packet, session, need });
        }
        ClientMessage::Auth { token } => refresh(local, key, session, &token).await,
        ClientMessage::Ping => {}
    }
    None
}

fn is_anonymous(local: &LocalNode, session: SessionKey) -> bool {
    local.shard.with_session(session, |session| session.identity.user.is_none()).unwrap_or(false)
}

/// Tells the client what was wrong with a message.
pub fn error(local: &LocalNode, key: ConnectionKey, code: &str, message: &str, id: Option<&RawValue>) {
    tracing::debug!(code, message, "message refused");
    local.shard.push_json(key, &plain_ws::error(code, message, id));
}

/// Tells a client without an accepted token that its message is larger than one with a token needs to be.
pub fn refuse_large(local: &LocalNode, key: ConnectionKey) {
    local.context.metrics.auth.handshake(AUTH_TOO_BIG);
    let message =
        "a first message larger than `limits.auth_bytes` and a token; send {\"type\":\"auth\",\"token\":…} first";
    error(local, key, AUTH_TOO_BIG, message, None);
}

fn attempt<'a>(local: &LocalNode, key: ConnectionKey, token: Option<&'a str>) -> Attempt<'a> {
    Attempt { address: local.shard.address(key), namespace: MAIN_NAMESPACE, token }
}

/// Lets a client in by its token, or turns it away with 4401.
pub async fn authenticate(local: &Rc<LocalNode>, key: ConnectionKey, token: Option<&str>) {
    if overload::refuse_session(local, key) {
        return;
    }
    let identity = local.node.auth.authenticate(token, unix_ms() / 1000).await;
    session_start::note_handshake(local, attempt(local, key, token), &identity);
    if !is_open(local, key, Protocol::PlainWs) {
        return;
    }
    let refused = match identity {
        Ok(identity) => {
            if let Err(many) = session_start::enter_account(local, key, &identity) {
                return too_many(local, key, &many);
            }
            local.shard.prove(key);
            let newcomer = session_start::Newcomer {
                connection: key,
                namespace: local.context.namespaces.main(),
                identity,
                auth: None,
            };
            let mut session = newcomer.session(local, Id::random_session(), None);
            match session_start::first_rooms(local, &session) {
                Ok(rooms) => {
                    let mut reserved = session_start::reserve(local, &mut session, &rooms).await;
                    if !is_open(local, key, Protocol::PlainWs) {
                        return session_start::abandon(local, &session, &rooms);
                    }
                    if session_start::was_revoked(local, MAIN_NAMESPACE, &session.identity) {
                        session_start::abandon(local, &session, &rooms);
                        error(local, key, AuthError::Revoked.code(), &AuthError::Revoked.to_string(), None);
                        return session_start::turn_away(local, key);
                    }
                    let session = session_start::admit(local, session, rooms.memberships(), &mut reserved);
                    welcome(local, key, session);
                    return lifecycle_rules::run_connection(local, session, MAIN_NAMESPACE).await;
                }
                Err(refused) => (refused.code().to_owned(), refused.to_string()),
            }
        }
        Err(refused) => (refused.code().to_owned(), refused.to_string()),
    };
    error(local, key, &refused.0, &refused.1, None);
    session_start::turn_away(local, key);
}

/// Closes a client whose user or tenant has all the connections it may have, or begins too many.
fn too_many(local: &LocalNode, key: ConnectionKey, many: &TooMany) {
    match many.retry_ms {
        Some(retry) => local.shard.push_json(key, &plain_ws::retry_error(many.code, many.message, retry, None)),
        None => error(local, key, many.code, many.message, None),
    }
    crate::handlers::fail(local, key, CloseReason::TooManyConnections);
}

/// `welcome`; the rooms that a session starts in are not announced, as in Socket.IO.
fn welcome(local: &LocalNode, key: ConnectionKey, session: SessionKey) {
    let seconds = local.context.socketio.ping_interval.as_secs();
    let message = local.shard.with_session(session, |session| {
        let user = session.identity.user.as_ref().map(|user| user.as_json());
        plain_ws::welcome(&session.id.to_string(), user.as_deref(), seconds)
    });
    message.iter().for_each(|message| local.shard.push_json(key, message));
}

/// A fresh token on a live connection: the same user goes on, in the rooms that the token gives; anybody else is refused.
async fn refresh(local: &Rc<LocalNode>, key: ConnectionKey, session: SessionKey, token: &str) {
    let identity = local.node.auth.authenticate(Some(token), unix_ms() / 1000).await;
    session_start::note_handshake(local, attempt(local, key, Some(token)), &identity);
    let identity = match identity {
        Ok(identity) => identity,
        Err(refused) => {
            error(local, key, refused.code(), &refused.to_string(), None);
            return session_start::turn_away(local, key);
        }
    };
    match rights::refresh(local, session, identity.clone()).await {
        Ok(()) => {
            // The token may name another tenant.
            if let Err(many) = session_start::enter_account(local, key, &identity) {
                return too_many(local, key, &many);
            }
            welcome(local, key, session);
        }
        Err(RefreshError::OtherUser) => {
            let why = format_args!("a fresh token on a live connection is of another user");
            local.context.refusals.note(Refusal::Token, &local.shard.who(key), why);
            error(local, key, "other_user", "this connection belongs to another user: open a new one", None);
            crate::handlers::fail(local, key, CloseReason::Refused);
        }
        Err(RefreshError::TooFast(refused)) => refuse_join(local, key, &refused, None),
        Err(RefreshError::Rooms(refused)) => {
            error(local, key, refused.code(), &refused.to_string(), None);
            session_start::turn_away(local, key);
        }
    }
}

fn refuse_join(local: &LocalNode, key: ConnectionKey, refused: &JoinError, id: Option<&RawValue>) {
    let (code, message) = (refused.code(), refused.to_string());
    match refused.retry().map(whole_millis) {
        Some(retry) => local.shard.push_json(key, &plain_ws::retry_error(code, &message, retry, id)),
        None => error(local, key, code, &message, id),
    }
}

/// Joins a room; with `since`, what the client missed follows the answer.
async fn join(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    session: SessionKey,
    room: Room,
    since: Option<&str>,
    id: Option<&RawValue>,
    ask: Option<&Ask>,
) {
    let rooms = [room];
    let mut by = match room_access::allow(local, session, &rooms, ask).await {
        Ok(by) => by,
        Err(refused) => return refuse_join(local, key, &refused, id),
    };
    let allowed_with = local.shard.with_session(session, |session| session.identity.clone());
    if let Some(after) = since.and_then(Place::parse) {
        resume::fetch(local, &after, local.context.namespaces.main(), &rooms).await;
    }
    // Before it is in the room: what is replayed must meet what is live without a gap.
    let mut reserved = local.shard.reserve_rooms(session, &rooms);
    local.shard.pass_left_out(local.context.namespaces.main(), &rooms).await;
    let ticket = reserved.ticket().max(local.shard.announced(session));
    if !local.node.presence.written(ticket, false).await {
        let late = JoinError::Uncounted;
        room_access::note_refusal(local, session, &rooms, &late);
        return error(local, key, late.code(), &late.to_string(), id);
    }
    if allowed_with.is_some_and(|identity| rights::has_changed(local, session, &identity)) {
        by = match room_access::allow(local, session, &rooms, ask).await {
            Ok(by) => by,
            Err(refused) => return refuse_join(local, key, &refused, id),
        };
    }
    if since.is_some() {
        backfill::pass_filled(local).await;
    }
    let missed = since.map(|since| {
        let missed = missed(local, session, &rooms, since);
        resume::count(local, &missed);
        missed
    });
    let new = local.shard.join(session, rooms.iter().zip(by), &mut reserved);
    let [room] = &rooms;
    if !new.is_empty() {
        // Of an earlier stay in the room, that a command or a rule ended.
        local.shard.forget_past(session, room);
    }
    let here = local.shard.room_point(session, room);
    if let Some(Err(lost)) = &missed {
        let after = since.and_then(Place::parse).map(Box::new);
        local.shard.note(session, SessionNote::Gap { code: lost.code(), room: Some(room.clone()), after });
    }
    // What is replayed comes behind this message, so until then the client's resume point is still its own.
    let offset = match (&missed, since) {
        (Some(Ok(_)), Some(since)) => Some(since.to_owned()),
        // Before the log begins there is no offset.
        _ => local.shard.has_begun().then(|| here.to_string()),
    };
    let recovered = missed.as_ref().map(Result::is_ok);
    local.shard.push_json(key, &plain_ws::joined(room, offset.as_deref(), recovered, id));
    if let Some(Ok(Some(past))) = missed {
        let after = Box::new(past.after.clone());
        local.shard.note(session, SessionNote::Resumed { after, room: Some(room.clone()) });
        local.shard.replay_past(session, room, &past.after, past.up_to.as_ref());
    }
}

/// Leaves a room. If that is not written in time, the session has left all the same, and it does no harm to repeat it.
async fn leave(local: &Rc<LocalNode>, key: ConnectionKey, session: SessionKey, room: &str, id: Option<&RawValue>) {
    local.shard.leave_for_good(session, &room.into());
    if !local.node.presence.written(local.shard.announced(session), true).await {
        let late = JoinError::Uncounted;
        return error(local, key, late.code(), &late.to_string(), id);
    }
    local.shard.push_json(key, &plain_ws::left(room, id));
}

/// What a client asks for of the past of a room.
struct Past {
    after: Place,
    /// Until then; or until now.
    up_to: Option<Place>,
}

/// What a room had after `since`, as far as the client did not get it live.
fn missed(
    local: &LocalNode,
    session: SessionKey,
    rooms: &[Room; 1],
    since: &str,
) -> Result<Option<Past>, NotRecovered> {
    let after = Place::parse(since).ok_or(NotRecovered::BadOffset)?;
    let lines = local.shard.place_of(rooms).lines();
    // In the rooms that its token brought when it began, the client is live from then on. How long it is in another one is not
    // known: what it got there comes again.
    let live_from = |own: &SessionView<'_>| {
        let inside = own.provenance(&rooms[0]).is_some_and(|by| by.is_of_token() && !own.brought_later);
        inside.then(|| own.start().only(lines))
    };
    let up_to = local.shard.with_session(session, live_from).ok_or(NotRecovered::Ended)?;
    if up_to.as_ref().is_some_and(|up_to| after.is_at_least(up_to)) {
        return Ok(None);
    }
    resume::provable(local, &after, local.context.namespaces.main(), rooms)?;
    Ok(Some(Past { after, up_to }))
}

async fn on_event(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    session: SessionKey,
    event: &str,
    args: &Args,
    id: Option<&RawValue>,
    ask: Option<&Ask>,
) -> Option<Need> {
    let result = match local.context.settings().rules.on(MAIN_NAMESPACE, event) {
        Some(rule) => rule_runner::run(local, session, rule, event, args, ask).await,
        None => Err(unruled(local, session, event)),
    };
    match (result, id) {
        (Ok(Ran::Deferred(need)), _) => return Some(need),
        (Ok(Ran::Done(args)), Some(id)) => {
            let message = plain_ws::ack(id, &args.unwrap_or_else(Args::none));
            local.shard.push_json(key, &message);
        }
        (Err(failure), Some(id)) => {
            let message = plain_ws::ack(id, &failure.ack.unwrap_or_else(|| default_ack(&failure.error)));
            local.shard.push_json(key, &message);
        }
        (Err(failure), None) if failure.ack.is_none() => {
            error(local, key, failure.error.code(), &failure.error.to_string(), None);
        }
        _ => {}
    }
    None
}
