//! Resuming a session whose connection was lost: authorize, join, replay, go live.

use crate::cluster::{Found, Owner, RpcError, RpcRequest, RpcResponse};
use crate::handlers::room_access;
use crate::handlers::session_start;
use crate::handlers::session_start::Newcomer;
use crate::log::window::Gap;
use crate::model::event::Event;
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::{Offset, Position};
use crate::node::context::LocalNode;
use crate::presence::local::Reservation;
use crate::protocol::socketio_encode as encode;
use crate::rules::Verdict;
use crate::session::Session;
use crate::session::caller::with_identity;
use crate::session::connection::SessionKey;
use crate::session::outbox::Frame;
use crate::session::parked::Parked;
use crate::session::recovery;
use crate::session::recovery::Place;
use crate::shard::persist;
use crate::shard::release::Taken;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for the node that has a session.
const TAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a session may be found to have just moved.
const MAX_MOVES: usize = 3;

/// A parked session that this client may have back, and what it missed.
pub struct Resumed {
    pid: Id,
    parked: Parked,
    missed: Vec<Arc<Event>>,
    /// Rooms that the present token brings.
    fresh: Vec<Room>,
    /// The session as the backend knows it.
    session: Box<Session>,
    reserved: Reservation,
    /// As it was, for the next attempt should the client go before it has heard.
    before: Parked,
}

/// The result where other nodes, one of which may have the session, cannot be reached.
const UNREACHABLE: &str = "unreachable";

/// What becomes of a client that comes back.
pub enum Outcome {
    /// It goes on.
    Resumed(Box<Resumed>),
    /// It gets a new session, and knows by it.
    New,
    /// Nobody can tell as yet: it is to come again.
    NotNow,
}

/// Finds the session of a Socket.IO client's pid and what it missed.
pub async fn socketio(local: &Rc<LocalNode>, newcomer: &Newcomer, pid: Id, offset: Option<&str>) -> Outcome {
    let result = attempt(local, newcomer, pid, offset).await;
    local.context.metrics.recovery(result.as_ref().err().unwrap_or(&"recovered"));
    match result {
        Ok(resumed) => Outcome::Resumed(Box::new(resumed)),
        Err(UNREACHABLE) => Outcome::NotNow,
        Err(_) => Outcome::New,
    }
}

async fn attempt(
    local: &Rc<LocalNode>,
    newcomer: &Newcomer,
    pid: Id,
    offset: Option<&str>,
) -> Result<Resumed, &'static str> {
    let offset = offset.map(|text| Offset::parse(text).ok_or("bad_offset")).transpose()?;
    if let Some(offset) = offset {
        // Before anything is taken: this may wait, and the client may go meanwhile.
        local.shard.catch_up_with(offset).await;
    }
    let owner = owner(local, newcomer);
    let mut parked = find(local, newcomer, pid, &owner).await?.ok_or("unknown_session")?;
    let before = parked.clone();
    let after = parked.resume_from(offset);
    // Another node may have been ahead of this one.
    local.shard.catch_up_with(Offset { position: after.position.max(parked.at), ..after }).await;
    retain_allowed(local, newcomer, &mut parked);
    let reached = local.shard.position();
    let mut missed = take_up(local, newcomer, &mut parked, reached, after)?;
    // What a fresh token brings; one that makes no safe names was good enough for the rooms it had.
    let mut session = newcomer.clone().session(local, parked.id, None);
    let mut fresh = session_start::first_rooms(local, &session).unwrap_or_default();
    fresh.retain(|room| !parked.rooms.contains(room));
    fresh.truncate(local.context.limits.rooms_per_session.saturating_sub(parked.rooms.len()));
    let rooms = [&parked.rooms[..], &fresh].concat();
    let reserved = session_start::reserve(local, &mut session, &rooms).await;
    let here = local.shard.position();
    if here != reached {
        let since = take_up(local, newcomer, &mut parked, here, reached);
        missed.extend(since.inspect_err(|_| session_start::abandon(local, &session, &rooms))?);
    }
    Ok(Resumed { pid, parked, missed, fresh, session, reserved, before })
}

