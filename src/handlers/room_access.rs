//! Joining and leaving a room on a client's behalf.

use crate::backend::BackendError;
use crate::backend::request::RequestKind;
use crate::handlers::backend_calls;
use crate::handlers::backend_calls::Ask;
use crate::handlers::fail;
use crate::model::close::CloseReason;
use crate::model::draft::check_room_name;
use crate::model::id::Id;
use crate::model::millis::whole_millis;
use crate::model::names::Room;
use crate::model::provenance::Provenance;
use crate::model::refusal::Refusal;
use crate::model::session_note::SessionNote;
use crate::node::context::LocalNode;
use crate::presence::local::Reservation;
use crate::refusals::shown;
use crate::rules::{Caller, Captures, RoomRule, TemplateError, Verdict};
use crate::session::caller::with_caller;
use crate::session::connection::SessionKey;
use crate::shard::persist;
use crate::shard::session_face::SessionView;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Rooms of one refused join that are remembered.
const NOTED_ROOMS: usize = 8;

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
    /// More joins than the session or its user may make.
    #[error("more joins than `limits.joins_per_second` or `limits.user_joins_per_second` allows; try again after {} ms", whole_millis(*.0))]
    TooFast(Duration),
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
            Self::TooFast(_) => "rate_limited",
            Self::Backend(error) => error.code(),
        }
    }

    /// When to try again, for a client that is too fast.
    pub fn retry(&self) -> Option<Duration> {
        match self {
            Self::TooFast(retry) => Some(*retry),
            Self::Backend(error) => error.retry(),
            _ => None,
        }
    }

    /// Whether it is no refusal but a failure, so that a later attempt may succeed.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Backend(error) if !matches!(error, BackendError::Refused(_)))
    }
}

/// Whether a session may join these rooms by the rules, its token, and where a rule wants it the backend; nothing is
/// joined. Answers for each room what allows it. Without `ask` the backend is asked as for a packet that arrives now.
///
/// # Errors
/// The first refusal.
pub async fn allow(
    local: &LocalNode,
    key: SessionKey,
    rooms: &[Room],
    ask: Option<&Ask>,
) -> Result<Vec<Provenance>, JoinError> {
    take_joins(local, key, rooms)?;
    ask_about(local, key, rooms, ask).await.inspect_err(|error| note_refusal(local, key, rooms, error))
}

/// Counts the rooms that the session is not in against what it and its user may join. Whoever does not stop is closed.
///
/// # Errors
/// When they are more than it may join now.
pub fn take_joins(local: &LocalNode, key: SessionKey, rooms: &[Room]) -> Result<(), JoinError> {
    within_pace(local, key, rooms).inspect_err(|error| note_refusal(local, key, rooms, error))
}

fn within_pace(local: &LocalNode, key: SessionKey, rooms: &[Room]) -> Result<(), JoinError> {
    let new = local
        .shard
        .with_session(key, |session| (session.connection, rooms.iter().filter(|room| !session.is_in(room)).count()));
    let (connection, new) = new.ok_or(JoinError::Gone)?;
    if new == 0 {
        return Ok(());
    }
    match local.shard.take_joins(connection, new) {
        Ok(()) => Ok(()),
        Err(Some(retry)) => Err(JoinError::TooFast(retry)),
        Err(None) => {
            fail(local, connection, CloseReason::RateLimit);
            Err(JoinError::Gone)
        }
    }
}

/// Notes that a session could not join rooms. A join that was refused, rather than one that failed, is counted and logged.
pub fn note_refusal(local: &LocalNode, key: SessionKey, rooms: &[Room], error: &JoinError) {
    let room_rules = "see [[rooms]], or the claim auth.rooms_claim of the token";
    let note = |reason, why: std::fmt::Arguments<'_>| {
        let who = local.shard.who_of(key);
        let who = match error {
            JoinError::Forbidden(room) => who.room(room.as_str().into()),
            _ => who,
        };
        local.context.refusals.note(reason, &who, why);
    };
    if *error != JoinError::Gone {
        // All of them are refused where one is.
        for room in rooms.iter().take(NOTED_ROOMS) {
            local.shard.note(key, SessionNote::Refused { code: error.code(), room: Some(room.clone()) });
        }
    }
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
        JoinError::TooFast(_) => {
            note(
                Refusal::Rate,
                format_args!("more joins than limits.joins_per_second or limits.user_joins_per_second"),
            );
        }
        JoinError::Backend(_) | JoinError::Uncounted | JoinError::Gone => {}
    }
}

/// Whether the backend has to decide on one of these rooms.
pub fn asks_backend(local: &LocalNode, key: SessionKey, rooms: &[Room]) -> bool {
    check(local, key, rooms).is_ok_and(|checked| !checked.asked.is_empty())
}

