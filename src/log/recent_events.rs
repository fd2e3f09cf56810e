//! The events that are kept of a line, within a bound of bytes, and from where on each room has all of its own (sans-IO).

mod ranking;
mod room_floors;
mod share;
mod tenants;

use crate::log::config::Bounds;
use crate::log::recent_events::ranking::Large;
use crate::log::recent_events::room_floors::{Overflow, RoomFloors};
use crate::log::recent_events::share::{RoomEvents, Share};
use crate::model::draft::Source;
use crate::model::event::Event;
use crate::model::names::{Namespace, Room};
use crate::model::offset::Position;
use std::sync::Arc;

pub(super) use room_floors::FloorCount;
pub(super) use share::Holder;

/// A room with less than this fraction of the bytes never gives events away before others.
pub(super) const LARGE_FRACTION: usize = 1024;
/// The index of what clients publish among the shares.
pub(super) const OF_CLIENTS: usize = 1;

/// Over the bytes, the share that has more than half of them, what clients publish or what all others do, gives away the
/// oldest event of a room that holds most of it. Then only sessions in that room have lost something. Where rooms have
/// tenants it is the oldest event of the tenant that holds most, first of that tenant's largest room. Where nobody stands
/// out, the share's oldest event goes.
#[derive(Debug)]
pub(super) struct RecentEvents {
    bounds: Bounds,
    floor: Position,
    /// Of all others, and of clients.
    pub(super) shares: [Share; 2],
    pub(super) floors: RoomFloors,
}

