//! Requests and notices to the backend about a client.

use crate::backend::answer;
use crate::backend::answer::EventAnswer;
use crate::backend::request::{BackendRequest, Origin, RequestKind, SessionInfo};
use crate::backend::{Backend, BackendError, Place, Source, Subject};
use crate::model::args::Args;
use crate::model::clock::unix_us;
use crate::model::millis::Millis;
use crate::model::names::Room;
use crate::model::trace_context::TraceContext;
use crate::node::context::LocalNode;
use crate::session::Session;
use crate::session::connection::SessionKey;
use crate::telemetry::{Parent, Span, SpanKind};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The span of what a client did.
pub const CLIENT_SPAN: &str = "client event";

/// The turn of a packet, or of a rule, with the backend: its place in the queue, and when its time is over.
pub struct Ask {
    place: Place,
    deadline: Instant,
    /// What the client did, from its arrival on.
    span: Span,
}

impl Ask {
    /// For what arrived at this time; `None` without a backend.
    pub fn new(local: &LocalNode, place: Place, arrived: Millis) -> Option<Self> {
        let waited = Duration::from_millis(local.shard.now().get() - arrived.get());
        let timeout = local.node.backend.as_ref()?.timeout();
        let waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let span = local
            .context
            .telemetry
            .start_at(CLIENT_SPAN, SpanKind::Server, Parent::None, || unix_us().saturating_sub(waited_us));
        Some(Self { place, deadline: Instant::now() + timeout.saturating_sub(waited), span })
    }

    /// For a session, from now on.
    ///
    /// # Errors
    /// When there is no place in the queue.
    pub fn now(local: &LocalNode, kind: RequestKind, key: SessionKey) -> Result<Self, BackendError> {
        Self::at_once(local, take_place(local, kind, key, 0)?)
    }

    /// For a session that has ended.
    ///
    /// # Errors
    /// When there is no place in the queue.
    pub fn of_source(local: &LocalNode, kind: RequestKind, source: Source) -> Result<Self, BackendError> {
        Self::at_once(local, backend(local)?.take_place(kind, source, 0)?)
    }

    fn at_once(local: &LocalNode, place: Place) -> Result<Self, BackendError> {
        let span = local.context.telemetry.start(CLIENT_SPAN, SpanKind::Server, Parent::None);
        Ok(Self { place, deadline: Instant::now() + backend(local)?.timeout(), span })
    }

    /// What belongs to the same trace gets this.
    pub fn trace(&self) -> Option<Box<TraceContext>> {
        self.span.context()
    }
}

/// A place in the backend's queue for a packet of a session that has so many bytes.
///
/// # Errors
/// When the queue is full, or its user has all that they may have of it.
pub fn take_place(local: &LocalNode, kind: RequestKind, key: SessionKey, bytes: usize) -> Result<Place, BackendError> {
    let source = local.shard.with_session(key, |session| live_source(local, session)).ok_or_else(gone)?;
    backend(local)?.take_place(kind, source, bytes)
}

