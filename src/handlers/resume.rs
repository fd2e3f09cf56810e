//! Resuming a session whose connection was lost: authorize, join, replay, go live.

use crate::handlers::rights;
use crate::handlers::room_access;
use crate::handlers::session_lookup;
use crate::handlers::session_start;
use crate::handlers::session_start::Newcomer;
use crate::log::window::Gap;
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::place::Place;
use crate::model::provenance::Provenance;
use crate::model::session_note::SessionNote;
use crate::node::backfill;
use crate::node::context::LocalNode;
use crate::node::resumes;
use crate::node::resumes::Turn;
use crate::presence::local::Reservation;
use crate::protocol::socketio_encode as encode;
use crate::session::Session;
use crate::session::connection::SessionKey;
use crate::session::lines::SessionLines;
use crate::session::parked::Parked;
use crate::session::recovery;
use crate::session::recovery::{Asked, Lost, NotRecovered};
use crate::session::replay::Replay;
use std::rc::Rc;

/// A parked session that this client may have back, and what it missed.
pub struct Resumed {
    pid: Id,
    parked: Parked,
    missed: Replay,
    /// Rooms that the present token brings.
    fresh: Vec<(Room, Provenance)>,
    /// The session as the backend knows it.
    session: Box<Session>,
    reserved: Reservation,
    /// As it was before, for the next attempt if the client disconnects before it is answered.
    before: Parked,
    /// Until the session is in a table again.
    turn: Turn,
}

/// The result for a client that comes back.
pub enum Outcome {
    /// Its session continues.
    Resumed(Box<Resumed>),
    /// It gets a new session, by which it knows that events may be missing.
    New(NotRecovered),
    /// Another node may have the session and cannot be asked. The client is closed, to come again.
    NotNow,
}

/// Finds the session of a Socket.IO client's pid and what it missed.
pub async fn socketio(local: &Rc<LocalNode>, newcomer: &Newcomer, pid: Id, offset: Option<&str>) -> Outcome {
    let result = attempt(local, newcomer, pid, offset).await;
    count(local, &result);
    match result {
        Ok(resumed) => Outcome::Resumed(Box::new(resumed)),
        Err(NotRecovered::Unreachable) => Outcome::NotNow,
        Err(lost) => Outcome::New(lost),
    }
}

/// Counts what came of a recovery.
pub fn count<T>(local: &LocalNode, result: &Result<T, NotRecovered>) {
    local.context.metrics.recovery.attempt(result.as_ref().map_or_else(|error| error.code(), |_| "recovered"));
}

async fn attempt(
    local: &Rc<LocalNode>,
    newcomer: &Newcomer,
    pid: Id,
    offset: Option<&str>,
) -> Result<Resumed, NotRecovered> {
    let offset = offset.map(|text| Place::parse(text).ok_or(NotRecovered::BadOffset)).transpose()?;
    // Before the session is taken: this may wait, and the client may disconnect meanwhile.
    local.shard.catch_up_with(&offset.clone().unwrap_or_default()).await;
    if !local.shard.has_begun() {
        // A node that has just started still reads its history, and could prove nothing. The client comes again.
        return Err(NotRecovered::Unreachable);
    }
    // Whoever comes second finds the session where the first one has put it.
    let turn = local.node.resumes.turn(pid, session_lookup::owner(local, newcomer), resumes::MAX_WAIT).await;
    let turn = turn.ok_or(NotRecovered::Unreachable)?;
    let parked = session_lookup::find(local, newcomer, pid).await?.ok_or(NotRecovered::UnknownSession)?;
    let resumed = prepare(local, newcomer, turn, (pid, parked), offset).await;
    if resumed.is_err() {
        // This node may have its record by now, and nobody has the session.
        local.shard.drop_record(pid);
    }
    resumed
}

