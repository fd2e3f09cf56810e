//! The kept events of one kind of source, with an index by room (sans-IO). It knows which rooms hold most of the bytes, so
//! that these give their oldest events away first.

use crate::log::recent_events::ranking::{Large, Ranking};
use crate::log::recent_events::tenants::{Largest, Tenants};
use crate::model::event::Event;
use crate::model::names::{Namespace, Room};
use crate::model::offset::Position;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Events in log order. Their positions tell them apart.
#[derive(Debug)]
pub(crate) struct Share {
    events: VecDeque<Kept>,
    /// How many of `events` are still there.
    len: usize,
    bytes: usize,
    index: HashMap<Namespace, HashMap<Room, RoomEvents>>,
    /// Large rooms, where these have no tenants.
    large: Ranking<(Namespace, Room)>,
    /// A room with fewer bytes loses nothing before others.
    stands_out: usize,
    tenants: Option<Tenants>,
    /// A room has at most so many bytes.
    room_bytes: usize,
}

/// Who has events: a room, or a tenant where rooms have tenants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    Room(Namespace, Room),
    Tenant(Arc<str>),
}

#[derive(Debug)]
struct Kept {
    position: Position,
    /// When it was pushed, by the caller's clock.
    pushed_ms: u64,
    /// `None` once its room gave it away.
    event: Option<Arc<Event>>,
}

/// The events of one room.
#[derive(Debug)]
pub(crate) struct RoomEvents {
    list: List,
    bytes: usize,
}

/// Oldest first. Most rooms see one event within a window.
#[derive(Debug)]
enum List {
    One(Arc<Event>),
    Many(VecDeque<Arc<Event>>),
}

