//! Which packets have to wait for the backend. The connection's other packets pass them.

use crate::backend::request::RequestKind;
use crate::handlers::room_access;
use crate::model::names::Room;
use crate::node::context::LocalNode;
use crate::session::connection::SessionKey;
use crate::session::pending_packets::Inbound;

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
