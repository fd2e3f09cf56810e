//! A Socket.IO client's CONNECT: from the packet to a session in its rooms, or a CONNECT_ERROR
//! (docs/protocol/socketio.md section 3.3).

use crate::auth::identity::Identity;
use crate::auth::{AuthError, MAX_TOKEN, bare_token};
use crate::handlers::lifecycle_rules;
use crate::handlers::rate_limit::take_turn;
use crate::handlers::resume;
use crate::handlers::resume::{Outcome, Resumed};
use crate::handlers::room_access::JoinError;
use crate::handlers::session_start::{Attempt, Newcomer, TooMany};
use crate::handlers::{admin_ui, fail, is_open, overload, session_start};
use crate::model::clock::unix_ms;
use crate::model::close::CloseReason;
use crate::model::id::Id;
use crate::model::millis::whole_millis;
use crate::model::names::Namespace;
use crate::model::place::Place;
use crate::model::refusal::Refusal;
use crate::model::session_note::SessionNote;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::protocol::json_text::{Text, unquote};
use crate::protocol::socketio_encode as encode;
use crate::protocol::socketio_msgpack;
use crate::refusals::{Who, shown};
use crate::rules::AuthKeys;
use crate::session::connection::{ConnectionKey, ConnectionUse, SessionKey};
use crate::session::recovery::NotRecovered;
use crate::shard::persist;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of a handshake auth that are not the application's: the names `token`, `pid` and `offset`, and the values of the
/// last two.
const RESUME_BYTES: usize = 200;
/// The code and the metric of a handshake auth over `limits.auth_bytes`.
pub const AUTH_TOO_BIG: &str = "auth_too_big";

/// What a CONNECT's payload says, apart from the application's own keys.
#[derive(Default)]
struct Handshake {
    token: Option<String>,
    pid: Option<Id>,
    offset: Option<String>,
    /// The rest, raw JSON; `None` when nothing is left.
    rest: Option<Box<str>>,
}

impl Handshake {
    /// Keeps only `used` keys, besides those that are Socket.IO's and roomcast's own.
    fn read(auth: Option<&str>, used: &AuthKeys) -> Self {
        let fields: Option<BTreeMap<Text, &RawValue>> = auth.and_then(|text| serde_json::from_str(text).ok());
        let fields = fields.unwrap_or_default().into_iter();
        let mut fields: BTreeMap<String, &RawValue> = fields.map(|(Text(key), value)| (key, value)).collect();
        let mut text = |key: &str| fields.remove(key).and_then(|raw| unquote(raw.get()).map(Cow::into_owned));
        let (token, pid, offset) = (text("token"), text("pid"), text("offset"));
        fields.retain(|key, _| used.contains(key));
        let rest = (!fields.is_empty()).then(|| serde_json::to_string(&fields).ok()).flatten();
        Self { token, pid: pid.and_then(|pid| Id::parse(&pid)), offset, rest: rest.map(Into::into) }
    }

    /// Reads an auth of which no more than `limits.auth_bytes` are the application's.
    fn within_limits(local: &LocalNode, auth: Option<Box<str>>) -> Option<Self> {
        let settings = local.context.settings();
        let (bytes, max) = (auth.as_ref().map_or(0, |auth| auth.len()), settings.limits.auth_bytes + RESUME_BYTES);
        if bytes > max + MAX_TOKEN {
            return None;
        }
        let handshake = Self::read(auth.as_deref(), &settings.rules.auth_keys);
        let token_bytes = handshake.token.as_ref().map_or(0, String::len);
        (bytes.saturating_sub(token_bytes) <= max).then_some(handshake)
    }
}

