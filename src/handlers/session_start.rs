//! From an identity to a live session: the rooms it starts in, its expiry, its place on the shard.

use crate::auth::AuthError;
use crate::auth::identity::Identity;
use crate::budget::account::{OverLimit, Refused};
use crate::feed::Subject;
use crate::handlers::backend_calls;
use crate::model::clock::unix_ms;
use crate::model::close::CloseReason;
use crate::model::happening::Kind;
use crate::model::id::Id;
use crate::model::millis::whole_millis;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::{Offset, Position};
use crate::model::provenance::Provenance;
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::presence::Ticket;
use crate::presence::local::Reservation;
use crate::refusals::{Who, shown};
use crate::rules::{Caller, TemplateError};
use crate::session::Session;
use crate::session::caller::with_identity;
use crate::session::changes::Changes;
use crate::session::connection::{ConnectionKey, SessionKey};
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// A client that was authenticated and has no session yet.
#[derive(Clone)]
pub struct Newcomer {
    /// Its connection.
    pub connection: ConnectionKey,
    /// Its namespace.
    pub namespace: NamespaceIndex,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The handshake auth without the token, raw JSON.
    pub auth: Option<Box<str>>,
}

impl Newcomer {
    /// The session it gets, not on the shard yet.
    pub fn session(self, local: &LocalNode, id: Id, pid: Option<Id>) -> Box<Session> {
        let mut session = Box::new(Session {
            id,
            pid,
            connection: self.connection,
            namespace: self.namespace,
            identity: self.identity,
            auth: self.auth,
            start: Offset::default(),
            lines: None,
            expires: None,
            last: Position::default(),
            moves: 0,
            brought_later: false,
            changes: Changes::default(),
            announced: Ticket::default(),
            mark: 0,
            since_ms: unix_ms(),
        });
        session.begin_at(&local.shard.position());
        session
    }
}

/// The rooms that a token brings by itself: those with `join = "auto"`, then the exact names that it grants.
#[derive(Default)]
pub struct FirstRooms {
    rooms: Vec<Room>,
    automatic: usize,
}

impl FirstRooms {
    /// With why the session is in each.
    pub fn memberships(&self) -> impl Iterator<Item = (&Room, Provenance)> {
        let by = |index| if index < self.automatic { Provenance::Auto } else { Provenance::Grant };
        self.rooms.iter().enumerate().map(move |(index, room)| (room, by(index)))
    }

    /// Why a session is in this room, if the token brings it.
    pub fn provenance(&self, room: &Room) -> Option<Provenance> {
        self.memberships().find(|(own, _)| *own == room).map(|(_, by)| by)
    }
}

impl Deref for FirstRooms {
    type Target = [Room];

    fn deref(&self) -> &[Room] {
        &self.rooms
    }
}

/// The rooms that a session starts in, as many as a session may be in.
///
/// # Errors
/// When a value of the token would make an unsafe room name.
pub fn first_rooms(local: &LocalNode, session: &Session) -> Result<FirstRooms, TemplateError> {
    rooms_of_token(local, &session.identity, session.auth.as_deref(), session.id, session.namespace)
}

/// The same, for a session that gets this identity.
///
/// # Errors
/// When a value of the token would make an unsafe room name.
pub fn rooms_of_token(
    local: &LocalNode,
    identity: &Identity,
    auth: Option<&str>,
    id: Id,
    namespace: NamespaceIndex,
) -> Result<FirstRooms, TemplateError> {
    let namespace = local.context.namespaces.name(namespace);
    let rooms =
        with_identity(identity, auth, &id.to_string(), namespace, |caller| rooms_of_caller(local, identity, caller));
    rooms.inspect_err(|error| {
        let why = format_args!("{}: a claim does not fit into a room of [[rooms]] with join = \"auto\"", error.code());
        let user = identity.user.as_ref().map(|user| user.as_str());
        local.context.refusals.note(Refusal::Token, &Who::default().session(id, user), why);
    })
}

/// The same; a refusal is not noted.
///
/// # Errors
/// When a value of the token would make an unsafe room name.
pub fn rooms_of_caller(
    local: &LocalNode,
    identity: &Identity,
    caller: &Caller<'_>,
) -> Result<FirstRooms, TemplateError> {
    let settings = local.context.settings();
    let mut rooms = settings.rules.auto_rooms(caller)?;
    let automatic = rooms.len();
    for room in identity.grants.exact() {
        if !rooms.iter().any(|known| **known == *room) {
            rooms.push(room.into());
        }
    }
    rooms.truncate(settings.limits.rooms_per_session);
    Ok(FirstRooms { rooms, automatic })
}

/// Counts a session that is about to begin, with its rooms, so that it is in the presence store before it is acknowledged.
/// A connection is let in also where the store does not answer in time; the store gets it as soon as it does. One that
/// breaks off meanwhile is to be [`abandon`]ed.
pub async fn reserve(local: &LocalNode, session: &mut Session, rooms: &[Room]) -> Reservation {
    backend_calls::connected(local, session, rooms);
    let reserved = local.shard.reserve(session, rooms);
    local.node.presence.written_unless_failing(reserved.ticket()).await;
    local.shard.pass_left_out(session.namespace, rooms).await;
    session.begin_at(&local.shard.position());
    reserved
}

/// Tells the backend that a session which was about to begin does not.
pub fn abandon(local: &LocalNode, session: &Session, rooms: &[Room]) {
    let source = backend_calls::source(local, session, local.shard.address(session.connection));
    backend_calls::disconnected(local, &source, session, rooms, "transport close");
}

