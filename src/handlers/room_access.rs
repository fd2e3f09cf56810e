//! Joining and leaving a room on a client's behalf.

use crate::backend::BackendError;
use crate::backend::request::RequestKind;
use crate::handlers::backend_calls;
use crate::handlers::backend_calls::Ask;
use crate::model::draft::check_room_name;
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::presence::local::Reservation;
use crate::refusals;
use crate::refusals::shown;
use crate::rules::{Caller, Captures, RoomRule, TemplateError, Verdict};
use crate::session::caller::with_caller;
use crate::session::connection::SessionKey;
use crate::shard::persist;
use crate::shard::session_face::SessionView;
use std::collections::HashSet;
use std::rc::Rc;

/// Why a join was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Not a name that a room can have.
    #[error("{0}")]
    BadName(String),
    /// No rule lets this session in.
    #[error("not allowed to join \"{0}\"")]
    Forbidden(String),
    /// `limits.rooms_per_session` is reached.
    #[error("already in {0} rooms, which is the most a session may be in")]
    TooMany(usize),
    /// `joined` or `left` of the room cannot be filled for this client.
    #[error(transparent)]
    Template(TemplateError),
    /// The presence store did not take it in time; nothing is joined.
    #[error("presence was not written within 1.5 s; try again")]
    Uncounted,
    /// The session has ended meanwhile.
    #[error("the session has ended")]
    Gone,
    /// The backend refused, or gave no usable answer.
    #[error(transparent)]
    Backend(BackendError),
}

impl JoinError {
    /// The error code that clients see.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadName(_) => "bad_room",
            Self::Forbidden(_) => "forbidden",
            Self::TooMany(_) => "too_many_rooms",
            Self::Template(error) => error.code(),
            Self::Uncounted => "unavailable",
            Self::Gone => "gone",
            Self::Backend(error) => error.code(),
        }
    }

    /// Whether it is no refusal but a failure, so that a later attempt may succeed.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Backend(error) if !matches!(error, BackendError::Refused(_)))
    }
}

/// Whether a session may join these rooms by the rules, its token, and where a rule wants it the backend; nothing is
/// joined. Without `ask` the backend is asked as for a packet that arrives now.
///
/// # Errors
/// The first refusal.
pub async fn allow(local: &LocalNode, key: SessionKey, rooms: &[Room], ask: Option<&Ask>) -> Result<(), JoinError> {
    ask_about(local, key, rooms, ask).await.inspect_err(|error| note_refusal(local, key, error))
}

/// Notes a join that was refused, rather than one that failed.
fn note_refusal(local: &LocalNode, key: SessionKey, error: &JoinError) {
    let room_rules = "see [[rooms]], or the claim auth.rooms_claim of the token";
    let note = |reason, why: std::fmt::Arguments<'_>| {
        let who = local.shard.with_session(key, |session| session.name()).unwrap_or_default();
        refusals::note(&local.context.metrics, reason, format_args!("{who}"), why);
    };
    match error {
        JoinError::Forbidden(room) => {
            note(Refusal::Room, format_args!("no rule lets it into room {}; {room_rules}", shown(room)));
        }
        JoinError::TooMany(max) => {
            note(Refusal::Room, format_args!("it is in {max} rooms already; limits.rooms_per_session allows no more"));
        }
        JoinError::BadName(_) | JoinError::Template(_) => {
            note(Refusal::Room, format_args!("{}: the room's name, or `joined` or `left` of its rule", error.code()));
        }
        JoinError::Backend(BackendError::Refused(_)) => {
            note(Refusal::Backend, format_args!("the backend does not let it into a room with join = \"ask\""));
        }
        JoinError::Backend(_) | JoinError::Uncounted | JoinError::Gone => {}
    }
}

async fn ask_about(local: &LocalNode, key: SessionKey, rooms: &[Room], ask: Option<&Ask>) -> Result<(), JoinError> {
    let asked = check(local, key, rooms)?;
    if asked.is_empty() {
        return Ok(());
    }
    let own = match ask {
        Some(_) => None,
        None => Some(Ask::now(local, RequestKind::Join, key).map_err(JoinError::Backend)?),
    };
    if let Some(ask) = ask.or(own.as_ref()) {
        for room in &asked {
            backend_calls::join(local, key, room, ask).await.map_err(JoinError::Backend)?;
        }
    }
    // Other rooms may have been joined while the backend decided.
    check(local, key, rooms).map(drop)
}

