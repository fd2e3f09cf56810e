//! A session's token has changed: its rooms are decided again (docs/rules.md, "When the token changes").

use crate::auth::Identity;
use crate::backend::request::{RequestKind, SessionInfo};
use crate::backend::{BackendError, Source};
use crate::handlers::backend_calls;
use crate::handlers::backend_calls::Ask;
use crate::handlers::room_access;
use crate::handlers::room_access::JoinError;
use crate::handlers::session_start;
use crate::handlers::session_start::{FirstRooms, Newcomer};
use crate::model::names::Room;
use crate::model::provenance::Provenance;
use crate::model::session_note::LeftBy;
use crate::node::context::LocalNode;
use crate::protocol::plain_ws;
use crate::rules::{Caller, Decision, TemplateError};
use crate::session::caller::{with_caller, with_identity};
use crate::session::connection::SessionKey;
use crate::session::parked::Parked;
use crate::session::recovery::NotRecovered;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// Questions to the backend at once, about the rooms of one session.
const ASKED_AT_ONCE: usize = 4;

/// Why a live session does not get a fresh token's identity.
pub enum RefreshError {
    /// It is another user's.
    OtherUser,
    /// A value of the token would make an unsafe room name.
    Rooms(TemplateError),
    /// It brings more rooms than the client may join now.
    TooFast(JoinError),
}

/// What becomes of a session's rooms.
#[derive(Default)]
struct Decided {
    kept: Vec<(Room, Provenance)>,
    asked: Vec<Room>,
    left: Vec<(Room, Provenance)>,
}

/// Decides on rooms by the identity of `caller`, which brings its `first` rooms by itself.
fn decide<'a>(
    local: &LocalNode,
    rooms: impl Iterator<Item = (&'a Room, Provenance)>,
    caller: &Caller<'_>,
    first: &FirstRooms,
    same_claims: bool,
) -> Decided {
    let mut decided = Decided::default();
    for (room, by) in rooms {
        let decision = match first.provenance(room).filter(|_| by != Provenance::Command) {
            Some(by) => Decision::Keep(by),
            None => local.context.settings().rules.decide_again(room, caller, by, same_claims),
        };
        match decision {
            Decision::Keep(by) => decided.kept.push((room.clone(), by)),
            Decision::Ask => decided.asked.push(room.clone()),
            Decision::Leave => decided.left.push((room.clone(), by)),
        }
    }
    decided
}

/// Takes the rooms from a session to be resumed that the client's token does not give any more, and what it could still get
/// of them. Answers the rooms that the token brings by itself.
///
/// # Errors
/// [`NotRecovered::Undecided`]: a new session is right, as its client then asks for its rooms again.
pub async fn of_parked(
    local: &Rc<LocalNode>,
    newcomer: &Newcomer,
    parked: &mut Parked,
) -> Result<FirstRooms, NotRecovered> {
    let Newcomer { identity, namespace, .. } = newcomer;
    let (auth, id) = (newcomer.auth.as_deref(), parked.id);
    let first = session_start::rooms_of_token(local, identity, auth, id, *namespace);
    let first = first.map_err(|_| NotRecovered::Undecided)?;
    let same_claims =
        parked.identity.claims == identity.claims || parked.deciding_claims() == identity.deciding_claims();
    let name = local.context.namespaces.name(*namespace);
    let decide = |caller: &Caller<'_>| decide(local, parked.memberships(), caller, &first, same_claims);
    let mut decided = with_identity(identity, auth, &id.to_string(), name, decide);
    if decided.left.iter().any(|(_, by)| *by == Provenance::Answered) {
        // The backend chose this room when it answered an event, and only that event would make it choose again.
        return Err(NotRecovered::Undecided);
    }
    let session = newcomer.clone().session(local, id, None);
    let about = || Some(backend_calls::about(local, &session, parked.rooms.clone()));
    let source = backend_calls::live_source(local, &session);
    for (room, allowed) in ask(local, &source, decided.asked, about).await {
        match allowed {
            Ok(()) => decided.kept.push((room, Provenance::Asked)),
            Err(BackendError::Refused(_)) => {}
            Err(_) => return Err(NotRecovered::Undecided),
        }
    }
    let may_have = |room: &Room| {
        same_claims
            || with_identity(identity, auth, &id.to_string(), name, |caller| {
                let decision = local.context.settings().rules.decide_again(room, caller, Provenance::Rule, false);
                matches!(decision, Decision::Keep(_))
            })
    };
    parked.keep_rooms(decided.kept, local.context.window.partitions(), may_have);
    Ok(first)
}

