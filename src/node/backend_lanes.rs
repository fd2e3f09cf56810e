//! What waits for the backend, by connection: one after the other, in order. The connection's other packets pass it.

use crate::backend::Place;
use crate::model::millis::Millis;
use crate::model::names::Room;
use crate::protocol::socketio::Packet;
use crate::session::connection::{ConnectionKey, SessionKey};
use crate::session::pending_packets::Inbound;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

/// What waits on this shard. A connection is here as long as something of it waits or is being worked on.
#[derive(Default)]
pub struct BackendLanes {
    lanes: RefCell<HashMap<ConnectionKey, Lane>>,
}

#[derive(Default)]
struct Lane {
    /// The rooms of the work that has begun.
    rooms: Vec<Room>,
    waiting: VecDeque<Waiting>,
    /// Of both.
    bytes: usize,
    /// Of the work that has begun.
    begun: usize,
}

/// One piece of work.
pub struct Waiting {
    /// What is to be done.
    pub work: Work,
    /// For this session.
    pub session: SessionKey,
    /// The rooms that its rule joins or leaves.
    pub rooms: Vec<Room>,
    /// When the packet arrived.
    pub arrived: Millis,
    /// Its place in the backend's queue; `None` for a packet that asks nothing.
    pub place: Option<Place>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.place.as_ref().map_or(0, Place::bytes)
    }

    /// Whether it is of no use once the session has ended. A CONNECT waits for just that.
    pub fn needs_session(&self) -> bool {
        !matches!(&self.work, Work::Packet(Inbound::SocketIo(Packet::Connect { .. })))
    }

    /// Whether a client's message is lost without it.
    pub fn is_message(&self) -> bool {
        matches!(&self.work, Work::Packet(packet) if packet.is_message())
    }
}

/// What is to be done.
pub enum Work {
    /// A packet of the client.
    Packet(Inbound),
    /// The `connection` rule.
    Connection,
}

impl BackendLanes {
    /// The bytes that wait or are being worked on; `None` if there is nothing.
    pub fn bytes(&self, key: ConnectionKey) -> Option<usize> {
        self.lanes.borrow().get(&key).map(|lane| lane.bytes)
    }

    /// Drops what waits behind the work that has begun, and answers it.
    pub fn clear(&self, key: ConnectionKey) -> VecDeque<Waiting> {
        self.lanes
            .borrow_mut()
            .get_mut(&key)
            .map(|lane| {
                lane.bytes = lane.begun;
                std::mem::take(&mut lane.waiting)
            })
            .unwrap_or_default()
    }

    /// Adds work; whether nothing of the connection was waiting, so that the caller has to begin with it.
    pub fn push(&self, key: ConnectionKey, waiting: Waiting) -> bool {
        let mut lanes = self.lanes.borrow_mut();
        let is_first = !lanes.contains_key(&key);
        let lane = lanes.entry(key).or_default();
        lane.bytes += waiting.bytes();
        lane.waiting.push_back(waiting);
        is_first
    }

    /// The next work, when the one before is done.
    pub fn next(&self, key: ConnectionKey) -> Option<Waiting> {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes.get_mut(&key)?;
        lane.bytes -= std::mem::take(&mut lane.begun);
        let Some(mut next) = lane.waiting.pop_front() else {
            lanes.remove(&key);
            return None;
        };
        lane.rooms = std::mem::take(&mut next.rooms);
        lane.begun = next.bytes();
        Some(next)
    }

    /// Whether something of the connection waits or is being worked on.
    pub fn is_busy(&self, key: ConnectionKey) -> bool {
        self.lanes.borrow().contains_key(&key)
    }

    /// Whether that joins or leaves one of these rooms.
    pub fn concerns(&self, key: ConnectionKey, rooms: &[Room]) -> bool {
        let lanes = self.lanes.borrow();
        let Some(lane) = lanes.get(&key).filter(|_| !rooms.is_empty()) else { return false };
        let mut known = lane.waiting.iter().flat_map(|waiting| &waiting.rooms).chain(&lane.rooms);
        known.any(|room| rooms.contains(room))
    }

    /// Whether the client's leave of this session's namespace waits here.
    pub fn is_leaving(&self, key: ConnectionKey, session: SessionKey) -> bool {
        let leaves = |waiting: &Waiting| {
            let is_leave = matches!(waiting.work, Work::Packet(Inbound::SocketIo(Packet::Disconnect { .. })));
            is_leave && waiting.session == session
        };
        self.lanes.borrow().get(&key).is_some_and(|lane| lane.waiting.iter().any(leaves))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    fn one_after_the_other_and_the_rooms_of_what_has_begun_count() {
        let key = SlotMap::<ConnectionKey, ()>::with_key().insert(());
        let lanes = BackendLanes::default();
        let waiting = |room: &str| Waiting {
            work: Work::Connection,
            session: SessionKey::default(),
            rooms: vec![room.into()],
            arrived: Millis::new(1),
            place: None,
        };
        assert!(lanes.push(key, waiting("a")) && !lanes.push(key, waiting("b")));
        assert!(lanes.next(key).is_some() && lanes.is_busy(key));
        assert!(lanes.concerns(key, &["a".into()]) && lanes.concerns(key, &["b".into()]));
        assert!(!lanes.concerns(key, &["c".into()]) && !lanes.concerns(key, &[]));
        assert_eq!((lanes.clear(key).len(), lanes.bytes(key)), (1, Some(0)));
        assert!(lanes.is_busy(key), "until the work that has begun is done");
        assert!(lanes.next(key).is_none());
        assert!(!lanes.is_busy(key) && lanes.push(key, waiting("d")));
    }
}