/// Whom a session is charged to.
pub fn source(local: &LocalNode, session: &Session, address: Option<IpAddr>) -> Source {
    let identity = &session.identity;
    match &identity.user {
        Some(user) => {
            let settings = local.context.settings();
            let claim = settings.limits.tenant_claim.as_ref();
            Source::user(user.as_str()).of_tenant(claim.and_then(|claim| identity.claim_text(claim)).as_deref())
        }
        None => Source::address(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
    }
}

/// The same for one whose connection is here.
pub fn live_source(local: &LocalNode, session: &Session) -> Source {
    // Only looked up for clients without a user.
    let address = if session.identity.user.is_none() { local.shard.address(session.connection) } else { None };
    source(local, session, address)
}

/// Asks whether a session may join a room.
///
/// # Errors
/// When it may not, or the backend gives no usable answer.
pub async fn join(local: &LocalNode, key: SessionKey, room: &str, ask: &Ask) -> Result<(), BackendError> {
    let about = about_live(local, key).ok_or_else(gone)?;
    join_of(local, about, room, ask).await
}

/// The same, for a session that is not on the shard yet.
///
/// # Errors
/// As [`join`].
pub async fn join_of(local: &LocalNode, about: SessionInfo<'_>, room: &str, ask: &Ask) -> Result<(), BackendError> {
    let backend = backend(local)?;
    let mut call = BackendRequest::of_session(RequestKind::Join, about, now());
    call.room = Some(room);
    call.trace = Origin::Client(ask.trace());
    // Boxed: every packet would have room for a request.
    Box::pin(backend.call(&ask.place, ask.deadline, &call, answer::read_decision)).await
}

/// Forwards a client's event.
///
/// # Errors
/// The backend's refusal, or why there is no answer that can be used.
pub async fn event(
    local: &LocalNode,
    key: SessionKey,
    event: &str,
    args: &Args,
    ask: &Ask,
) -> Result<EventAnswer, BackendError> {
    let about = about_live(local, key).ok_or_else(gone)?;
    forward(local, about, event, args, ask).await
}

/// The same, for a session that may have ended.
///
/// # Errors
/// As [`event`].
pub async fn forward(
    local: &LocalNode,
    about: SessionInfo<'_>,
    event: &str,
    args: &Args,
    ask: &Ask,
) -> Result<EventAnswer, BackendError> {
    let backend = backend(local)?;
    let namespace = about.namespace.into();
    let mut call = BackendRequest::of_session(RequestKind::Event, about, now());
    call.event = Some(event);
    call.trace = Origin::Client(ask.trace());
    call.args = serde_json::from_str(args.as_array()).ok();
    let read = |body: &[u8]| answer::read_event(body, &namespace, &local.context.draft_limits);
    Box::pin(backend.call(&ask.place, ask.deadline, &call, read)).await
}

/// Tells the backend that a session begins, or is taken up again: before presence is written, so that the backend hears of
/// the session first.
pub fn connected(local: &LocalNode, session: &Session, rooms: &[Room]) {
    if let Some(backend) = wanting(local, RequestKind::Connect) {
        let about = about(local, session, rooms.to_vec());
        let call = BackendRequest::of_session(RequestKind::Connect, about, now());
        backend.notify(&live_source(local, session), Subject::Session(session.id), &call);
    }
}

/// Tells the backend that a session has lost its connection, or is over.
pub fn disconnected(local: &LocalNode, source: &Source, session: &Session, rooms: &[Room], reason: &str) {
    if let Some(backend) = wanting(local, RequestKind::Disconnect) {
        let mut call =
            BackendRequest::of_session(RequestKind::Disconnect, about(local, session, rooms.to_vec()), now());
        call.reason = Some(reason);
        backend.notify(source, Subject::Session(session.id), &call);
    }
}

fn wanting(local: &LocalNode, kind: RequestKind) -> Option<&Backend> {
    local.node.backend.as_deref().filter(|backend| backend.wants(kind))
}

/// What a call tells the backend about a session.
pub fn about<'a>(local: &'a LocalNode, session: &Session, rooms: Vec<Room>) -> SessionInfo<'a> {
    let raw = |json: String| Cow::Owned(RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned()));
    let user = session.identity.user.as_ref().map_or_else(|| "null".to_owned(), |user| user.as_json());
    SessionInfo {
        namespace: local.context.namespaces.name(session.namespace),
        user: raw(user),
        claims: raw(session.identity.claims.to_string()),
        session: session.id.to_string(),
        rooms,
    }
}

fn about_live(local: &LocalNode, key: SessionKey) -> Option<SessionInfo<'_>> {
    local.shard.with_session(key, |session| about(local, session, session.rooms().cloned().collect()))
}

fn backend(local: &LocalNode) -> Result<&Backend, BackendError> {
    // A configuration that needs a backend and has none is refused at the start.
    local.node.backend.as_deref().ok_or_else(|| BackendError::Unreachable("there is no [backend] url".into()))
}

fn gone() -> BackendError {
    BackendError::Refused("the session has ended".into())
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
