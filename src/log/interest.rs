//! Which rooms this node keeps recent events of (sans-IO): those that its sessions are in, or were in within the window. Of
//! all others it is known since when they had no event, as far as a table of fixed size says it.
//!
//! That is known of each line of the log by itself ([`lines`]).
//!
//! A room is wanted before a session's position in the log is taken, so that every event after that position is kept, and
//! until everything that the session can still ask for is too old.

pub mod lines;
mod packed_position;
mod skipped;

use crate::log::interest::packed_position::PackedPosition;
use crate::log::interest::skipped::Skipped;
use crate::model::event::Event;
use crate::model::id::Id;
use crate::model::names::{EVERYBODY, Namespace, Room};
use crate::model::namespaces::{NamespaceIndex, Namespaces};
use crate::model::offset::Position;
use hashbrown::HashTable;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of the table with a lock of their own: shards and the tail meet in one of them only seldom.
const STRIPES: usize = 64;
/// Rooms that nobody is in any more and that are wanted all the same. Above it the first ones are forgotten early.
const MAX_LEFT: usize = 65_536;
/// As many of a partition at least, so that chance does not make them few in a stripe.
const MIN_LEFT: usize = 4_096;
/// The tail calls [`Interest::expire`] every second. More than this between two calls does not count.
const MAX_STEP_MS: u64 = 2_000;

/// The rooms that a node wants. Shards enter and leave rooms, the tail asks.
pub struct Interest {
    /// `None` where everything is kept: the embedded log has no other place to read it from.
    table: Option<Table>,
    namespaces: Namespaces,
}

struct Table {
    stripes: Box<[Mutex<Stripe>]>,
    hasher: RandomState,
    /// [`MAX_LEFT`], or a partition's share of it.
    max_left: usize,
    /// How long a room is wanted after its last member has left.
    kept: Duration,
    /// The time of the last [`Interest::expire`], and how much has passed by those: a node that did not run for minutes must
    /// not forget at once what it was just told.
    seen_ms: AtomicU64,
    passed_ms: AtomicU64,
    /// Every event after this position was kept of the rooms that are always wanted.
    begun: Mutex<Position>,
}

struct Stripe {
    rooms: HashTable<Wanted>,
    /// Rooms that somebody left, with the second until which they are wanted, oldest first.
    left: VecDeque<(u32, NamespaceIndex, Room)>,
    skipped: Skipped,
}

/// A room that is wanted.
struct Wanted {
    name: Room,
    /// Every event after it is kept.
    since: PackedPosition,
    /// Without members: until this second.
    until: u32,
    namespace: NamespaceIndex,
    /// How many shards have members in it.
    shards: u16,
}

impl Interest {
    /// Everything is wanted.
    pub fn everything(namespaces: Namespaces) -> Self {
        Self { table: None, namespaces }
    }

    /// Wanted is what sessions are in, and were in `kept` ago.
    pub fn of_sessions(namespaces: Namespaces, kept: Duration) -> Self {
        Self::of_partition(namespaces, kept, 1)
    }

    /// The same of one of so many partitions, which takes its share of the memory.
    pub fn of_partition(namespaces: Namespaces, kept: Duration, partitions: u8) -> Self {
        let count = usize::from(partitions);
        let skipped = || Skipped::new(STRIPES * count);
        let stripe = || Stripe { rooms: HashTable::new(), left: VecDeque::new(), skipped: skipped() };
        let table = Table {
            stripes: (0..STRIPES).map(|_| Mutex::new(stripe())).collect(),
            hasher: RandomState::new(),
            max_left: (MAX_LEFT / count).max(MIN_LEFT),
            kept,
            seen_ms: AtomicU64::new(0),
            passed_ms: AtomicU64::new(0),
            begun: Mutex::default(),
        };
        Self { table: Some(table), namespaces }
    }

    /// Whether everything is kept.
    pub fn is_everything(&self) -> bool {
        self.table.is_none()
    }

    /// Whether the room's event at this position is to be kept. If not, that is remembered.
    pub fn wants(&self, namespace: &str, room: &str, at: Position) -> bool {
        let Some(table) = self.table.as_ref().filter(|_| !is_always_wanted(room)) else { return true };
        let Some(namespace) = self.namespaces.find(namespace) else {
            // No client of this node can be in it.
            return false;
        };
        let hash = table.hash(namespace, room);
        let mut stripe = table.stripe(hash);
        let is_wanted = stripe.find(hash, namespace, room).is_some();
        if !is_wanted {
            stripe.skipped.note(hash, PackedPosition::not_before(at));
        }
        is_wanted
    }