/// A live session goes on with a fresh token of its user. It leaves the rooms that the token does not give, and joins those
/// that it brings; the client gets `left` and `joined` for them.
///
/// # Errors
/// When the token cannot be this session's. Nothing has changed then.
pub async fn refresh(local: &Rc<LocalNode>, key: SessionKey, identity: Arc<Identity>) -> Result<(), RefreshError> {
    let known = local.shard.with_session(key, |session| {
        let first = |auth| session_start::rooms_of_token(local, &identity, auth, session.id, session.namespace);
        (session.identity.clone(), first(session.auth.as_deref()))
    });
    let Some((old, first)) = known else { return Ok(()) };
    if !old.is_same_user(&identity) {
        return Err(RefreshError::OtherUser);
    }
    let first = first.map_err(RefreshError::Rooms)?;
    let brought: Vec<Room> = first.memberships().map(|(room, _)| room.clone()).collect();
    room_access::take_joins(local, key, &brought).map_err(RefreshError::TooFast)?;
    let same_claims = has_same_claims(&old, &identity);
    let expires = identity.expires();
    local.shard.renew(key, identity);
    session_start::watch_expiry(local, key, expires);
    let decided = local.shard.with_session(key, |session| {
        with_caller(session, local.context.namespaces.name(session.namespace), |caller| {
            decide(local, session.memberships(), caller, &first, same_claims)
        })
    });
    let Some(decided) = decided else { return Ok(()) };
    for (room, by) in &decided.kept {
        local.shard.decide(key, room, *by);
    }
    for (room, _) in &decided.left {
        lose(local, key, room, LeftBy::Token);
    }
    // The old token let it into these, so it stays in them until the backend has decided.
    let about = || {
        local
            .shard
            .with_session(key, |session| backend_calls::about(local, session, session.rooms().cloned().collect()))
    };
    let source = local.shard.with_session(key, |session| backend_calls::live_source(local, session));
    let Some(source) = source else { return Ok(()) };
    for (room, allowed) in ask(local, &source, decided.asked, about).await {
        match allowed {
            Ok(()) => local.shard.decide(key, &room, Provenance::Asked),
            // A command may have put it there meanwhile.
            Err(_) if is_by_command(local, key, &room) => {}
            Err(_) => {
                lose(local, key, &room, LeftBy::Token);
            }
        }
    }
    join(local, key, &first).await;
    Ok(())
}

/// Whether the session's token says something else than the one with which something was begun.
pub fn has_changed(local: &LocalNode, key: SessionKey, begun_with: &Arc<Identity>) -> bool {
    let now = local.shard.with_session(key, |session| session.identity.clone());
    now.is_some_and(|now| !Arc::ptr_eq(&now, begun_with) && !has_same_claims(begun_with, &now))
}

/// What lets a session into rooms that the backend chose for an event of an earlier token: only the rules and the new one.
///
/// # Errors
/// The first room that it may not be in.
pub fn of_answer(local: &LocalNode, key: SessionKey, rooms: &[Room]) -> Result<Vec<Provenance>, JoinError> {
    let decided = local.shard.with_session(key, |session| {
        with_caller(session, local.context.namespaces.name(session.namespace), |caller| {
            let decide = |room: &Room| match local.context.settings().rules.decide_again(
                room,
                caller,
                Provenance::Answered,
                false,
            ) {
                Decision::Keep(by) => Ok(by),
                Decision::Ask | Decision::Leave => Err(JoinError::Forbidden(room.to_string())),
            };
            rooms.iter().map(decide).collect()
        })
    });
    decided.unwrap_or(Err(JoinError::Gone))
}

