//! Packets that need the backend: they wait for it in order, and the connection's other packets pass them.

use crate::backend::Place;
use crate::backend::request::RequestKind;
use crate::handlers::backend_calls::{Ask, take_place};
use crate::handlers::{plain_ws, rate_limit, room_access, rule_runner, socketio};
use crate::model::close::DropReason;
use crate::model::millis::Millis;
use crate::model::names::Room;
use crate::node::backend_lanes::{Waiting, Work};
use crate::node::context::LocalNode;
use crate::session::connection::{ConnectionKey, SessionKey};
use crate::session::pending_packets::Inbound;
use std::rc::Rc;

/// Why something has to wait.
#[derive(Debug)]
pub struct Need {
    /// What the backend is asked.
    pub kind: RequestKind,
    /// The rooms that are joined or left.
    pub rooms: Vec<Room>,
}

/// A packet that nothing was done for, because it needs the backend or comes behind one that does.
pub struct Deferred {
    /// The packet.
    pub packet: Inbound,
    /// Of this session.
    pub session: SessionKey,
    /// Why.
    pub need: Need,
}

/// Whether what joins and leaves these rooms needs the backend, or must come behind something that waits for it.
pub fn need(
    local: &LocalNode,
    session: SessionKey,
    is_forwarded: bool,
    joins: &[Room],
    leaves: &[Room],
) -> Option<Need> {
    local.node.backend.as_ref()?;
    let kind = if is_forwarded { RequestKind::Event } else { RequestKind::Join };
    let rooms = || [joins, leaves].concat();
    if is_forwarded || (!joins.is_empty() && room_access::asks_backend(local, session, joins)) {
        return Some(Need { kind, rooms: rooms() });
    }
    if joins.is_empty() && leaves.is_empty() {
        return None;
    }
    let (connection, rooms) = (local.shard.connection_of(session)?, rooms());
    local.backend_lanes.concerns(connection, &rooms).then_some(Need { kind, rooms })
}

/// What an event that needs a room has to wait for: the session may get into the room by what waits for the backend.
pub fn need_of_emit(local: &LocalNode, session: SessionKey) -> Option<Need> {
    let connection = local.shard.connection_of(session)?;
    let need = Need { kind: RequestKind::Event, rooms: Vec::new() };
    local.backend_lanes.is_busy(connection).then_some(need)
}

/// Lets a packet wait; one that finds no place is refused.
pub fn defer(local: &Rc<LocalNode>, key: ConnectionKey, deferred: Deferred, arrived: Millis) {
    let Deferred { packet, session, need } = deferred;
    // What asks nothing takes no place: a client that leaves is not refused.
    let place = if packet.is_message() {
        match take_place(local, need.kind, session, packet.size()) {
            Ok(place) => Some(place),
            Err(_) => return rate_limit::refuse_queued(local, key, &packet),
        }
    } else {
        None
    };
    push(local, key, Waiting { work: Work::Packet(packet), session, rooms: need.rooms, arrived, place });
}

/// Lets the `connection` rule of a session wait.
pub fn defer_connection(local: &Rc<LocalNode>, session: SessionKey, need: Need, place: Place) {
    let Some(key) = local.shard.connection_of(session) else { return };
    let (rooms, arrived) = (need.rooms, local.shard.now());
    push(local, key, Waiting { work: Work::Connection, session, rooms, arrived, place: Some(place) });
}

fn push(local: &Rc<LocalNode>, key: ConnectionKey, waiting: Waiting) {
    if local.backend_lanes.push(key, waiting) {
        local.shard.set_asking(key, true);
        crate::handlers::start(work_off(local.clone(), key));
    }
}

/// Works on what waits, one after the other.
async fn work_off(local: Rc<LocalNode>, key: ConnectionKey) {
    while let Some(waiting) = local.backend_lanes.next(key) {
        work_on(&local, key, waiting).await;
    }
    local.shard.set_asking(key, false);
}

async fn work_on(local: &Rc<LocalNode>, key: ConnectionKey, waiting: Waiting) {
    let Waiting { work, session, arrived, place, .. } = waiting;
    if !local.shard.is_open(key) || !local.shard.has_session(session) {
        let is_lost = matches!(&work, Work::Packet(packet) if packet.is_message());
        return local.context.metrics.dropped(DropReason::Unhandled, u64::from(is_lost));
    }
    let ask = place.and_then(|place| Ask::new(local, place, arrived));
    match work {
        Work::Connection => rule_runner::run_connection_now(local, session, ask.as_ref()).await,
        Work::Packet(Inbound::SocketIo(packet)) => {
            socketio::handle_asking(local, key, session, packet, ask.as_ref()).await;
        }
        Work::Packet(Inbound::PlainWs(message)) => {
            plain_ws::handle_asking(local, key, session, message, ask.as_ref()).await;
        }
    }
}
