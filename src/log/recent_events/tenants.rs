//! What the tenants hold of a share, where the first parts of a room's name say whose it is (sans-IO). A tenant that floods
//! through many small rooms stands out as one that floods a single room.

use crate::log::recent_events::ranking::{Large, Ranking};
use crate::model::names::{Namespace, Room, first_segments};
use crate::model::offset::Position;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Below this, positions that no longer matter are not looked for.
const FEW: usize = 64;

/// All that have events in the share.
#[derive(Debug)]
pub(super) struct Tenants {
    segments: u8,
    all: HashMap<Arc<str>, Tenant>,
    large: Ranking<Arc<str>>,
    /// Who has fewer bytes loses nothing before others.
    stands_out: usize,
}

#[derive(Debug)]
struct Tenant {
    bytes: usize,
    len: usize,
    /// Where its events are, and some that are gone: in order unless something was read again.
    positions: VecDeque<Position>,
    is_sorted: bool,
    /// Its rooms that stand out.
    rooms: Ranking<(Namespace, Room)>,
}

/// Whose oldest event goes first.
#[derive(Debug)]
pub(super) enum Largest {
    /// That of a room.
    Room(Namespace, Room),
    /// The event at this position, of a tenant none of whose rooms stands out.
    At(Position),
}

impl Tenants {
    /// None. So many parts of a name, at least one, tell tenants apart.
    pub(super) fn new(segments: u8, large: Large) -> Self {
        let Large { listed, stands_out } = large;
        Self { segments, all: HashMap::new(), large: Ranking::new(listed), stands_out }
    }

    /// An event of so many bytes is there.
    pub(super) fn add(&mut self, rooms: &[Room], at: Position, bytes: usize) {
        let Self { segments, all, large, .. } = self;
        each(*segments, rooms, |name| {
            let tenant = match all.get_mut(name) {
                Some(known) => known,
                None => all.entry(name.into()).or_insert_with(|| Tenant::new(large.from())),
            };
            let before = tenant.bytes;
            tenant.add(at, bytes);
            if large.matters(before, tenant.bytes) {
                large.note(|| name.into(), before, tenant.bytes);
            }
        });
    }

    /// An event is gone. `is_there` says where events still are.
    pub(super) fn remove(&mut self, rooms: &[Room], at: Position, bytes: usize, is_there: impl Fn(Position) -> bool) {
        let Self { segments, all, large, .. } = self;
        each(*segments, rooms, |name| {
            let Some(tenant) = all.get_mut(name) else { return };
            let before = tenant.bytes;
            tenant.remove(at, bytes, &is_there);
            if large.matters(before, tenant.bytes) {
                large.note(|| name.into(), before, tenant.bytes);
            }
            if tenant.len == 0 {
                all.remove(name);
            }
        });
        if all.capacity() > 1024 && all.len() < all.capacity() / 8 {
            all.shrink_to(all.len() * 2);
        }
    }

    /// The ranking of the rooms that a room is among.
    pub(super) fn rooms_beside(&mut self, room: &str) -> Option<&mut Ranking<(Namespace, Room)>> {
        self.all.get_mut(first_segments(room, self.segments)).map(|tenant| &mut tenant.rooms)
    }

    /// What goes first: of the largest tenant, if one stands out, the oldest event of its largest room, or its oldest event.
    pub(super) fn largest(&mut self, is_there: impl Fn(Position) -> bool) -> Option<Largest> {
        let tenant = self.all.get_mut(self.large.largest(self.stands_out)?)?;
        tenant.first(self.stands_out, is_there)
    }

    /// What goes first of a tenant.
    pub(super) fn first_of(&mut self, name: &str, is_there: impl Fn(Position) -> bool) -> Option<Largest> {
        self.all.get_mut(name)?.first(self.stands_out, is_there)
    }

    /// Those that hold most, and how many bytes each has.
    pub(super) fn first(&self, max: usize) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.large.first(max).filter_map(|name| Some((name, self.all.get(name)?.bytes)))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

impl Tenant {
    fn new(large_from: usize) -> Self {
        Self { bytes: 0, len: 0, positions: VecDeque::new(), is_sorted: true, rooms: Ranking::new(large_from) }
    }

    fn add(&mut self, at: Position, bytes: usize) {
        self.bytes += bytes;
        self.len += 1;
        match (self.positions.front(), self.positions.back()) {
            (Some(first), _) if self.is_sorted && at < *first => self.positions.push_front(at),
            (_, Some(last)) if at <= *last => {
                self.is_sorted = false;
                self.positions.push_back(at);
            }
            _ => self.positions.push_back(at),
        }
    }

    fn remove(&mut self, at: Position, bytes: usize, is_there: impl Fn(Position) -> bool) {
        self.bytes -= bytes;
        self.len -= 1;
        if self.positions.front() == Some(&at) {
            self.positions.pop_front();
        }
        if self.positions.len() > FEW.max(2 * self.len) {
            self.positions.retain(|position| is_there(*position));
            self.sort();
            self.positions.shrink_to(2 * self.positions.len());
        }
    }

    fn first(&mut self, stands_out: usize, is_there: impl Fn(Position) -> bool) -> Option<Largest> {
        match self.rooms.largest(stands_out) {
            Some((namespace, room)) => Some(Largest::Room(namespace.clone(), room.clone())),
            None => self.oldest(is_there).map(Largest::At),
        }
    }

    /// Where its oldest event is.
    fn oldest(&mut self, is_there: impl Fn(Position) -> bool) -> Option<Position> {
        if !self.is_sorted {
            self.sort();
        }
        while self.positions.front().is_some_and(|first| !is_there(*first)) {
            self.positions.pop_front();
        }
        self.positions.front().copied()
    }

    fn sort(&mut self) {
        // What was read again are a few runs in order.
        self.positions.make_contiguous().sort();
        let mut last = None;
        self.positions.retain(|position| last.replace(*position) != Some(*position));
        self.is_sorted = true;
    }
}

/// The tenants of these rooms, each once.
fn each(segments: u8, rooms: &[Room], mut act: impl FnMut(&str)) {
    if let [room] = rooms {
        return act(first_segments(room, segments));
    }
    let mut names: Vec<&str> = rooms.iter().map(|room| first_segments(room, segments)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().for_each(act);
}
