//! Socket.IO packets of a client: CONNECT, DISCONNECT, EVENT, ACK (docs/protocol/socketio.md section 3).

use crate::auth::identity::Identity;
use crate::auth::{AuthError, MAX_TOKEN, bare_token};
use crate::backend::request::RequestKind;
use crate::handlers::action_error::{ActionError, Failure};
use crate::handlers::backend_calls::Ask;
use crate::handlers::backend_lane::{Deferred, Need};
use crate::handlers::lifecycle_rules;
use crate::handlers::rate_limit::take_turn;
use crate::handlers::resume;
use crate::handlers::resume::Outcome;
use crate::handlers::room_access::JoinError;
use crate::handlers::rule_runner;
use crate::handlers::rule_runner::Ran;
use crate::handlers::session_start::{Attempt, TooMany};
use crate::handlers::{admin_ui, fail, is_open, overload, session_start};
use crate::model::args::Args;
use crate::model::clock::unix_ms;
use crate::model::close::{CloseReason, DropReason};
use crate::model::id::Id;
use crate::model::millis::whole_millis;
use crate::model::names::Namespace;
use crate::model::place::Place;
use crate::model::refusal::Refusal;
use crate::model::session_note::SessionNote;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::protocol::json_text::{Text, unquote};
use crate::protocol::socketio::Packet;
use crate::protocol::socketio_encode as encode;
use crate::protocol::socketio_msgpack;
use crate::refusals::{Who, shown};
use crate::rules::AuthKeys;
use crate::session::connection::{ConnectionKey, ConnectionUse, SessionKey};
use crate::session::pending_packets::Inbound;
use crate::shard::persist;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Works on one packet, or gives it back because it has to wait for the backend.
pub async fn handle(local: &Rc<LocalNode>, key: ConnectionKey, packet: Packet) -> Option<Deferred> {
    let defer = |packet, session, need| Some(Deferred { packet: Inbound::SocketIo(packet), session, need });
    let behind = || Need { kind: RequestKind::Event, rooms: Vec::new() };
    match packet {
        Packet::Connect { namespace, auth } => {
            // The client may come back to a namespace while its leave waits.
            if let Some(session) = session_in(local, key, &namespace)
                && local.backend_lanes.is_leaving(key, session)
            {
                return defer(Packet::Connect { namespace, auth }, session, behind());
            }
            connect(local, key, namespace, auth).await;
        }
        Packet::Disconnect { namespace } if admin_ui::is_ours(local, &namespace) => admin_ui::leave(local, key),
        Packet::Event { namespace, ack, event, args } if admin_ui::is_ours(local, &namespace) => {
            admin_ui::event(local, key, ack.as_deref(), &event, &args).await;
        }
        Packet::Disconnect { namespace } => {
            let session = session_in(local, key, &namespace)?;
            // What the client sent before must not be lost.
            if local.backend_lanes.is_busy(key) {
                return defer(Packet::Disconnect { namespace }, session, behind());
            }
            leave_namespace(local, session);
        }
        Packet::Event { namespace, ack, event, args } => {
            let Some(session) = session_in(local, key, &namespace) else {
                // An event for a namespace that was not joined (docs/protocol/socketio.md section 3.3).
                fail(local, key, CloseReason::ParseError);
                return None;
            };
            let need = on_event(local, key, session, &namespace, ack.as_deref(), &event, &args, None).await?;
            return defer(Packet::Event { namespace, ack, event, args }, session, need);
        }
        // We never ask for an acknowledgement, and the reference ignores unknown ones (docs/protocol/socketio.md
        // section 3.3).
        Packet::Ack { .. } => {}
    }
    None
}

/// Works on a packet of a session whose turn with the backend has come.
pub async fn handle_asking(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    session: SessionKey,
    packet: Packet,
    ask: Option<&Ask>,
) {
    match packet {
        Packet::Connect { namespace, auth } => connect(local, key, namespace, auth).await,
        Packet::Disconnect { .. } => leave_namespace(local, session),
        Packet::Event { namespace, ack, event, args } => {
            on_event(local, key, session, &namespace, ack.as_deref(), &event, &args, ask).await;
        }
        Packet::Ack { .. } => {}
    }
}

fn session_in(local: &LocalNode, key: ConnectionKey, namespace: &str) -> Option<SessionKey> {
    local.context.namespaces.find(namespace).and_then(|index| local.shard.session_in(key, index))
}

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
}