fn has_same_claims(one: &Identity, other: &Identity) -> bool {
    one.claims == other.claims || one.deciding_claims() == other.deciding_claims()
}

pub(super) fn is_by_command(local: &LocalNode, key: SessionKey, room: &Room) -> bool {
    let is = |by: Option<Provenance>| by == Some(Provenance::Command);
    local.shard.with_session(key, |session| is(session.provenance(room))).unwrap_or(false)
}

/// Takes a room from a session; whether it was in it.
pub(super) fn lose(local: &LocalNode, key: SessionKey, room: &Room, by: LeftBy) -> bool {
    let lost = local.shard.lose_room(key, room, by);
    if lost {
        local.context.metrics.sessions.membership_lost(by.label());
    }
    lost
}

/// Joins the rooms that a token brings by itself.
async fn join(local: &LocalNode, key: SessionKey, first: &FirstRooms) {
    let new = local.shard.with_session(key, |session| {
        let new = first.memberships().filter(|(room, _)| !session.is_in(room));
        new.map(|(room, by)| (room.clone(), by)).collect::<Vec<_>>()
    });
    let Some(new) = new.filter(|new| !new.is_empty()) else { return };
    let rooms: Vec<Room> = new.iter().map(|(room, _)| room.clone()).collect();
    room_access::pass_left_out(local, key, &rooms).await;
    let mut reserved = local.shard.reserve_rooms(key, &rooms);
    local.node.presence.written_unless_failing(reserved.ticket()).await;
    let joined = room_access::join_within_limit(local, key, &new, &mut reserved);
    let Some(connection) = local.shard.connection_of(key) else { return };
    for room in joined {
        let offset = local.shard.room_point(key, &room).to_string();
        local.shard.push_json(connection, &plain_ws::joined(&room, Some(&offset), None, None));
    }
}

/// Asks the backend about rooms, a few at once. After a failure the others are not asked: they fail like it.
pub(super) async fn ask<'a>(
    local: &LocalNode,
    source: &Source,
    rooms: Vec<Room>,
    about: impl Fn() -> Option<SessionInfo<'a>>,
) -> Vec<(Room, Result<(), BackendError>)> {
    let mut answers: Vec<(Room, Result<(), BackendError>)> = Vec::with_capacity(rooms.len());
    for some in rooms.chunks(ASKED_AT_ONCE) {
        let mut errors = answers.iter().filter_map(|(_, answer)| answer.as_ref().err());
        if let Some(error) = errors.find(|error| !matches!(error, BackendError::Refused(_))).cloned() {
            answers.extend(some.iter().map(|room| (room.clone(), Err(error.clone()))));
            continue;
        }
        let ask = match Ask::of_source(local, RequestKind::Join, source.clone()) {
            Ok(ask) => ask,
            Err(error) => {
                answers.extend(some.iter().map(|room| (room.clone(), Err(error.clone()))));
                continue;
            }
        };
        let ask = &ask;
        let asked = some.iter().filter_map(|room| {
            let about = about()?;
            let asked = async move { (room.clone(), backend_calls::join_of(local, about, room, ask).await) };
            Some(Box::pin(asked) as Asked<'_>)
        });
        answers.extend(all(asked.collect()).await);
    }
    answers
}

type Asked<'a> = Pin<Box<dyn Future<Output = (Room, Result<(), BackendError>)> + 'a>>;

/// The results of a few futures that run side by side.
async fn all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>) -> Vec<T> {
    let mut results = Vec::with_capacity(futures.len());
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Ready(result) => {
                results.push(result);
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results
}