/// What the session missed in (`after`, `here`]; it is as it is `here` afterwards.
fn take_up(
    local: &LocalNode,
    newcomer: &Newcomer,
    parked: &mut Parked,
    here: Offset,
    after: Offset,
) -> Result<Vec<Arc<Event>>, &'static str> {
    let namespace = &**local.context.namespaces.name(newcomer.namespace);
    let window = local.node.window.read();
    recovery::take_up(parked, &window, here, namespace, after).map_err(|lost| lost.code())
}

/// The session, on this node or another.
async fn find(
    local: &Rc<LocalNode>,
    newcomer: &Newcomer,
    pid: Id,
    owner: &Owner,
) -> Result<Option<Parked>, &'static str> {
    match take(local, pid, owner).await {
        Some(Taken { parked, stale: false }) => Ok(Some(parked)),
        // Of another life of the log: nobody can go on with it, wherever it was since.
        Some(Taken { parked, .. }) if parked.start.epoch != local.shard.position().epoch => Ok(Some(parked)),
        // This node was away from the others: where one of them had the session since, that copy is right.
        Some(Taken { parked, stale: true }) => match take_elsewhere(local, newcomer, pid, owner).await {
            Ok(other) => {
                local.shard.confirm(pid);
                Ok(Some(other.filter(|other| other.moves > parked.moves).unwrap_or(parked)))
            }
            Err(unreachable) => {
                local.shard.park(pid, parked);
                Err(unreachable)
            }
        },
        None => take_elsewhere(local, newcomer, pid, owner).await,
    }
}

fn owner(local: &LocalNode, newcomer: &Newcomer) -> Owner {
    let user = newcomer.identity.user.as_ref().map(|user| user.as_json());
    Owner::new(local.context.namespaces.name(newcomer.namespace), user.as_deref())
}

/// Rooms that only the old token granted need the new one's word.
fn retain_allowed(local: &LocalNode, newcomer: &Newcomer, parked: &mut Parked) {
    let namespace = local.context.namespaces.name(newcomer.namespace);
    let (old, id) = (parked.identity.clone(), parked.id.to_string());
    let auth = newcomer.auth.as_deref();
    with_identity(&newcomer.identity, auth, &id, namespace, |caller| {
        let allowed =
            |room: &str| matches!(local.context.rules.room(room, caller), Verdict::Allow(..) | Verdict::Granted(_));
        parked.retain_rooms(|room| !old.grants.allows(room) || allowed(room));
    });
}

/// The session parked, or still live on a half-open connection, on whichever shard of this node it is.
pub async fn take(local: &Rc<LocalNode>, pid: Id, owner: &Owner) -> Option<Taken> {
    if let Some(taken) = local.shard.take_session(pid, owner) {
        return Some(taken);
    }
    let home = usize::from(pid.shard());
    let others = local.node.shards().iter().enumerate();
    let mut order: Vec<_> = others.filter(|(index, _)| *index != usize::from(local.shard.index)).collect();
    order.sort_by_key(|(index, _)| *index != home);
    for (_, other) in order {
        let owner = owner.clone();
        let taken = other.ask(move |local| local.shard.take_session(pid, &owner)).await.flatten();
        if taken.is_some() {
            return taken;
        }
    }
    None
}

