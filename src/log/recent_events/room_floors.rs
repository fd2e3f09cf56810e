//! From where on the events of single rooms are kept (sans-IO): events that are too old, or of which a room has too many, are
//! lost to their rooms alone.

use crate::model::event::Event;
use crate::model::names::Namespace;
use crate::model::names::Room;
use crate::model::offset::Position;
use std::collections::HashMap;

/// At most so many rooms are remembered, of some 100 bytes each.
pub(in crate::log) const MAX_ROOMS: usize = 16_384;
/// Below this, floors that no longer matter are not looked for.
const FEW: usize = 64;

/// Rooms whose floor is above the window's.
#[derive(Debug, Default)]
pub(in crate::log) struct RoomFloors {
    floors: HashMap<Namespace, HashMap<Room, Position>>,
    len: usize,
    /// At so many, those that no longer matter are forgotten.
    prune_at: usize,
}

impl RoomFloors {
    /// Everything up to this event is gone from each of its rooms. `floor` is the window's.
    pub(in crate::log) fn raise(&mut self, event: &Event, floor: Position) {
        if !self.floors.contains_key(&event.draft.namespace) {
            self.floors.insert(event.draft.namespace.clone(), HashMap::new());
        }
        let Some(rooms) = self.floors.get_mut(&event.draft.namespace) else { return };
        let before = rooms.len();
        for room in &event.draft.rooms {
            match rooms.get_mut(room) {
                Some(known) => *known = event.offset.position.max(*known),
                None => drop(rooms.insert(room.clone(), event.offset.position)),
            }
        }
        self.len += rooms.len() - before;
        self.prune(floor);
    }

    /// Everything up to this position is gone from a room.
    pub(in crate::log) fn raise_room(&mut self, namespace: &Namespace, room: &Room, at: Position, floor: Position) {
        let rooms = self.floors.entry(namespace.clone()).or_default();
        let before = rooms.len();
        let known = rooms.entry(room.clone()).or_insert(at);
        *known = at.max(*known);
        self.len += rooms.len() - before;
        self.prune(floor);
    }

    fn prune(&mut self, floor: Position) {
        if self.len >= self.prune_at.max(FEW) {
            self.forget_up_to(floor);
            self.prune_at = 2 * self.len;
        }
    }

    /// Whether the events of a room after this position are kept, as far as that room alone is concerned.
    pub(in crate::log) fn covers(&self, after: Position, namespace: &str, room: &str) -> bool {
        let floor = self.floors.get(namespace).and_then(|rooms| rooms.get(room));
        floor.is_none_or(|floor| after >= *floor)
    }

    pub(in crate::log) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where there are too many: up to where the window should forget everything, so that a quarter of them do not matter any
    /// more.
    pub(in crate::log) fn overflow(&self) -> Option<Position> {
        if self.len <= MAX_ROOMS {
            return None;
        }
        let mut all: Vec<Position> = self.floors.values().flat_map(HashMap::values).copied().collect();
        let quarter = all.len() / 4;
        Some(*all.select_nth_unstable(quarter).1)
    }

    /// Forgets what the window's floor says already.
    pub(in crate::log) fn forget_up_to(&mut self, floor: Position) {
        self.floors.retain(|_, rooms| {
            rooms.retain(|_, own| *own > floor);
            rooms.shrink_to(2 * rooms.len());
            !rooms.is_empty()
        });
        self.len = self.floors.values().map(HashMap::len).sum();
    }
}