async fn connect(local: &Rc<LocalNode>, key: ConnectionKey, namespace: Namespace, auth: Option<Box<str>>) {
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
    let max = local.context.settings().limits.auth_bytes;
    let bytes = auth.as_ref().map_or(0, |auth| auth.len());
    if bytes > max + MAX_TOKEN + RESUME_BYTES {
        return refuse_large_auth(local, key, &namespace);
    }
    let handshake = Handshake::read(auth.as_deref(), &local.context.settings().rules.auth_keys);
    drop(auth);
    let token_bytes = handshake.token.as_ref().map_or(0, String::len);
    if bytes.saturating_sub(token_bytes) > max + RESUME_BYTES {
        return refuse_large_auth(local, key, &namespace);
    }
    let Some(identity) = authenticate(local, key, &namespace, handshake.token.as_deref()).await else { return };
    if let Err(many) = session_start::enter_account(local, key, &identity) {
        return refuse_one_more(local, key, &namespace, &many);
    }
    local.shard.prove(key);
    let newcomer = session_start::Newcomer { connection: key, namespace: index, identity, auth: handshake.rest };
    let mut lost = None;
    let resumed = match handshake.pid.filter(|_| local.context.recovery_on()) {
        Some(pid) => match Box::pin(resume::socketio(local, &newcomer, pid, handshake.offset.as_deref())).await {
            Outcome::Resumed(resumed) => Some(*resumed),
            Outcome::New(reason) => {
                lost = Some(reason);
                None
            }
            // A new session would make it throw away what it could still have; the stock client comes again by itself.
            Outcome::NotNow => return fail(local, key, CloseReason::Unreachable),
        },
        None => None,
    };
    // Taking over a session from another shard may have taken a moment.
    if !is_open(local, key, Protocol::SocketIo) {
        return resumed.into_iter().for_each(|resumed| resume::put_back(local, resumed));
    }
    if resumed.is_some() && session_start::was_revoked(local, &namespace, &newcomer.identity) {
        resumed.into_iter().for_each(|resumed| resume::put_back(local, resumed));
        return refuse(local, key, &namespace, &AuthError::Revoked.to_string(), Some(AuthError::Revoked.code()));
    }
    let session = match resumed {
        Some(resumed) => {
            let (session, grown) = resume::continue_session(local, newcomer, resumed, &namespace);
            // A live node that gave it away has removed its record. Until it is written here, the death of this node would
            // lose the session, which the client notices. It would not notice a record without its new rooms.
            if !persist::persist_now(&local.shard, session).await && grown {
                return fail(local, key, CloseReason::Unreachable);
            }
            session
        }
        None => match begin_session(local, newcomer, &namespace).await {
            Some(session) => session,
            None => return,
        },
    };
    if let Some(lost) = lost {
        let after = handshake.offset.as_deref().and_then(Place::parse).map(Box::new);
        local.shard.note(session, SessionNote::Gap { code: lost.code(), room: None, after });
    }
    lifecycle_rules::run_connection(local, session, &namespace).await;
}

/// A new session in its first rooms, and the CONNECT reply.
async fn begin_session(
    local: &Rc<LocalNode>,
    newcomer: session_start::Newcomer,
    namespace: &str,
) -> Option<SessionKey> {
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

/// The client leaves a namespace; the connection stays (docs/protocol/socketio.md section 3.3).
fn leave_namespace(local: &LocalNode, session: SessionKey) {
    if let Some(connection) = local.shard.connection_of(session) {
        local.shard.note_left(connection);
    }
    local.shard.dismiss(session, CloseReason::ClientClose);
}

/// Carries out the rule and answers, or says what the event has to wait for.
#[expect(clippy::too_many_arguments, reason = "the fields of an EVENT packet")]
async fn on_event(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    session: SessionKey,
    namespace: &str,
    ack: Option<&str>,
    event: &str,
    args: &Args,
    ask: Option<&Ask>,
) -> Option<Need> {
    let result = match local.context.settings().rules.on(namespace, event) {
        Some(rule) => rule_runner::run(local, session, rule, event, args, ask).await,
        None => Err(unruled(local, session, event)),
    };
    if let Ok(Ran::Deferred(need)) = result {
        return Some(need);
    }
    let ack = ack?;
    let args = match result {
        Ok(ran) => ran.ack().unwrap_or_else(Args::none),
        Err(failure) => failure.ack.unwrap_or_else(|| default_ack(&failure.error)),
    };
    let packet = encode::ack(namespace, ack, &args).or_else(|problem| {
        // What an `ack_error` makes of the arguments, say: the client waits for an answer all the same.
        tracing::warn!(error = %problem, %event, "an acknowledgement cannot be written; the client gets the error instead");
        encode::ack(namespace, ack, &default_ack(&ActionError::Unwritable(problem)))
    });
    match packet {
        Ok(packet) => local.shard.push_packet(key, packet),
        Err(error) => tracing::warn!(%error, %event, "an acknowledgement cannot be written"),
    }
    None
}

/// An event without a rule: refused and counted.
pub fn unruled(local: &LocalNode, session: SessionKey, event: &str) -> Failure {
    local.context.metrics.events.dropped(DropReason::NoRule, 1);
    let shown: String = event.chars().take(64).collect();
    let error = ActionError::NoRule(shown);
    rule_runner::note_refusal(local, session, event, &error);
    Failure { error, ack: None }
}

/// `[{"error":{"code","message"}}]`: what an acknowledgement says where no rule says it.
pub fn default_ack(error: &ActionError) -> Args {
    let mut json = serde_json::json!([{ "error": { "code": error.code(), "message": error.to_string() } }]);
    if let Some(retry) = error.retry() {
        json[0]["error"]["retry_after_ms"] = whole_millis(retry).into();
    }
    Args::list(&json.to_string()).unwrap_or_else(|_| Args::none())
}