/// Puts a session with its rooms onto the shard; what is `reserved` is counted already.
pub fn admit<'a>(
    local: &Rc<LocalNode>,
    session: Box<Session>,
    rooms: impl IntoIterator<Item = (&'a Room, Provenance)>,
    reserved: &mut Reservation,
) -> SessionKey {
    let namespace = session.namespace;
    let expires = session.identity.expires();
    let id = session.id;
    let key = local.shard.admit(session, rooms, reserved);
    if tracing::enabled!(tracing::Level::DEBUG) {
        let namespace = local.context.namespaces.name(namespace);
        local.shard.with_session(key, |session| {
            let rooms: Vec<_> = session.rooms().collect();
            tracing::debug!(session = %id, %namespace, ?rooms, "connected");
        });
    }
    watch_expiry(local, key, expires);
    key
}

/// Closes the connection when the token ends. A token that was accepted in its leeway ends with the leeway.
pub fn watch_expiry(local: &Rc<LocalNode>, key: SessionKey, expires: Option<u64>) {
    let Some(expires) = expires else { return };
    let leeway = if expires.saturating_mul(1000) <= unix_ms() { local.node.auth.leeway() + 1 } else { 0 };
    local.shard.expire_at_unix(key, expires.saturating_add(leeway));
}

/// The answer to a client whose user, address or tenant has all the connections it may have, or begins too many.
pub struct TooMany {
    /// The error code that clients see.
    pub code: &'static str,
    /// What is reached.
    pub message: &'static str,
    /// When to try again, in milliseconds, where that is known.
    pub retry_ms: Option<u64>,
}

/// Counts a connection for its user, or for its address if it has none, and for the user's tenant.
///
/// # Errors
/// When they have all the connections they may have, or begin too many; that is noted.
pub fn enter_account(local: &LocalNode, key: ConnectionKey, identity: &Identity) -> Result<(), TooMany> {
    local.shard.enter_account(key, identity).map_err(|refused| {
        let (reason, code, message, retry) = match refused {
            Refused::Full(OverLimit::Owner) => {
                let message = "the user has all the connections that `limits.user_connections` allows";
                (Refusal::Connections, "too_many_connections", message, None)
            }
            Refused::Full(OverLimit::Tenant) => {
                let message = "the tenant has all the connections that `limits.tenant_connections` allows";
                (Refusal::Connections, "too_many_connections", message, None)
            }
            Refused::TooFast(too_fast) => {
                let message = "the user begins more connections than `limits.user_connects_per_second` allows";
                (Refusal::Rate, "rate_limited", message, Some(whole_millis(too_fast.retry)))
            }
        };
        let who = Who::at(local.shard.address(key)).user(identity.user.as_ref().map(|user| user.as_str()));
        local.context.refusals.note(reason, &who, format_args!("{message}"));
        if let Some(user) = &identity.user {
            local.shard.note_turned_away(user.as_str(), code, false);
        }
        TooMany { code, message, retry_ms: retry }
    })
}

/// An attempt to get in.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// Where the client is, if that is known.
    pub address: Option<IpAddr>,
    /// The namespace that it wants.
    pub namespace: &'a str,
    /// Its token, if it has one.
    pub token: Option<&'a str>,
}

/// Counts what came of checking a token, and notes a refusal.
pub fn note_handshake(local: &LocalNode, attempt: Attempt<'_>, checked: &Result<Arc<Identity>, AuthError>) {
    let Attempt { address, namespace, token } = attempt;
    match checked {
        Ok(identity) => {
            local.context.metrics.auth.handshake("ok");
            let user = identity.user.as_ref().map(|user| user.as_str());
            let subject = Subject { user, address, namespace: Some(namespace), ..Subject::default() };
            local.context.feed.report(Kind::Handshake, &subject, |_| {});
        }
        Err(error) => {
            local.context.metrics.auth.handshake(error.code());
            let is_asked = local.context.feed.is_open() || local.context.explain.bytes > 0;
            let claimed = token.filter(|_| is_asked).and_then(|token| local.node.auth.claimed_user(token));
            if let Some(user) = &claimed {
                local.shard.note_turned_away(user, error.code(), true);
            }
            let who = Who::at(address).claims(claimed).about(format!("a client of namespace {}", shown(namespace)));
            local.context.refusals.note(Refusal::Token, &who, format_args!("{error}{}", error.advice()));
        }
    }
}

/// Whether a token was revoked since it was checked: the session of such a client is not on the shard yet, where the
/// revocation would have ended it.
pub fn was_revoked(local: &LocalNode, namespace: &str, identity: &Identity) -> bool {
    let revoked = local.node.auth.revocations().refuse(identity, unix_ms());
    if revoked {
        local.context.metrics.auth.handshake(AuthError::Revoked.code());
        let who = Who::default().user(identity.user.as_ref().map(|user| user.as_str()));
        let who = who.about(format!("a client of namespace {}", shown(namespace)));
        let (error, advice) = (AuthError::Revoked, AuthError::Revoked.advice());
        if let Some(user) = &identity.user {
            local.shard.note_turned_away(user.as_str(), error.code(), false);
        }
        local.context.refusals.note(Refusal::Token, &who, format_args!("{error}{advice}"));
    }
    revoked
}

/// Ends a connection that could not be authenticated.
pub fn turn_away(local: &LocalNode, key: ConnectionKey) {
    crate::handlers::fail(local, key, CloseReason::Unauthorized);
}