/// What a session that was found needs to continue for this client.
async fn prepare(
    local: &Rc<LocalNode>,
    newcomer: &Newcomer,
    turn: Turn,
    (pid, mut parked): (Id, Parked),
    offset: Option<Place>,
) -> Result<Resumed, NotRecovered> {
    let before = parked.clone();
    let after = parked.resume_from(offset.as_ref()).ok_or(Lost::Rooms)?;
    parked.note_resumed(&after);
    // Another node may have been ahead of this one.
    local.shard.catch_up_with(&after).await;
    local.shard.catch_up_with(&parked.at).await;
    fetch_parked(local, &parked, &after).await;
    let first = rights::of_parked(local, newcomer, &mut parked).await?;
    backfill::pass_filled(local).await;
    let reached = local.shard.position();
    let mut missed = take_up(local, newcomer, &mut parked, &reached, &after)?;
    // Rooms that a fresh token brings.
    let mut session = newcomer.clone().session(local, parked.id, None);
    let new = first.memberships().filter(|(room, _)| !parked.rooms.contains(room));
    let left = local.context.settings().limits.rooms_per_session.saturating_sub(parked.rooms.len());
    let fresh: Vec<_> = new.take(left).map(|(room, by)| (room.clone(), by)).collect();
    let rooms: Vec<Room> = parked.rooms.iter().chain(fresh.iter().map(|(room, _)| room)).cloned().collect();
    let reserved = session_start::reserve(local, &mut session, &rooms).await;
    backfill::pass_filled(local).await;
    let here = local.shard.position();
    if here != reached {
        let since = parked.at.clone();
        let since = take_up(local, newcomer, &mut parked, &here, &since);
        missed.append(since.inspect_err(|_| session_start::abandon(local, &session, &rooms))?);
    }
    Ok(Resumed { pid, parked, missed, fresh, session, reserved, before, turn })
}

/// What the session missed in (`after`, `here`]; it is as it is `here` afterwards.
fn take_up(
    local: &LocalNode,
    newcomer: &Newcomer,
    parked: &mut Parked,
    here: &Place,
    after: &Place,
) -> Result<Replay, NotRecovered> {
    let namespace = &**local.context.namespaces.name(newcomer.namespace);
    Ok(recovery::take_up(parked, &*local.context.window, here, namespace, after)?)
}

/// Makes sure that the window has what a session missed after `after`, if the log still has it.
pub async fn fetch_parked(local: &LocalNode, parked: &Parked, after: &Place) {
    let namespace = &**local.context.namespaces.name(parked.namespace);
    let asked = |here: &Place| Asked::to_take_up(parked, &*local.context.window, here, namespace, after);
    backfill::fetch(local, parked.namespace, asked).await;
}

/// Makes sure that the window has what these rooms had after `after`, if the log still has it.
pub async fn fetch(local: &LocalNode, after: &Place, namespace: NamespaceIndex, rooms: &[Room]) {
    let name = &**local.context.namespaces.name(namespace);
    let asked = |here: &Place| Asked::to_join(&*local.context.window, here, name, after, rooms);
    backfill::fetch(local, namespace, asked).await;
}

/// Whether a session that begins here can get what these rooms had after `after`.
///
/// # Errors
/// When it cannot be proven that the window has all of that.
pub fn provable(local: &LocalNode, after: &Place, namespace: NamespaceIndex, rooms: &[Room]) -> Result<(), Gap> {
    let namespace = &**local.context.namespaces.name(namespace);
    recovery::provable(&*local.context.window, &local.shard.position(), after, namespace, rooms)
}

/// Puts the session back with its rooms. What it missed is written before the CONNECT reply (docs/protocol/socketio.md
/// section 4.1), but for a long replay: the client counts events as received from the reply on, so that one which breaks off
/// in the middle continues there. Answers whether the session is in rooms now that it was not in before.
pub fn continue_session(
    local: &Rc<LocalNode>,
    newcomer: Newcomer,
    resumed: Resumed,
    namespace: &str,
) -> (SessionKey, bool) {
    let Resumed { pid, parked, missed, fresh, mut reserved, turn: _turn, .. } = resumed;
    let (connection, id) = (newcomer.connection, parked.id.to_string());
    let key = go_on(local, newcomer, Some(pid), parked, missed, &mut reserved);
    let grown = !room_access::join_within_limit(local, key, &fresh, &mut reserved).is_empty();
    local.shard.push_packet(connection, encode::connect(namespace, &id, Some(&pid.to_string())));
    (key, grown)
}

/// Continues a session on another connection, behind a cursor to what it missed.
pub fn go_on(
    local: &Rc<LocalNode>,
    newcomer: Newcomer,
    pid: Option<Id>,
    parked: Parked,
    missed: Replay,
    reserved: &mut Reservation,
) -> SessionKey {
    let mut session = newcomer.session(local, parked.id, pid);
    session.start = parked.start.control();
    session.lines = SessionLines::resume(&parked.start, &parked.at, parked.last_line);
    session.moves = parked.moves + 1;
    session.last = parked.last;
    session.changes = parked.changes.clone();
    let key = session_start::admit(local, session, parked.memberships(), reserved);
    let after = Box::new(missed.place(&local.shard.position()));
    local.shard.note(key, SessionNote::Resumed { after, room: None });
    local.shard.begin_replay(key, missed);
    key
}

/// Parks a session again if its client disconnected while it was being resumed.
pub fn put_back(local: &Rc<LocalNode>, resumed: Resumed) {
    session_start::abandon(local, &resumed.session, &resumed.parked.rooms);
    local.shard.park(resumed.pid, resumed.before);
}
