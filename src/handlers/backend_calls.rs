//! Requests and notices to the backend about a client.

use crate::backend::answer;
use crate::backend::answer::EventAnswer;
use crate::backend::request::{BackendRequest, RequestKind, SessionInfo};
use crate::backend::{Backend, BackendError};
use crate::model::args::Args;
use crate::model::close::DropReason;
use crate::model::names::Room;
use crate::node::context::LocalNode;
use crate::session::Session;
use crate::session::connection::SessionKey;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::SystemTime;

/// Asks whether a session may join a room.
///
/// # Errors
/// When it may not, or the backend gives no usable answer.
pub async fn join(local: &LocalNode, key: SessionKey, room: &str) -> Result<(), BackendError> {
    let about = about_live(local, key).ok_or_else(gone)?;
    join_of(local, about, room).await
}

/// The same, for a session that is not on the shard yet.
///
/// # Errors
/// As [`join`].
pub async fn join_of(local: &LocalNode, about: SessionInfo<'_>, room: &str) -> Result<(), BackendError> {
    let backend = backend(local)?;
    let mut call = BackendRequest::of_session(RequestKind::Join, about, now());
    call.room = Some(room);
    backend.call(&call, answer::read_decision).await
}

/// Forwards a client's event.
///
/// # Errors
/// The backend's refusal, or why there is no answer that can be used.
pub async fn event(local: &LocalNode, key: SessionKey, event: &str, args: &Args) -> Result<EventAnswer, BackendError> {
    let about = about_live(local, key).ok_or_else(gone)?;
    forward(local, about, event, args).await
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
) -> Result<EventAnswer, BackendError> {
    let backend = backend(local)?;
    let namespace = about.namespace.into();
    let mut call = BackendRequest::of_session(RequestKind::Event, about, now());
    call.event = Some(event);
    call.args = serde_json::from_str(args.as_array()).ok();
    backend.call(&call, |body| answer::read_event(body, &namespace, &local.context.draft_limits)).await
}

/// Tells the backend that a session begins, or is taken up again: before presence is written, so that the backend hears of
/// the session first.
pub fn connected(local: &LocalNode, session: &Session, rooms: &[Room]) {
    if let Some(backend) = wanting(local, RequestKind::Connect) {
        let about = about(local, session, rooms.to_vec());
        tell(local, backend, &BackendRequest::of_session(RequestKind::Connect, about, now()));
    }
}

/// Tells the backend that a session has lost its connection, or is over.
pub fn disconnected(local: &LocalNode, session: &Session, rooms: &[Room], reason: &str) {
    if let Some(backend) = wanting(local, RequestKind::Disconnect) {
        let mut call =
            BackendRequest::of_session(RequestKind::Disconnect, about(local, session, rooms.to_vec()), now());
        call.reason = Some(reason);
        tell(local, backend, &call);
    }
}

fn wanting(local: &LocalNode, kind: RequestKind) -> Option<&Backend> {
    local.node.backend.as_deref().filter(|backend| backend.wants(kind))
}

fn tell(local: &LocalNode, backend: &Backend, call: &BackendRequest<'_>) {
    let dropped = backend.notify(call);
    local.context.metrics.dropped(DropReason::Notice, dropped as u64);
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