async fn ask_about(
    local: &LocalNode,
    key: SessionKey,
    rooms: &[Room],
    ask: Option<&Ask>,
) -> Result<Vec<Provenance>, JoinError> {
    let mut own = None;
    loop {
        let identity = local.shard.with_session(key, |session| session.identity.clone()).ok_or(JoinError::Gone)?;
        let checked = check(local, key, rooms)?;
        if checked.asked.is_empty() {
            return Ok(checked.by);
        }
        if ask.is_none() && own.is_none() {
            own = Some(Ask::now(local, RequestKind::Join, key).map_err(JoinError::Backend)?);
        }
        let Some(ask) = ask.or(own.as_ref()) else { return Err(JoinError::Gone) };
        for room in &checked.asked {
            backend_calls::join(local, key, room, ask).await.map_err(JoinError::Backend)?;
        }
        // Other rooms may have been joined while the backend decided, and a fresh token may have come.
        let checked = check(local, key, rooms)?;
        if local.shard.with_session(key, |session| Arc::ptr_eq(&session.identity, &identity)).unwrap_or(false) {
            return Ok(checked.by);
        }
    }
}

/// What is known here about joining some rooms.
struct Checked {
    /// What allows each room.
    by: Vec<Provenance>,
    /// The rooms that the backend must decide on, without those the session is in already.
    asked: Vec<Room>,
}

fn check(local: &LocalNode, key: SessionKey, rooms: &[Room]) -> Result<Checked, JoinError> {
    local.shard.with_session(key, |session| check_session(local, session, rooms)).unwrap_or(Err(JoinError::Gone))
}

fn check_session(local: &LocalNode, session: &SessionView<'_>, rooms: &[Room]) -> Result<Checked, JoinError> {
    let (settings, namespace) = (local.context.settings(), local.context.namespaces.name(session.namespace));
    let limits = &settings.limits;
    let (mut new, mut checked) = (0, Checked { by: Vec::with_capacity(rooms.len()), asked: Vec::new() });
    for room in rooms {
        check_room_name(room, limits.room_name_bytes).map_err(|e| JoinError::BadName(e.to_string()))?;
        if Id::parse(room).is_some_and(|id| id.is_session()) {
            return Err(JoinError::Forbidden(room.to_string()));
        }
        let by = with_caller(session, namespace, |caller| allowed_by(local, room, caller))?;
        if !session.is_in(room) {
            new += 1;
            checked.asked.extend((by == Provenance::Asked).then(|| room.clone()));
        }
        checked.by.push(by);
    }
    let max = limits.rooms_per_session;
    if session.room_count() + new > max { Err(JoinError::TooMany(max)) } else { Ok(checked) }
}

/// What lets this caller into a room, be it that the backend is asked.
fn allowed_by(local: &LocalNode, room: &str, caller: &Caller<'_>) -> Result<Provenance, JoinError> {
    let settings = local.context.settings();
    let verdict = settings.rules.room(room, caller);
    match &verdict {
        Verdict::Allow(rule, captures) | Verdict::Ask(rule, captures) | Verdict::Granted(Some((rule, captures))) => {
            announceable(rule, captures, caller)?;
        }
        Verdict::Refused(error) => return Err(JoinError::BadName(error.to_string())),
        Verdict::Granted(None) | Verdict::Deny(_) | Verdict::NoRule => {}
    }
    verdict.provenance().ok_or_else(|| JoinError::Forbidden(room.to_owned()))
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
    let max = local.context.settings().limits.rooms_per_session;
    let is_over = local.shard.with_session(key, |session| {
        let new: HashSet<&Room> = rooms.iter().filter(|room| !session.is_in(room)).collect();
        !new.is_empty() && session.room_count() + new.len() > max
    });
    if !is_over.ok_or(JoinError::Gone)? {
        return Ok(());
    }
    let refused = JoinError::TooMany(max);
    note_refusal(local, key, rooms, &refused);
    Err(refused)
}

/// Joins as many of the rooms as a session may be in. Answers those that it was not in.
pub fn join_within_limit(
    local: &LocalNode,
    key: SessionKey,
    rooms: &[(Room, Provenance)],
    reserved: &mut Reservation,
) -> Vec<Room> {
    let max = local.context.settings().limits.rooms_per_session;
    let mut new = Vec::new();
    for (room, by) in rooms {
        if local.shard.with_session(key, |session| session.room_count() < max).unwrap_or(false) {
            new.extend(local.shard.join(key, [(room, *by)], reserved));
        }
    }
    new
}

/// Waits until a session that joins these rooms gets everything that comes after its shard's position.
pub async fn pass_left_out(local: &LocalNode, key: SessionKey, rooms: &[Room]) {
    let namespace = local.shard.with_session(key, |session| session.namespace);
    if let Some(namespace) = namespace.filter(|_| !rooms.is_empty()) {
        local.shard.pass_left_out(namespace, rooms).await;
    }
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
