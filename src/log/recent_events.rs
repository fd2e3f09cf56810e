//! The events that are kept of a line, within a bound of bytes, and from where on each room has all of its own (sans-IO).

mod room_floors;
mod share;

use crate::log::recent_events::room_floors::RoomFloors;
use crate::log::recent_events::share::{RoomEvents, Share};
use crate::model::draft::Source;
use crate::model::event::Event;
use crate::model::names::{Namespace, Room};
use crate::model::offset::Position;
use std::sync::Arc;

/// A room with less than this fraction of the bytes never gives events away before others.
const LARGE_FRACTION: usize = 1024;
/// The index of what clients publish among the shares.
pub(super) const OF_CLIENTS: usize = 1;

/// Over the bytes, the share that has more than half of them, what clients publish or what all others do, gives away the
/// oldest event of a room that holds most of it. Then only sessions in that room have lost something. Where no room stands
/// out, the share's oldest event goes.
#[derive(Debug)]
pub(super) struct RecentEvents {
    max_bytes: usize,
    floor: Position,
    /// Of all others, and of clients.
    pub(super) shares: [Share; 2],
    pub(super) floors: RoomFloors,
}

impl RecentEvents {
    /// None yet, and never more than so many bytes.
    pub(super) fn new(max_bytes: usize) -> Self {
        let share = || Share::new(max_bytes / LARGE_FRACTION);
        Self { max_bytes, floor: Position::default(), shares: [share(), share()], floors: RoomFloors::default() }
    }

    /// Of each room at most so many bytes are kept.
    pub(super) fn limit_rooms(&mut self, bytes: usize) {
        self.shares.iter_mut().for_each(|share| share.limit_rooms(bytes));
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.shares.iter_mut().for_each(Share::clear);
        self.floors = RoomFloors::default();
        self.floor = Position::default();
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

    /// Drops what is too much.
    pub(super) fn bound(&mut self) {
        while self.bytes() > self.max_bytes {
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
        let over = usize::from(self.shares[OF_CLIENTS].bytes() > self.max_bytes / 2);
        let other = self.shares[1 - over].oldest();
        if let Some(event) = self.shares[over].evict_of_largest() {
            self.floors.raise(&event, self.floor);
        } else {
            let mut is_first = false;
            let oldest = self.shares[over].evict_oldest(|position, _| {
                is_first = other.is_none_or(|other| position < other);
                true
            });
            match oldest {
                Some(event) if is_first => self.floor = self.floor.max(event.offset.position),
                Some(event) => self.floors.raise(&event, self.floor),
                None => {}
            }
        }
        self.bound_floors();
    }

    /// Where too many rooms have a floor of their own, all lose what lies before some of these.
    fn bound_floors(&mut self) {
        if let Some(up_to) = self.floors.overflow() {
            for share in &mut self.shares {
                while share.evict_oldest(|position, _| position <= up_to).is_some() {}
            }
            self.floor = self.floor.max(up_to);
            self.floors.forget_up_to(self.floor);
        }
    }
}

/// Which of the shares an event belongs to.
fn share_of(event: &Event) -> usize {
    if event.draft.source == Source::Client { OF_CLIENTS } else { 0 }
}