    /// Whether this event is to be kept for any of its rooms. If not, that is remembered. A volatile one is never kept, and no
    /// room lacks it then.
    pub fn wants_event(&self, event: &Event) -> bool {
        let draft = &event.draft;
        !draft.volatile && draft.rooms.iter().any(|room| self.wants(&draft.namespace, room, event.offset.position))
    }

    /// A shard has its first member in this room.
    pub fn enter(&self, namespace: NamespaceIndex, room: &Room) {
        let Some(table) = &self.table else { return };
        let hash = table.hash(namespace, room);
        let mut stripe = table.stripe(hash);
        stripe.add(hash, namespace, room, &table.hasher).shards += 1;
    }

    /// The last member on a shard has left this room.
    pub fn leave(&self, namespace: NamespaceIndex, room: &Room) {
        let Some(table) = &self.table else { return };
        let hash = table.hash(namespace, room);
        let mut stripe = table.stripe(hash);
        let Some(wanted) = stripe.find_mut(hash, namespace, room) else { return };
        wanted.shards = wanted.shards.saturating_sub(1);
        if wanted.shards == 0 {
            stripe.keep(hash, (namespace, room), table.until(), table);
        }
    }

    /// Somebody is about to be in this room: it is wanted from now on as if a member had just left.
    pub fn touch(&self, namespace: NamespaceIndex, room: &Room) {
        let Some(table) = self.table.as_ref().filter(|_| !is_always_wanted(room)) else { return };
        let hash = table.hash(namespace, room);
        let mut stripe = table.stripe(hash);
        let until = table.until();
        let wanted = stripe.add(hash, namespace, room, &table.hasher);
        // Who is about to be in it comes soon: it need not be noted again and again.
        if wanted.shards == 0 && wanted.until + table.margin() < until {
            stripe.keep(hash, (namespace, room), until, table);
        }
    }

    /// [`Self::touch`], in all namespaces, or in the one of this name.
    pub fn touch_in(&self, namespace: Option<&str>, room: &Room) {
        match namespace {
            Some(name) => self.namespaces.find(name).into_iter().for_each(|index| self.touch(index, room)),
            None => self.namespaces.indexes().for_each(|index| self.touch(index, room)),
        }
    }

    /// Whether every event of the room after this position was wanted, and those to come are if the room is.
    pub fn covers(&self, namespace: &str, room: &str, after: Position) -> bool {
        let since = self.since(namespace, room);
        since.is_none_or(|since| since <= after)
    }

    /// Every event of the room after this position was wanted; `None` where that is so of all of them.
    pub fn since(&self, namespace: &str, room: &str) -> Option<Position> {
        let table = self.table.as_ref()?;
        if is_always_wanted(room) {
            return Some(*table.begun.lock());
        }
        let namespace = self.namespaces.find(namespace)?;
        let hash = table.hash(namespace, room);
        let stripe = table.stripe(hash);
        let since = stripe.find(hash, namespace, room).map_or_else(|| stripe.skipped.last(hash), |wanted| wanted.since);
        Some(since.position())
    }

    /// The room's events in (`after`, `up_to`] were read again. Changes nothing where they do not reach to what was kept, or
    /// nobody wants the room any more.
    pub fn fill(&self, namespace: &str, room: &str, after: Position, up_to: Position) {
        let Some(table) = self.table.as_ref().filter(|_| !is_always_wanted(room)) else { return };
        let Some(namespace) = self.namespaces.find(namespace) else { return };
        let hash = table.hash(namespace, room);
        let mut stripe = table.stripe(hash);
        if let Some(wanted) = stripe.find_mut(hash, namespace, room).filter(|wanted| wanted.since.position() <= up_to) {
            wanted.since = wanted.since.min(PackedPosition::not_before(after));
        }
    }

    /// [`Self::fill`] for the rooms that are always wanted.
    pub fn fill_always(&self, after: Position, up_to: Position) {
        let Some(table) = &self.table else { return };
        let mut begun = table.begun.lock();
        if *begun <= up_to {
            *begun = after.min(*begun);
        }
    }

    /// The log begins anew: of no room anything before this position is known.
    pub fn reset(&self, floor: Position) {
        let Some(table) = &self.table else { return };
        *table.begun.lock() = floor;
        let floor = PackedPosition::not_before(floor);
        for stripe in &table.stripes {
            let mut stripe = stripe.lock();
            stripe.skipped.reset(floor);
            stripe.rooms.iter_mut().for_each(|wanted| wanted.since = floor);
        }
    }

