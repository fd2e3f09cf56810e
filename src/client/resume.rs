//! Taking up a session where its connection was lost: authorise, join, replay, go live (DESIGN 6).

use crate::auth::Identity;
use crate::client::admit::{self, Newcomer, with_identity};
use crate::close::CloseReason;
use crate::event::{Event, Offset, Position, Room};
use crate::hub::heartbeat::millis;
use crate::hub::shard::Shard;
use crate::id::Id;
use crate::log::window::Gap;
use crate::protocol::socketio_encode as encode;
use crate::rules::Verdict;
use crate::session::connection::SessionKey;
use crate::session::outbox::Frame;
use crate::session::parked::Parked;
use crate::session::recovery::Place;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};

/// A parked session that this client may have back, and what it missed.
pub struct Resumed {
    pid: Id,
    parked: Parked,
    missed: Vec<Arc<Event>>,
}

/// Finds the session of a Socket.IO client's pid and what it missed. `None`: it gets a new session, and knows by it.
pub async fn socketio(shard: &Rc<Shard>, newcomer: &Newcomer, pid: Id, offset: Option<&str>) -> Option<Resumed> {
    let result = attempt(shard, newcomer, pid, offset).await;
    shard.node.metrics.recovery(result.as_ref().err().unwrap_or(&"recovered"));
    result.ok()
}

async fn attempt(
    shard: &Rc<Shard>,
    newcomer: &Newcomer,
    pid: Id,
    offset: Option<&str>,
) -> Result<Resumed, &'static str> {
    let offset = offset.map(|text| Offset::parse(text).ok_or("bad_offset")).transpose()?;
    if let Some(offset) = offset {
        // Before anything is taken: this may wait, and the client may go meanwhile.
        shard.catch_up_with(offset).await;
    }
    let mut parked = take(shard, newcomer, pid).await.ok_or("unknown_session")?;
    let after = parked.resume_from(offset);
    retain_allowed(shard, newcomer, &mut parked);
    match missed(shard, after, None, newcomer.namespace, &parked.rooms, &parked.id) {
        Ok(missed) => Ok(Resumed { pid, parked, missed }),
        Err(gap) => Err(gap.code()),
    }
}

/// Rooms that only the old token granted need the new one's word.
fn retain_allowed(shard: &Shard, newcomer: &Newcomer, parked: &mut Parked) {
    let namespace = &shard.node.namespaces[usize::from(newcomer.namespace)];
    let (old, id) = (parked.identity.clone(), parked.id.to_string());
    let auth = newcomer.auth.as_deref();
    with_identity(&newcomer.identity, auth, &id, namespace, |caller| {
        let allowed =
            |room: &str| matches!(shard.node.rules.room(room, caller), Verdict::Allow(..) | Verdict::Granted(_));
        parked.rooms.retain(|room| !old.grants.allows(room) || allowed(room));
    });
}

/// The session parked, or still live on a half-open connection, on whichever shard it is.
async fn take(shard: &Rc<Shard>, newcomer: &Newcomer, pid: Id) -> Option<Parked> {
    let (identity, namespace) = (newcomer.identity.clone(), newcomer.namespace);
    if let Some(parked) = take_here(shard, pid, &identity, namespace) {
        return Some(parked);
    }
    let owner = usize::from(pid.shard());
    let others = shard.node.shards().iter().enumerate();
    let mut order: Vec<_> = others.filter(|(index, _)| *index != usize::from(shard.index)).collect();
    order.sort_by_key(|(index, _)| *index != owner);
    for (_, other) in order {
        let identity = identity.clone();
        let taken = other.ask(move |shard| take_here(shard, pid, &identity, namespace)).await.flatten();
        if taken.is_some() {
            return taken;
        }
    }
    None
}

/// Only the same user in the same namespace gets it; for anybody else it stays as it is.
fn take_here(shard: &Rc<Shard>, pid: Id, identity: &Identity, namespace: u16) -> Option<Parked> {
    let now = shard.now();
    let mut hub = shard.hub.borrow_mut();
    let user = |identity: &Identity| identity.user.as_ref().map(|user| user.as_json());
    if let Some(session) = hub.session_by_pid(pid)
        && session.namespace == namespace
        && user(&session.identity) == user(identity)
    {
        let connection = session.connection;
        hub.close(connection, CloseReason::Replaced, now);
    }
    hub.parked.take(pid, now, |parked| parked.namespace == namespace && user(&parked.identity) == user(identity))
}

/// The events of these rooms in (`after`, `up_to`], each once, in order; without `up_to`, to the shard's position.
///
/// # Errors
/// When it cannot be proven that the window has them all.
pub fn missed(
    shard: &Shard,
    after: Offset,
    up_to: Option<Position>,
    namespace: u16,
    rooms: &[Room],
    own: &Id,
) -> Result<Vec<Arc<Event>>, Gap> {
    let here = shard.hub.borrow().position;
    let namespace = &*shard.node.namespaces[usize::from(namespace)];
    let window = shard.node.window.read().unwrap_or_else(PoisonError::into_inner);
    Place { here, namespace, rooms, own }.missed(&window, after, up_to)
}

/// Puts the session back with its rooms; what it missed is written before the CONNECT reply (wire sheet C1).
pub fn continue_session(shard: &Rc<Shard>, newcomer: Newcomer, resumed: Resumed, namespace: &str) -> SessionKey {
    let Resumed { pid, parked, missed } = resumed;
    let connection = newcomer.connection;
    let mut session = newcomer.session(shard, parked.id, Some(pid));
    session.start = parked.start;
    session.last = missed.last().map_or(parked.last, |event| event.offset.position);
    let mut rooms = parked.rooms;
    // What a fresh token brings; one that makes no safe names was good enough for the rooms it had.
    rooms.extend(admit::first_rooms(shard, &session).unwrap_or_default());
    let key = admit::admit(shard, session, &rooms);
    let mut hub = shard.hub.borrow_mut();
    hub.replay(connection, missed.into_iter().map(Frame::event));
    hub.push_packet(connection, encode::connect(namespace, &parked.id.to_string(), Some(&pid.to_string())));
    key
}

/// Parks a session again whose client went while it was being taken up.
pub fn put_back(shard: &Rc<Shard>, resumed: Resumed) {
    let until = shard.now() + millis(shard.node.recovery.window);
    shard.hub.borrow_mut().parked.park(resumed.pid, resumed.parked, until, shard.node.recovery.window_bytes);
}