impl RecentEvents {
    /// None yet, and never more than so many bytes.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self::of_line(bounds, &FloorCount::of(1))
    }

    /// Those of one of several lines, which may have the bytes together. That all of them have no more is for the caller to
    /// see to.
    pub(super) fn of_line(bounds: Bounds, floors: &FloorCount) -> Self {
        let stands_out = bounds.bytes / LARGE_FRACTION;
        let large = Large { listed: stands_out / floors.lines(), stands_out };
        let share = || Share::new(large, bounds.room_bytes, bounds.tenant_segments);
        let floors = RoomFloors::new(bounds.tenant_segments, floors.clone());
        Self { bounds, floor: Position::default(), shares: [share(), share()], floors }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        let floors = self.floors.total().clone();
        *self = Self::of_line(self.bounds, &floors);
    }

    /// The oldest position after which all rooms without a floor of their own have everything.
    pub(super) fn floor(&self) -> Position {
        self.floor
    }

    /// Nothing before this position is there.
    pub(super) fn raise_floor(&mut self, floor: Position) {
        self.floor = self.floor.max(floor);
    }

    /// Bytes of the events.
    pub(super) fn bytes(&self) -> usize {
        self.shares.iter().map(Share::bytes).sum()
    }

    /// Number of events.
    pub(super) fn len(&self) -> usize {
        self.shares.iter().map(Share::len).sum()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of rooms in the index.
    pub(super) fn rooms(&self) -> usize {
        self.shares.iter().map(Share::rooms).sum()
    }

    /// The events of a room, by shares.
    pub(super) fn room(&self, namespace: &str, room: &str) -> [Option<&RoomEvents>; 2] {
        self.shares.each_ref().map(|share| share.room(namespace, room))
    }

    /// The event at this position, if it is kept.
    pub(super) fn event_at(&self, position: Position) -> Option<&Arc<Event>> {
        self.shares.iter().find_map(|share| share.event_at(position))
    }

    /// Whether everything after this position is still here for these rooms.
    pub(super) fn covers<R: AsRef<str>>(&self, after: Position, namespace: &str, rooms: &[R]) -> bool {
        let covered = |room: &R| self.floors.covers(after, namespace, room.as_ref());
        after >= self.floor && (self.floors.is_empty() || rooms.iter().all(covered))
    }

    /// Takes the next event in log order.
    pub(super) fn push(&mut self, event: Arc<Event>, now_ms: u64) {
        let share = share_of(&event);
        if self.shares[share].push(event.clone(), now_ms) {
            self.evict_over(share, &event);
        }
    }

    /// Takes an event that is older than all others, and drops what is too much then. `false` where this event went, and not
    /// for the sake of its room or tenant: older ones need not be brought.
    pub(super) fn push_oldest(&mut self, event: Arc<Event>) -> bool {
        let (share, at) = (share_of(&event), event.offset.position);
        if self.shares[share].push_oldest(event.clone()) {
            self.evict_over(share, &event);
        }
        self.bound();
        self.floor < at
    }

    /// Up to where the events of a room are gone, if it lost any for itself.
    pub(super) fn floor_of(&self, namespace: &str, room: &str) -> Option<Position> {
        self.floors.of(namespace, room)
    }

    /// Rooms that lost some for themselves.
    pub(super) fn rooms_with_floors(&self) -> impl Iterator<Item = (&Namespace, &Room)> {
        self.floors.rooms()
    }

    /// All events, in the order of the log.
    pub(super) fn into_events(self) -> Vec<Arc<Event>> {
        let mut events: Vec<_> = self.shares.into_iter().flat_map(Share::into_events).collect();
        // Two runs in order.
        events.sort_by_key(|event| event.offset.position);
        events
    }

    /// Takes events that were read again, oldest first, each with the time at which it would have been pushed.
    pub(super) fn insert(&mut self, events: impl Iterator<Item = (u64, Arc<Event>)>) {
        let mut shares: [Vec<_>; 2] = Default::default();
        for (pushed_ms, event) in events {
            shares[share_of(&event)].push((pushed_ms, event));
        }
        for (share, events) in shares.into_iter().enumerate() {
            for event in self.shares[share].insert(events) {
                self.evict_over(share, &event);
            }
        }
    }

    /// Everything up to this position is gone from a room.
    pub(super) fn raise_room(&mut self, namespace: &Namespace, room: &Room, at: Position) {
        self.floors.raise_room(namespace, room, at, self.floor);
        self.bound_floors();
    }

    /// From now on it has at most so many bytes.
    pub(super) fn set_bytes(&mut self, bytes: usize) {
        self.bounds.bytes = bytes;
        self.bound();
    }

    /// Drops what is too much.
    pub(super) fn bound(&mut self) {
        while self.bytes() > self.bounds.bytes {
            self.evict();
        }
    }

    /// Drops what is too old. Only its rooms have lost something: who was in other ones all the time may have an older offset.
    pub(super) fn evict_old(&mut self, max_age_ms: u64, now_ms: u64) {
        let is_old = |_, pushed_ms: u64| now_ms.saturating_sub(pushed_ms) >= max_age_ms;
        for share in 0..self.shares.len() {
            while let Some(event) = self.shares[share].evict_oldest(is_old) {
                if max_age_ms == 0 {
                    // Nothing is ever kept: it is not worth knowing of which rooms.
                    self.floor = self.floor.max(event.offset.position);
                    continue;
                }
                self.floors.raise(&event, self.floor);
                self.bound_floors();
            }
        }
    }

    /// Drops the oldest events of those of an event's rooms that have too much.
    fn evict_over(&mut self, share: usize, event: &Event) {
        for room in &event.draft.rooms {
            while let Some(gone) = self.shares[share].evict_over(&event.draft.namespace, room) {
                self.floors.raise(&gone, self.floor);
                self.bound_floors();
            }
        }
    }

    /// Drops one event.
    fn evict(&mut self) {
        let over = usize::from(self.shares[OF_CLIENTS].bytes() > self.bounds.bytes / 2);
        match self.shares[over].evict_of_largest() {
            Some(event) => {
                self.floors.raise(&event, self.floor);
                self.bound_floors();
            }
            None => drop(self.evict_oldest(over, u64::MAX)),
        }
    }

    /// Drops the oldest event of a share, if it was not pushed later. Answers its bytes.
    pub(super) fn evict_oldest(&mut self, share: usize, pushed_ms: u64) -> Option<usize> {
        let other = self.shares[1 - share].oldest();
        let event = self.shares[share].evict_oldest(|_, pushed| pushed <= pushed_ms)?;
        let position = event.offset.position;
        if other.is_none_or(|other| position < other) {
            self.floor = self.floor.max(position);
        } else {
            self.floors.raise(&event, self.floor);
        }
        self.bound_floors();
        Some(event.size())
    }

    /// Drops the event of a share that goes first of this holder's. Answers its bytes.
    pub(super) fn evict_of(&mut self, share: usize, holder: &Holder) -> Option<usize> {
        let event = self.shares[share].evict_of(holder)?;
        // What was given away is not to be passed over again and again.
        self.shares[share].oldest();
        self.floors.raise(&event, self.floor);
        self.bound_floors();
        Some(event.size())
    }

    /// Where too many rooms have a floor of their own, those of the tenant with most of them lose what lies before some of
    /// these, or all rooms do.
    fn bound_floors(&mut self) {
        match self.floors.overflow() {
            None => {}
            Some(Overflow::Tenant(name, up_to)) => self.floors.raise_tenant(name, up_to),
            Some(Overflow::All(up_to)) => {
                for share in &mut self.shares {
                    while share.evict_oldest(|position, _| position <= up_to).is_some() {}
                }
                self.floor = self.floor.max(up_to);
                self.floors.forget_up_to(self.floor);
            }
        }
    }
}

/// Which of the shares an event belongs to.
fn share_of(event: &Event) -> usize {
    if event.draft.source == Source::Client { OF_CLIENTS } else { 0 }
}