/// Lets a client into a namespace: into the session that it had, or a new one. Otherwise it has its CONNECT_ERROR, or is closed.
pub async fn connect(local: &Rc<LocalNode>, key: ConnectionKey, namespace: Namespace, auth: Option<Box<str>>) {
    if admin_ui::is_ours(local, &namespace) {
        return admin_ui::connect(local, key, auth.as_deref());
    }
    let index = local.context.namespaces.find_joinable(&namespace);
    let Some(index) = index.filter(|_| local.shard.connection_use(key) == ConnectionUse::Clients) else {
        let why = format_args!("namespace {} is not in socketio.namespaces", shown(&namespace));
        local.context.refusals.note(Refusal::Namespace, &local.shard.who(key), why);
        return refuse(local, key, &namespace, "Invalid namespace", None);
    };
    if local.shard.session_in(key, index).is_some() {
        return fail(local, key, CloseReason::ParseError);
    }
    if overload::refuse_session(local, key) {
        return;
    }
    let Some(handshake) = Handshake::within_limits(local, auth) else {
        return refuse_large_auth(local, key, &namespace);
    };
    let Some(identity) = authenticate(local, key, &namespace, handshake.token.as_deref()).await else { return };
    if let Err(many) = session_start::enter_account(local, key, &identity) {
        return refuse_one_more(local, key, &namespace, &many);
    }
    local.shard.prove(key);
    let newcomer = Newcomer { connection: key, namespace: index, identity, auth: handshake.rest };
    let (pid, offset) = (handshake.pid.filter(|_| local.context.recovery_on()), handshake.offset.as_deref());
    let Some((session, lost)) = enter(local, newcomer, &namespace, pid, offset).await else { return };
    if let Some(lost) = lost {
        let after = offset.and_then(Place::parse).map(Box::new);
        local.shard.note(session, SessionNote::Gap { code: lost.code(), room: None, after });
    }
    lifecycle_rules::run_connection(local, session, &namespace).await;
}

/// The session that `pid` names if it can continue; else a new one, and why the old one could not.
async fn enter(
    local: &Rc<LocalNode>,
    newcomer: Newcomer,
    namespace: &str,
    pid: Option<Id>,
    offset: Option<&str>,
) -> Option<(SessionKey, Option<NotRecovered>)> {
    let key = newcomer.connection;
    let Some(pid) = pid else { return Some((begin(local, newcomer, namespace).await?, None)) };
    match Box::pin(resume::socketio(local, &newcomer, pid, offset)).await {
        Outcome::Resumed(resumed) => Some((resume_in(local, newcomer, *resumed, namespace).await?, None)),
        // Looking for the session on other shards and nodes may have taken a moment.
        Outcome::New(_) if !is_open(local, key, Protocol::SocketIo) => None,
        Outcome::New(lost) => Some((begin(local, newcomer, namespace).await?, Some(lost))),
        // A new session would make it throw away what it could still have; the stock client comes again by itself.
        Outcome::NotNow => {
            fail(local, key, CloseReason::Unreachable);
            None
        }
    }
}

/// Continues a session, with the CONNECT reply, unless its client has gone or was revoked meanwhile.
async fn resume_in(local: &Rc<LocalNode>, newcomer: Newcomer, resumed: Resumed, namespace: &str) -> Option<SessionKey> {
    let key = newcomer.connection;
    if !is_open(local, key, Protocol::SocketIo) {
        resume::put_back(local, resumed);
        return None;
    }
    if session_start::was_revoked(local, namespace, &newcomer.identity) {
        resume::put_back(local, resumed);
        refuse(local, key, namespace, &AuthError::Revoked.to_string(), Some(AuthError::Revoked.code()));
        return None;
    }
    let (session, grown) = resume::continue_session(local, newcomer, resumed, namespace);
    // A live node that gave it away has removed its record. Until it is written here, the death of this node would
    // lose the session, which the client notices. It would not notice a record without its new rooms.
    if !persist::persist_now(&local.shard, session).await && grown {
        fail(local, key, CloseReason::Unreachable);
        return None;
    }
    Some(session)
}

/// A new session in its first rooms, and the CONNECT reply.
async fn begin(local: &Rc<LocalNode>, newcomer: Newcomer, namespace: &str) -> Option<SessionKey> {
    let key = newcomer.connection;
    let pid = local.context.recovery_on().then(|| local.shard.fresh_id());
    let mut session = newcomer.session(local, Id::random_session(), pid);
    let rooms = match session_start::first_rooms(local, &session) {
        Ok(rooms) => rooms,
        Err(error) => {
            refuse(local, key, namespace, &error.to_string(), Some(error.code()));
            return None;
        }
    };
    match local.shard.take_first_joins(key, rooms.len()) {
        Ok(()) => {}
        Err(Some(retry)) => {
            refuse_returning(local, key, namespace, JoinError::TooFast(retry));
            return None;
        }
        Err(None) => {
            fail(local, key, CloseReason::RateLimit);
            return None;
        }
    }
    let (id, pid) = (session.id.to_string(), pid.map(|pid| pid.to_string()));
    let mut reserved = session_start::reserve(local, &mut session, &rooms).await;
    if !is_open(local, key, Protocol::SocketIo) {
        session_start::abandon(local, &session, &rooms);
        return None;
    }
    if session_start::was_revoked(local, namespace, &session.identity) {
        session_start::abandon(local, &session, &rooms);
        refuse(local, key, namespace, &AuthError::Revoked.to_string(), Some(AuthError::Revoked.code()));
        return None;
    }
    let session = session_start::admit(local, session, rooms.memberships(), &mut reserved);
    local.shard.push_packet(key, encode::connect(namespace, &id, pid.as_deref()));
    Some(session)
}