/// Whether the backend has to decide on one of these rooms.
pub fn asks_backend(local: &LocalNode, key: SessionKey, rooms: &[Room]) -> bool {
    check(local, key, rooms).is_ok_and(|asked| !asked.is_empty())
}

/// Checks what is known here. Answers the rooms that the backend must decide on, without those the session is in already.
fn check(local: &LocalNode, key: SessionKey, rooms: &[Room]) -> Result<Vec<Room>, JoinError> {
    local.shard.with_session(key, |session| check_session(local, session, rooms)).unwrap_or(Err(JoinError::Gone))
}

fn check_session(local: &LocalNode, session: &SessionView<'_>, rooms: &[Room]) -> Result<Vec<Room>, JoinError> {
    let (limits, namespace) = (&local.context.limits, local.context.namespaces.name(session.namespace));
    let (mut new, mut asked) = (0, Vec::new());
    for room in rooms {
        check_room_name(room, limits.room_name_bytes).map_err(|e| JoinError::BadName(e.to_string()))?;
        if Id::parse(room).is_some_and(|id| id.is_session()) {
            return Err(JoinError::Forbidden(room.to_string()));
        }
        let ask = with_caller(session, namespace, |caller| asks_about(local, room, caller))?;
        if !session.is_in(room) {
            new += 1;
            asked.extend(ask.then(|| room.clone()));
        }
    }
    let max = limits.rooms_per_session;
    if session.room_count() + new > max { Err(JoinError::TooMany(max)) } else { Ok(asked) }
}

/// Whether the rules leave it to the backend to let this caller into a room.
fn asks_about(local: &LocalNode, room: &str, caller: &Caller<'_>) -> Result<bool, JoinError> {
    match local.context.rules.room(room, caller) {
        Verdict::Allow(rule, captures) => announceable(rule, &captures, caller).map(|()| false),
        Verdict::Ask(rule, captures) => announceable(rule, &captures, caller).map(|()| true),
        Verdict::Granted(None) => Ok(false),
        Verdict::Granted(Some((rule, captures))) => announceable(rule, &captures, caller).map(|()| false),
        Verdict::Refused(error) => Err(JoinError::BadName(error.to_string())),
        Verdict::Deny | Verdict::NoRule => Err(JoinError::Forbidden(room.to_owned())),
    }
}

/// Whether the join can be announced: a value that `joined` or `left` misses is the caller's error.
fn announceable(rule: &RoomRule, captures: &Captures, caller: &Caller<'_>) -> Result<(), JoinError> {
    // A client without a user is not announced.
    if caller.user.is_some() {
        rule.joined(caller, captures).map_err(JoinError::Template)?;
        rule.left(caller, captures).map_err(JoinError::Template)?;
    }
    Ok(())
}

/// Whether a session may be in these rooms besides its own. Those that the backend chooses for one event count too:
/// what the client sent may have chosen them.
///
/// # Errors
/// [`JoinError::TooMany`].
pub fn within_limit(local: &LocalNode, key: SessionKey, rooms: &[Room]) -> Result<(), JoinError> {
    let max = local.context.limits.rooms_per_session;
    let is_over = local.shard.with_session(key, |session| {
        let new: HashSet<&Room> = rooms.iter().filter(|room| !session.is_in(room)).collect();
        !new.is_empty() && session.room_count() + new.len() > max
    });
    if !is_over.ok_or(JoinError::Gone)? {
        return Ok(());
    }
    let refused = JoinError::TooMany(max);
    note_refusal(local, key, &refused);
    Err(refused)
}

/// Joins as many of the rooms as a session may be in; whether it was not in one of them.
pub fn join_within_limit(local: &LocalNode, key: SessionKey, rooms: &[Room], reserved: &mut Reservation) -> bool {
    let max = local.context.limits.rooms_per_session;
    let mut new = false;
    for room in rooms {
        if local.shard.with_session(key, |session| session.room_count() < max).unwrap_or(false) {
            new |= !local.shard.join(key, std::slice::from_ref(room), reserved).is_empty();
        }
    }
    new
}

/// Completes when the session's rooms, as they are now, are on record and in the presence store: before a client gets the
/// answer to its join or leave. `false` if one of them takes too long, so that the client must get an error.
#[must_use]
pub async fn settled(local: &Rc<LocalNode>, key: SessionKey, is_leave: bool) -> bool {
    let announced = local.shard.announced(key);
    // Presence first: its step and the record go to Redis together.
    let counted = local.node.presence.written(announced, is_leave);
    let (counted, recorded) = tokio::join!(counted, persist::persist_now(&local.shard, key));
    counted && recorded
}
