//! From where on the events of single rooms, or of all rooms of a tenant, are kept (sans-IO): events that are too old, or of
//! which a room has too many, are lost to their rooms alone.

use crate::model::event::Event;
use crate::model::names::{Namespace, Room, first_segments};
use crate::model::offset::Position;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// At most so many rooms are remembered, of some 100 bytes each. Lines may have those together: one gives some away when all have
/// more, and it has more than its part. So together they have at most twice as many.
pub(crate) const MAX_ROOMS: usize = 16_384;
/// A tenant with this fraction of them gets one for all its rooms before others lose anything.
const TENANT_FRACTION: usize = 16;
/// Below this, floors that no longer matter are not looked for.
const FEW: usize = 64;

/// Rooms whose floor is above the window's.
#[derive(Debug)]
pub(crate) struct RoomFloors {
    floors: HashMap<Namespace, HashMap<Room, Position>>,
    /// Of all rooms of a tenant.
    tenants: HashMap<Arc<str>, Position>,
    /// So many parts of a room's name are its tenant's; rooms have none for zero.
    segments: u8,
    len: usize,
    /// Of all lines.
    total: FloorCount,
    /// At so many, those that no longer matter are forgotten.
    prune_at: usize,
}

/// How many rooms have a floor on any of so many lines.
#[derive(Clone, Debug)]
pub(crate) struct FloorCount {
    lines: usize,
    rooms: Arc<AtomicUsize>,
}

impl FloorCount {
    pub(crate) fn of(lines: usize) -> Self {
        Self { lines, rooms: Arc::default() }
    }

    pub(crate) fn lines(&self) -> usize {
        self.lines
    }

    fn change(&self, before: usize, now: usize) {
        match now >= before {
            true => self.rooms.fetch_add(now - before, Ordering::Relaxed),
            false => self.rooms.fetch_sub(before - now, Ordering::Relaxed),
        };
    }

    /// Whether there are too many, and a line with this many has more than its part.
    fn is_over(&self, len: usize) -> bool {
        len > MAX_ROOMS / self.lines && self.rooms.load(Ordering::Relaxed) > MAX_ROOMS
    }
}

impl Drop for RoomFloors {
    fn drop(&mut self) {
        self.total.change(self.len, 0);
    }
}

/// Where there are too many: up to where everything should be forgotten, so that a quarter of the floors that it concerns do
/// not matter any more.
#[derive(Debug)]
pub(crate) enum Overflow {
    /// Of one tenant's rooms.
    Tenant(Arc<str>, Position),
    /// Of all.
    All(Position),
}

impl RoomFloors {
    /// None. So many parts of a room's name are its tenant's.
    pub(crate) fn new(segments: u8, total: FloorCount) -> Self {
        let (floors, tenants, len, prune_at) = Default::default();
        Self { floors, tenants, segments, len, total, prune_at }
    }

    pub(crate) fn total(&self) -> &FloorCount {
        &self.total
    }

    fn grow(&mut self, count: usize) {
        self.len += count;
        if count > 0 {
            self.total.change(0, count);
        }
    }

    /// Everything up to this event is gone from each of its rooms. `floor` is the window's.
    pub(crate) fn raise(&mut self, event: &Event, floor: Position) {
        let Self { floors, tenants, segments, .. } = self;
        if !floors.contains_key(&event.draft.namespace) {
            floors.insert(event.draft.namespace.clone(), HashMap::new());
        }
        let Some(rooms) = floors.get_mut(&event.draft.namespace) else { return };
        let before = rooms.len();
        for room in &event.draft.rooms {
            match rooms.get_mut(room) {
                Some(known) => *known = event.offset.position.max(*known),
                None if of_tenant(tenants, *segments, room).is_some_and(|known| known >= event.offset.position) => {}
                None => drop(rooms.insert(room.clone(), event.offset.position)),
            }
        }
        let grown = rooms.len() - before;
        self.grow(grown);
        self.prune(floor);
    }