impl Share {
    /// Empty. So many parts of a room's name say which tenant it belongs to; none for zero.
    pub(super) fn new(large: Large, room_bytes: usize, tenant_segments: u8) -> Self {
        let tenants = (tenant_segments > 0).then(|| Tenants::new(tenant_segments, large));
        let Large { listed, stands_out } = large;
        let (events, index, large) = (VecDeque::new(), HashMap::new(), Ranking::new(listed));
        Self { events, len: 0, bytes: 0, index, large, stands_out, tenants, room_bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Number of rooms in the index.
    pub(crate) fn rooms(&self) -> usize {
        self.index.values().map(HashMap::len).sum()
    }

    /// The events of a room.
    pub(crate) fn room(&self, namespace: &str, room: &str) -> Option<&RoomEvents> {
        self.index.get(namespace)?.get(room)
    }

    /// Takes the next event. Answers whether one of its rooms has too much now.
    pub(crate) fn push(&mut self, event: Arc<Event>, now_ms: u64) -> bool {
        let (position, over) = (event.offset.position, self.add_to_rooms(&event));
        self.events.push_back(Kept { position, pushed_ms: now_ms, event: Some(event) });
        over
    }

    /// Takes an event that is older than all others, as [`Self::push`].
    pub(crate) fn push_oldest(&mut self, event: Arc<Event>) -> bool {
        let (position, over) = (event.offset.position, self.add_to_rooms(&event));
        self.events.push_front(Kept { position, pushed_ms: 0, event: Some(event) });
        over
    }

    /// Adds an event to the sums and the index. Answers whether one of its rooms has too much now.
    fn add_to_rooms(&mut self, event: &Arc<Event>) -> bool {
        let (size, namespace) = (event.size(), &event.draft.namespace);
        if let Some(tenants) = &mut self.tenants {
            tenants.add(&event.draft.rooms, event.offset.position, size);
        }
        let rooms = self.index.entry(namespace.clone()).or_default();
        let mut over = false;
        for room in &event.draft.rooms {
            let before = match rooms.entry(room.clone()) {
                Entry::Occupied(known) => match known.into_mut().add(event.clone(), size) {
                    // From a draft that names a room twice.
                    None => continue,
                    Some(before) => before,
                },
                Entry::Vacant(new) => {
                    new.insert(RoomEvents { list: List::One(event.clone()), bytes: size });
                    0
                }
            };
            over |= before + size > self.room_bytes;
            note_size(&mut self.large, &mut self.tenants, (namespace, room), before, before + size);
        }
        self.bytes += size;
        self.len += 1;
        over
    }

    /// Takes events that were read again, oldest first, each with the time at which it would have been pushed. Those that are
    /// there, or that a room gave away, change nothing. Answers those of which a room has too much now.
    pub(crate) fn insert(&mut self, events: Vec<(u64, Arc<Event>)>) -> Vec<Arc<Event>> {
        let is_new =
            |event: &Event| self.events.binary_search_by_key(&event.offset.position, |kept| kept.position).is_err();
        let new: Vec<_> = events.into_iter().filter(|(_, event)| is_new(event)).collect();
        let Some((_, first)) = new.first() else { return Vec::new() };
        let first = first.offset.position;
        let over = new.iter().filter(|(_, event)| self.add_to_rooms(event)).map(|(_, event)| event.clone()).collect();
        let later = self.events.split_off(self.events.partition_point(|kept| kept.position < first));
        let mut later = later.into_iter().peekable();
        for (pushed_ms, event) in new {
            let position = event.offset.position;
            while let Some(kept) = later.next_if(|kept| kept.position < position) {
                self.events.push_back(kept);
            }
            self.events.push_back(Kept { position, pushed_ms, event: Some(event) });
        }
        self.events.extend(later);
        over
    }

    /// Drops the oldest event of a room that has too much.
    pub(crate) fn evict_over(&mut self, namespace: &str, room: &str) -> Option<Arc<Event>> {
        let events = self.room(namespace, room).filter(|events| events.bytes > self.room_bytes)?;
        let event = events.list.first()?.clone();
        self.give_away(&event);
        Some(event)
    }

    /// The event at this position, if it is still there.
    pub(crate) fn event_at(&self, position: Position) -> Option<&Arc<Event>> {
        find(&self.events, position)
    }

    /// Where its oldest event is.
    pub(crate) fn oldest(&mut self) -> Option<Position> {
        while self.events.front().is_some_and(|kept| kept.event.is_none()) {
            self.events.pop_front();
        }
        self.events.front().map(|kept| kept.position)
    }

    /// Drops its oldest event if that fits.
    pub(crate) fn evict_oldest(&mut self, fits: impl FnOnce(Position, u64) -> bool) -> Option<Arc<Event>> {
        self.oldest();
        let kept = self.events.front()?;
        if !fits(kept.position, kept.pushed_ms) {
            return None;
        }
        let Kept { event, .. } = self.events.pop_front()?;
        shrink_if_sparse(self.events.len(), self.events.capacity(), |max| self.events.shrink_to(max));
        let event = event?;
        self.forget(&event);
        Some(event)
    }

    /// Drops the oldest event of a room that stands out, one of the largest within a factor of two. Where rooms have tenants,
    /// of the tenant that stands out: of its largest room, or its oldest.
    pub(crate) fn evict_of_largest(&mut self) -> Option<Arc<Event>> {
        let largest = match &mut self.tenants {
            None => {
                let room = self.large.largest(self.stands_out);
                room.map(|(namespace, room)| Largest::Room(namespace.clone(), room.clone()))
            }
            Some(tenants) => tenants.largest(|position| find(&self.events, position).is_some()),
        };
        self.evict_first(largest?)
    }

    /// The same of this holder, whoever is the largest.
    pub(crate) fn evict_of(&mut self, holder: &Holder) -> Option<Arc<Event>> {
        let first = match (holder, &mut self.tenants) {
            (Holder::Room(namespace, room), _) => Some(Largest::Room(namespace.clone(), room.clone())),
            (Holder::Tenant(name), Some(tenants)) => {
                tenants.first_of(name, |position| find(&self.events, position).is_some())
            }
            (Holder::Tenant(_), None) => None,
        };
        self.evict_first(first?)
    }

    fn evict_first(&mut self, first: Largest) -> Option<Arc<Event>> {
        let event = match first {
            Largest::Room(namespace, room) => self.room(&namespace, &room)?.list.first()?.clone(),
            Largest::At(position) => self.event_at(position)?.clone(),
        };
        self.give_away(&event);
        Some(event)
    }

    /// Those who hold most, within a factor of two, with their bytes.
    pub(crate) fn largest(&self, max: usize) -> Vec<(Holder, usize)> {
        match &self.tenants {
            Some(tenants) => tenants.first(max).map(|(name, bytes)| (Holder::Tenant(name.clone()), bytes)).collect(),
            None => {
                let rooms = self.large.first(max);
                let holder = |(namespace, room): &(Namespace, Room)| {
                    Some((Holder::Room(namespace.clone(), room.clone()), self.room(namespace, room)?.bytes))
                };
                rooms.filter_map(holder).collect()
            }
        }
    }

    /// When its oldest and its newest event were pushed.
    pub(crate) fn ages(&self) -> Option<(u64, u64)> {
        let oldest = self.events.iter().find(|kept| kept.event.is_some())?;
        Some((oldest.pushed_ms, self.events.back()?.pushed_ms))
    }

    /// Drops an event that need not be the oldest.
    fn give_away(&mut self, event: &Event) {
        let position = event.offset.position;
        match self.events.front_mut() {
            // Where one room has nearly all events.
            Some(oldest) if oldest.position == position => oldest.event = None,
            _ => {
                if let Ok(at) = self.events.binary_search_by_key(&position, |kept| kept.position) {
                    self.events[at].event = None;
                }
            }
        }
        self.forget(event);
        if self.events.len() > 1024 && self.len < self.events.len() / 2 {
            self.events.retain(|kept| kept.event.is_some());
        }
    }

    /// Takes an event out of the sums and the index.
    fn forget(&mut self, event: &Event) {
        let (size, position, namespace) = (event.size(), event.offset.position, &event.draft.namespace);
        self.bytes -= size;
        self.len -= 1;
        let Some(rooms) = self.index.get_mut(namespace) else { return };
        for room in &event.draft.rooms {
            let Some(events) = rooms.get_mut(room).filter(|events| events.list.contains(position)) else { continue };
            let before = events.bytes;
            events.bytes -= size;
            note_size(&mut self.large, &mut self.tenants, (namespace, room), before, before - size);
            if !events.list.remove(position) {
                rooms.remove(room);
            }
        }
        shrink_if_sparse(rooms.len(), rooms.capacity(), |max| rooms.shrink_to(max));
        if rooms.is_empty() {
            self.index.remove(namespace);
        }
        if let Some(tenants) = &mut self.tenants {
            tenants.remove(&event.draft.rooms, position, size, |at| find(&self.events, at).is_some());
        }
    }

    /// All events, oldest first.
    pub(crate) fn into_events(self) -> impl Iterator<Item = Arc<Event>> {
        self.events.into_iter().filter_map(|kept| kept.event)
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> (usize, usize) {
        (self.events.capacity(), self.index.len() + self.tenants.as_ref().map_or(0, Tenants::len))
    }
}

/// Puts a room whose size has changed into its place among the large ones.
fn note_size(
    large: &mut Ranking<(Namespace, Room)>,
    tenants: &mut Option<Tenants>,
    (namespace, room): (&Namespace, &Room),
    before: usize,
    now: usize,
) {
    if !large.matters(before, now) {
        return;
    }
    let ranking = match tenants {
        None => Some(large),
        Some(tenants) => tenants.rooms_beside(room),
    };
    if let Some(ranking) = ranking {
        ranking.note(|| (namespace.clone(), room.clone()), before, now);
    }
}

/// The event at a position, unless it was given away.
fn find(events: &VecDeque<Kept>, position: Position) -> Option<&Arc<Event>> {
    let at = events.binary_search_by_key(&position, |kept| kept.position).ok()?;
    events[at].event.as_ref()
}

/// Gives memory back after a peak, seldom enough that its cost does not count.
fn shrink_if_sparse(len: usize, capacity: usize, shrink: impl FnOnce(usize)) {
    if capacity > 1024 && len < capacity / 8 {
        shrink(len * 2);
    }
}

impl RoomEvents {
    /// Adds an event of so many bytes. Answers how many there were; `None` where it is there.
    fn add(&mut self, event: Arc<Event>, size: usize) -> Option<usize> {
        if !self.list.add(event) {
            return None;
        }
        let before = self.bytes;
        self.bytes += size;
        Some(before)
    }

    /// The index of the first event after a position.
    pub(crate) fn first_after(&self, position: Position) -> usize {
        match &self.list {
            List::One(event) => usize::from(event.offset.position <= position),
            List::Many(events) => events.partition_point(|event| event.offset.position <= position),
        }
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Arc<Event>> {
        match &self.list {
            List::One(event) => (at == 0).then_some(event),
            List::Many(events) => events.get(at),
        }
    }
}

impl List {
    /// Adds an event, which is nearly always the newest; `false` where it is there.
    fn add(&mut self, event: Arc<Event>) -> bool {
        if self.last().is_none_or(|last| last < event.offset.position) {
            match self {
                Self::One(only) => *self = Self::Many(VecDeque::from([only.clone(), event])),
                Self::Many(events) => events.push_back(event),
            }
            return true;
        }
        let position = event.offset.position;
        match self {
            Self::One(only) if only.offset.position == position => return false,
            Self::One(only) => *self = Self::Many(VecDeque::from([event, only.clone()])),
            Self::Many(events) => match events.binary_search_by_key(&position, |event| event.offset.position) {
                Ok(_) => return false,
                Err(at) => events.insert(at, event),
            },
        }
        true
    }

    fn first(&self) -> Option<&Arc<Event>> {
        match self {
            Self::One(event) => Some(event),
            Self::Many(events) => events.front(),
        }
    }

    fn last(&self) -> Option<Position> {
        match self {
            Self::One(event) => Some(event.offset.position),
            Self::Many(events) => events.back().map(|event| event.offset.position),
        }
    }

    /// Where an event is. It is nearly always the first.
    fn find(&self, position: Position) -> Option<usize> {
        if self.first().is_some_and(|first| first.offset.position == position) {
            return Some(0);
        }
        match self {
            Self::One(_) => None,
            Self::Many(events) => events.binary_search_by_key(&position, |event| event.offset.position).ok(),
        }
    }

    fn contains(&self, position: Position) -> bool {
        self.find(position).is_some()
    }

    /// Removes an event; false when none is left.
    fn remove(&mut self, position: Position) -> bool {
        let at = self.find(position);
        match self {
            Self::One(_) => false,
            Self::Many(events) => {
                at.and_then(|at| events.remove(at));
                shrink_if_sparse(events.len(), events.capacity(), |max| events.shrink_to(max));
                !events.is_empty()
            }
        }
    }
}