    /// Forgets rooms that nobody has been in for long enough. `now_ms` must not go back.
    pub fn expire(&self, now_ms: u64) {
        let Some(table) = &self.table else { return };
        let step = now_ms.saturating_sub(table.seen_ms.swap(now_ms, Ordering::Relaxed)).min(MAX_STEP_MS);
        let before = table.passed_ms.fetch_add(step, Ordering::Relaxed);
        let now = seconds(before + step);
        if seconds(before) == now {
            return;
        }
        for stripe in &table.stripes {
            let mut stripe = stripe.lock();
            while stripe.left.front().is_some_and(|(until, ..)| *until <= now) {
                stripe.forget_first(&table.hasher);
            }
        }
    }

    /// Number of rooms that are wanted.
    pub fn rooms(&self) -> usize {
        let Some(table) = &self.table else { return 0 };
        table.stripes.iter().map(|stripe| stripe.lock().rooms.len()).sum()
    }

    /// The name of a namespace that clients of this node can be in.
    pub fn namespace(&self, index: NamespaceIndex) -> &Namespace {
        self.namespaces.name(index)
    }
}

/// The rooms of single sessions, whose ids other nodes may have given, and that of everybody: no table could be smaller than
/// their events.
pub fn is_always_wanted(room: &str) -> bool {
    room == EVERYBODY || Id::parse(room).is_some_and(|id| id.is_session())
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1000).unwrap_or(u32::MAX)
}

impl Table {
    fn hash(&self, namespace: NamespaceIndex, room: &str) -> u64 {
        self.hasher.hash_one((namespace, room))
    }

    fn stripe(&self, hash: u64) -> parking_lot::MutexGuard<'_, Stripe> {
        self.stripes[(hash >> 32) as usize % STRIPES].lock()
    }

    /// Until when a room is wanted that is left now.
    fn until(&self) -> u32 {
        let now = self.passed_ms.load(Ordering::Relaxed) + MAX_STEP_MS;
        u32::try_from((Duration::from_millis(now) + self.kept).as_secs() + 1).unwrap_or(u32::MAX)
    }

    /// Seconds that a room may be wanted for shorter than from its last touch.
    fn margin(&self) -> u32 {
        seconds(u64::try_from(self.kept.as_millis() / 8).unwrap_or(u64::MAX))
    }
}

impl Stripe {
    fn find(&self, hash: u64, namespace: NamespaceIndex, room: &str) -> Option<&Wanted> {
        self.rooms.find(hash, |wanted| wanted.namespace == namespace && *wanted.name == *room)
    }

    fn find_mut(&mut self, hash: u64, namespace: NamespaceIndex, room: &str) -> Option<&mut Wanted> {
        self.rooms.find_mut(hash, |wanted| wanted.namespace == namespace && *wanted.name == *room)
    }

    /// The room's entry; a new one where it was not wanted: what was skipped of it until now is not kept.
    fn add(&mut self, hash: u64, namespace: NamespaceIndex, room: &Room, hasher: &RandomState) -> &mut Wanted {
        let since = self.skipped.last(hash);
        let is_same = |wanted: &Wanted| wanted.namespace == namespace && *wanted.name == **room;
        let entry = self.rooms.entry(hash, is_same, |wanted| hasher.hash_one((wanted.namespace, &*wanted.name)));
        let new = || Wanted { name: room.clone(), since, until: 0, namespace, shards: 0 };
        entry.or_insert_with(new).into_mut()
    }

    /// Keeps a room without members until then.
    fn keep(&mut self, hash: u64, (namespace, room): (NamespaceIndex, &Room), until: u32, table: &Table) {
        let Some(wanted) = self.find_mut(hash, namespace, room) else { return };
        if std::mem::replace(&mut wanted.until, until) == until {
            // It is in the list with this second.
            return;
        }
        let name = wanted.name.clone();
        self.left.push_back((until, namespace, name));
        if self.left.len() > table.max_left / STRIPES {
            self.forget_first(&table.hasher);
        }
    }

    /// Forgets the room that was left first, unless somebody has been in it since.
    fn forget_first(&mut self, hasher: &RandomState) {
        let Some((until, namespace, room)) = self.left.pop_front() else { return };
        let hash = hasher.hash_one((namespace, &*room));
        let is_it = |wanted: &Wanted| wanted.namespace == namespace && *wanted.name == *room && wanted.until == until;
        if let Ok(mut found) = self.rooms.find_entry(hash, is_it) {
            match found.get().shards {
                0 => drop(found.remove()),
                _ => found.get_mut().until = 0,
            }
        }
        if self.rooms.len() * 8 < self.rooms.capacity() {
            self.rooms.shrink_to(self.rooms.len() * 2, |wanted| hasher.hash_one((wanted.namespace, &*wanted.name)));
        }
    }
}

#[cfg(test)]
mod tests;
