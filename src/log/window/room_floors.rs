//! From where on the events of single rooms are kept, where they gave events away before all others had to (sans-IO).

use crate::model::event::Event;
use crate::model::names::Namespace;
use crate::model::names::Room;
use crate::model::offset::Position;
use std::collections::HashMap;

/// At most so many rooms are remembered, of some 100 bytes each.
pub(super) const MAX_ROOMS: usize = 16_384;
/// Below this, floors that no longer matter are not looked for.
const FEW: usize = 64;

/// Rooms whose floor is above the window's.
#[derive(Debug, Default)]
pub(super) struct RoomFloors {
    floors: HashMap<Namespace, HashMap<Room, Position>>,
    len: usize,
    /// At so many, those that no longer matter are forgotten.
    prune_at: usize,
}

impl RoomFloors {
    /// Everything up to this event is gone from each of its rooms. `floor` is the window's.
    pub(super) fn raise(&mut self, event: &Event, floor: Position) {
        let rooms = self.floors.entry(event.draft.namespace.clone()).or_default();
        let before = rooms.len();
        for room in &event.draft.rooms {
            let known = rooms.entry(room.clone()).or_default();
            *known = event.offset.position.max(*known);
        }
        self.len += rooms.len() - before;
        if self.len >= self.prune_at.max(FEW) {
            self.forget_up_to(floor);
            self.prune_at = 2 * self.len;
        }
    }

    /// Whether the events of a room after this position are kept, as far as that room alone is concerned.
    pub(super) fn covers(&self, after: Position, namespace: &str, room: &str) -> bool {
        let floor = self.floors.get(namespace).and_then(|rooms| rooms.get(room));
        floor.is_none_or(|floor| after >= *floor)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where there are too many: up to where the window should forget everything, so that a quarter of them do not matter any
    /// more.
    pub(super) fn overflow(&self) -> Option<Position> {
        if self.len <= MAX_ROOMS {
            return None;
        }
        let mut all: Vec<Position> = self.floors.values().flat_map(HashMap::values).copied().collect();
        let quarter = all.len() / 4;
        Some(*all.select_nth_unstable(quarter).1)
    }

    /// Forgets what the window's floor says already.
    pub(super) fn forget_up_to(&mut self, floor: Position) {
        self.floors.retain(|_, rooms| {
            rooms.retain(|_, own| *own > floor);
            rooms.shrink_to(2 * rooms.len());
            !rooms.is_empty()
        });
        self.len = self.floors.values().map(HashMap::len).sum();
    }
}