    /// Everything up to this position is gone from a room.
    pub(crate) fn raise_room(&mut self, namespace: &Namespace, room: &Room, at: Position, floor: Position) {
        let rooms = self.floors.entry(namespace.clone()).or_default();
        let before = rooms.len();
        let known = rooms.entry(room.clone()).or_insert(at);
        *known = at.max(*known);
        let grown = rooms.len() - before;
        self.grow(grown);
        self.prune(floor);
    }

    /// Everything up to this position is gone from all rooms of a tenant.
    pub(crate) fn raise_tenant(&mut self, name: Arc<str>, at: Position) {
        let segments = self.segments;
        self.retain(|room, own| own > at || first_segments(room, segments) != &*name);
        let known = self.tenants.entry(name).or_insert(at);
        *known = at.max(*known);
        self.count();
    }

    fn prune(&mut self, floor: Position) {
        if self.len >= self.prune_at.max(FEW) {
            self.forget_up_to(floor);
            self.prune_at = 2 * self.len;
        }
    }

    /// Whether the events of a room after this position are kept, as far as that room alone is concerned.
    pub(crate) fn covers(&self, after: Position, namespace: &str, room: &str) -> bool {
        self.of(namespace, room).is_none_or(|floor| after >= floor)
    }

    /// Up to where the events of a room are gone, if it has a floor of its own.
    pub(crate) fn of(&self, namespace: &str, room: &str) -> Option<Position> {
        let own = self.floors.get(namespace).and_then(|rooms| rooms.get(room)).copied();
        own.max(of_tenant(&self.tenants, self.segments, room))
    }

    /// All rooms with a floor that is not their tenant's.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = (&Namespace, &Room)> {
        self.floors.iter().flat_map(|(namespace, rooms)| rooms.keys().map(move |room| (namespace, room)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What to forget where there are too many.
    pub(crate) fn overflow(&self) -> Option<Overflow> {
        if !self.total.is_over(self.len) {
            return None;
        }
        let (name, positions) = self.largest_tenant();
        if self.segments > 0 && positions.len() >= self.len.min(MAX_ROOMS) / TENANT_FRACTION {
            return Some(Overflow::Tenant(name.into(), quarter(positions)));
        }
        let all = self.floors.values().flat_map(HashMap::values).chain(self.tenants.values());
        Some(Overflow::All(quarter(all.copied().collect())))
    }

    /// The one whose rooms have most of the floors, and these.
    fn largest_tenant(&self) -> (&str, Vec<Position>) {
        let mut all: HashMap<&str, Vec<Position>> = HashMap::new();
        for (room, at) in self.floors.values().flatten() {
            all.entry(first_segments(room, self.segments)).or_default().push(*at);
        }
        all.into_iter().max_by_key(|(_, positions)| positions.len()).unwrap_or_default()
    }

    /// Forgets what the window's floor says already.
    pub(crate) fn forget_up_to(&mut self, floor: Position) {
        self.retain(|_, own| own > floor);
        self.tenants.retain(|_, own| *own > floor);
        self.count();
    }

    fn retain(&mut self, is_kept: impl Fn(&str, Position) -> bool) {
        self.floors.retain(|_, rooms| {
            rooms.retain(|room, own| is_kept(room, *own));
            rooms.shrink_to(2 * rooms.len());
            !rooms.is_empty()
        });
    }

    fn count(&mut self) {
        let before = self.len;
        self.len = self.floors.values().map(HashMap::len).sum::<usize>() + self.tenants.len();
        self.total.change(before, self.len);
    }
}

fn of_tenant(tenants: &HashMap<Arc<str>, Position>, segments: u8, room: &str) -> Option<Position> {
    if tenants.is_empty() {
        return None;
    }
    tenants.get(first_segments(room, segments)).copied()
}

/// A quarter of these are not after it.
fn quarter(mut positions: Vec<Position>) -> Position {
    let quarter = positions.len() / 4;
    *positions.select_nth_unstable(quarter).1
}