/// The session from another node: handed over by the one that has it, or out of its record where that node is gone.
async fn take_elsewhere(
    local: &Rc<LocalNode>,
    newcomer: &Newcomer,
    pid: Id,
    owner: &Owner,
) -> Result<Option<Parked>, &'static str> {
    let Some(cluster) = &local.node.cluster else { return Ok(None) };
    let read = |record: &str| Parked::from_record(record, newcomer.namespace);
    let mut found = cluster.find(owner, pid).await.ok_or(UNREACHABLE)?;
    if found == Found::Nowhere {
        return Ok(ask_all(local, pid, owner).await?.and_then(|record| read(&record)));
    }
    for _ in 0..MAX_MOVES {
        let node = match found {
            Found::Nowhere => return Ok(None),
            Found::RetryLater => return Err(UNREACHABLE),
            Found::Taken(record) => return Ok(read(&record)),
            Found::OnNode(node) => node,
        };
        match cluster.request(node, RpcRequest::Take(pid, owner.as_str().to_owned()), TAKE_TIMEOUT).await {
            Ok(RpcResponse::Taken(Some(record))) => return Ok(read(&record)),
            // It has just moved, and its record with it in a moment, or it ended.
            Ok(_) => tokio::time::sleep(persist::GATHER * 2).await,
            Err(RpcError::Offline) => return Err(UNREACHABLE),
            // It died or hangs: then its record is as good as can be had.
            Err(_) => cluster.suspect(node),
        }
        found = cluster.find(owner, pid).await.ok_or(UNREACHABLE)?;
    }
    Ok(None)
}

/// A session that is younger than its record, or has just moved: some node that is up has it, or none.
async fn ask_all(local: &LocalNode, pid: Id, owner: &Owner) -> Result<Option<String>, &'static str> {
    let Some(cluster) = &local.node.cluster else { return Ok(None) };
    let mut peers = cluster.peers_now().await;
    // First of all where the pid was made.
    peers.sort_by_key(|node| *node != pid.node());
    for node in peers {
        let question = RpcRequest::Take(pid, owner.as_str().to_owned());
        match cluster.request(node, question, TAKE_TIMEOUT).await {
            Ok(RpcResponse::Taken(Some(record))) => return Ok(Some(record)),
            Err(RpcError::Offline) => return Err(UNREACHABLE),
            _ => {}
        }
    }
    Ok(None)
}

/// The events of these rooms in (`after`, `up_to`], each once, in order; without `up_to`, to the shard's position.
///
/// # Errors
/// When it cannot be proven that the window has them all.
pub fn missed(
    local: &LocalNode,
    after: Offset,
    up_to: Option<Position>,
    namespace: NamespaceIndex,
    rooms: &[Room],
    own: &Id,
) -> Result<Vec<Arc<Event>>, Gap> {
    let here = local.shard.position();
    let namespace = &**local.context.namespaces.name(namespace);
    let window = local.node.window.read();
    Place { here, namespace, rooms, own }.missed(&window, after, up_to)
}

/// Puts the session back with its rooms; what it missed is written before the CONNECT reply (docs/protocol/socketio.md
/// section 4.1). Answers whether it is in rooms now that it was not in before.
pub fn continue_session(
    local: &Rc<LocalNode>,
    newcomer: Newcomer,
    resumed: Resumed,
    namespace: &str,
) -> (SessionKey, bool) {
    let Resumed { pid, parked, missed, fresh, mut reserved, .. } = resumed;
    let (connection, id) = (newcomer.connection, parked.id.to_string());
    let key = go_on(local, newcomer, Some(pid), parked, missed, &mut reserved);
    let grown = room_access::join_within_limit(local, key, &fresh, &mut reserved);
    local.shard.push_packet(connection, encode::connect(namespace, &id, Some(&pid.to_string())));
    (key, grown)
}

/// A session as it was, on another connection, and what it missed behind what waits there.
pub fn go_on(
    local: &Rc<LocalNode>,
    newcomer: Newcomer,
    pid: Option<Id>,
    parked: Parked,
    missed: Vec<Arc<Event>>,
    reserved: &mut Reservation,
) -> SessionKey {
    let connection = newcomer.connection;
    let mut session = newcomer.session(local, parked.id, pid);
    session.start = parked.start;
    session.moves = parked.moves + 1;
    session.last = missed.last().map_or(parked.last, |event| event.offset.position);
    session.changes = parked.changes;
    let key = session_start::admit(local, session, &parked.rooms, reserved);
    local.shard.replay(connection, missed.into_iter().map(Frame::event));
    key
}

/// Parks a session again whose client went while it was being taken up.
pub fn put_back(local: &Rc<LocalNode>, resumed: Resumed) {
    session_start::abandon(local, &resumed.session, &resumed.parked.rooms);
    local.shard.park(resumed.pid, resumed.before);
}