/// Checks the token; on a refusal the client has its CONNECT_ERROR, and `None` is answered.
async fn authenticate(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    namespace: &str,
    token: Option<&str>,
) -> Option<Arc<Identity>> {
    let handshake_token = local.shard.handshake_token(key);
    let token = token.and_then(bare_token).or(handshake_token.as_deref());
    let checked = local.node.auth.authenticate(token, unix_ms() / 1000).await;
    let address = local.shard.address(key);
    session_start::note_handshake(local, Attempt { address, namespace, token }, &checked);
    match checked {
        Ok(identity) => is_open(local, key, Protocol::SocketIo).then_some(identity),
        Err(error) => {
            refuse(local, key, namespace, &error.to_string(), Some(error.code()));
            None
        }
    }
}

/// Answers a CONNECT with CONNECT_ERROR. The connection stays, and its connect timeout goes on
/// (docs/protocol/socketio.md section 3.3).
fn refuse(local: &LocalNode, key: ConnectionKey, namespace: &str, message: &str, code: Option<&str>) {
    let data = code.map(|code| serde_json::json!({ "code": code }).to_string());
    local.shard.push_packet(key, encode::connect_error(namespace, message, data.as_deref()));
}

/// Answers a CONNECT of a user or tenant who has all the connections it may have, or begins too many.
fn refuse_one_more(local: &LocalNode, key: ConnectionKey, namespace: &str, many: &TooMany) {
    let Some(retry) = many.retry_ms else { return refuse(local, key, namespace, many.message, Some(many.code)) };
    let data = serde_json::json!({ "code": many.code, "retry_after_ms": retry }).to_string();
    local.shard.push_packet(key, encode::connect_error(namespace, many.message, Some(&data)));
}

/// Answers a CONNECT to a namespace that the client leaves and joins all the time.
fn refuse_returning(local: &LocalNode, key: ConnectionKey, namespace: &str, error: JoinError) {
    local.context.refusals.note(Refusal::Rate, &local.shard.who(key), format_args!("{error}"));
    let retry = error.retry().map_or(0, whole_millis);
    let data = serde_json::json!({ "code": error.code(), "retry_after_ms": retry }).to_string();
    local.shard.push_packet(key, encode::connect_error(namespace, &error.to_string(), Some(&data)));
}

/// Answers a CONNECT whose auth is over the limit; it is not read.
pub fn refuse_large_auth(local: &LocalNode, key: ConnectionKey, namespace: &str) {
    if !take_turn(local, key) {
        return;
    }
    local.context.metrics.auth.handshake(AUTH_TOO_BIG);
    let max = local.context.settings().limits.auth_bytes;
    let message = format!("the handshake auth is over `limits.auth_bytes` ({max} bytes)");
    let who = Who::at(local.shard.address(key)).about(format!("a client of namespace {}", shown(namespace)));
    local.context.refusals.note(Refusal::Size, &who, format_args!("{message}"));
    refuse(local, key, namespace, &message, Some(AUTH_TOO_BIG));
}

/// Answers a CONNECT of a client with `socket.io-msgpack-parser`, so that its application gets an error.
pub fn refuse_parser(local: &LocalNode, key: ConnectionKey, namespace: &str) {
    if !take_turn(local, key) {
        return;
    }
    local.context.metrics.auth.handshake(socketio_msgpack::CODE);
    let who = Who::at(local.shard.address(key)).about(format!("a client of namespace {}", shown(namespace)));
    local.context.refusals.note(Refusal::Parser, &who, format_args!("{}", socketio_msgpack::REFUSAL));
    local.shard.push_packet(key, socketio_msgpack::refusal(namespace));
}
