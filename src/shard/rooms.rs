//! Which session is in which room, on one shard (sans-IO). Join and leave are O(1), members are dense, and empty rooms use no
//! memory.

use crate::log::interest::lines::Interests;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::provenance::Provenance;
use hashbrown::HashTable;
use slotmap::{Key, SecondaryMap, SlotMap, new_key_type};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

new_key_type! {
    /// A room in the table. Stale after its last member has left.
    pub struct RoomKey;
}

struct RoomState<K> {
    namespace: NamespaceIndex,
    name: Room,
    members: Members<K>,
}

/// A member, and the index of this room in the member's own list, so that a leave needs no search.
struct Member<K> {
    session: K,
    back: u32,
}

/// Most rooms have one member, such as a user's own: it needs no memory besides the room's.
enum Members<K> {
    One(Member<K>),
    /// Not empty, other than for a moment.
    Many(Vec<Member<K>>),
}

impl<K> Members<K> {
    fn as_slice(&self) -> &[Member<K>] {
        match self {
            Self::One(member) => std::slice::from_ref(member),
            Self::Many(members) => members,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Member<K>] {
        match self {
            Self::One(member) => std::slice::from_mut(member),
            Self::Many(members) => members,
        }
    }

    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn push(&mut self, member: Member<K>) {
        match self {
            Self::Many(members) if !members.is_empty() => members.push(member),
            Self::Many(_) => *self = Self::One(member),
            Self::One(_) => {
                let Self::One(first) = std::mem::replace(self, Self::Many(Vec::new())) else { return };
                *self = Self::Many(vec![first, member]);
            }
        }
    }

    /// Takes one out; the last one takes its place. Gives memory back that is not needed any more.
    fn swap_remove(&mut self, at: usize) {
        match self {
            Self::One(_) => *self = Self::Many(Vec::new()),
            Self::Many(members) => {
                members.swap_remove(at);
                if members.len() == 1
                    && let Some(last) = members.pop()
                {
                    *self = Self::One(last);
                } else if members.len() * 4 < members.capacity() {
                    members.shrink_to(members.len() * 2);
                }
            }
        }
    }
}

/// A room of a session, the index of the session among the room's members, why it is in the room, and whether presence
/// counts it there.
struct Membership {
    room: RoomKey,
    /// The index, above the bits of the provenance and of presence: an idle session has no byte to spare.
    packed: u32,
}

/// Set where presence counts the session in the room.
const COUNTED: u32 = 1 << Provenance::BITS;
const INDEX_SHIFT: u32 = Provenance::BITS + 1;

impl Membership {
    fn new(room: RoomKey, at: usize, by: Provenance) -> Self {
        Self { room, packed: pack(at) | by as u32 }
    }

    fn at(&self) -> usize {
        (self.packed >> INDEX_SHIFT) as usize
    }

    fn by(&self) -> Provenance {
        Provenance::from_bits(self.packed & (COUNTED - 1))
    }

    fn move_to(&mut self, at: usize) {
        self.packed = pack(at) | (self.packed & ((1 << INDEX_SHIFT) - 1));
    }

    fn decide(&mut self, by: Provenance) {
        self.packed = (self.packed & !(COUNTED - 1)) | by as u32;
    }

    fn is_counted(&self) -> bool {
        self.packed & COUNTED != 0
    }
}

/// A room has less than 2^28 members on one shard: a connection costs more than 1 KB.
fn pack(at: usize) -> u32 {
    (at as u32) << INDEX_SHIFT
}

/// All rooms with members, of all namespaces.
pub struct Rooms<K: Key> {
    names: HashTable<RoomKey>,
    hasher: RandomState,
    rooms: SlotMap<RoomKey, RoomState<K>>,
    /// Exact, because idle sessions have one each.
    sessions: SecondaryMap<K, Box<[Membership]>>,
    /// Hears of the first member of each room, and of the last.
    interest: Option<Arc<Interests>>,
}

impl<K: Key> Default for Rooms<K> {
    fn default() -> Self {
        Self {
            names: HashTable::new(),
            hasher: RandomState::new(),
            rooms: SlotMap::with_key(),
            sessions: SecondaryMap::new(),
            interest: None,
        }
    }
}

impl<K: Key> Rooms<K> {
    /// Empty. The node's interest follows which rooms have members.
    pub fn of_node(interest: Arc<Interests>) -> Self {
        Self { interest: Some(interest), ..Self::default() }
    }

    /// The room's key, if anybody is in it.
    pub fn find(&self, namespace: NamespaceIndex, name: &str) -> Option<RoomKey> {
        let hash = self.hasher.hash_one((namespace, name));
        let found = self.names.find(hash, |key| {
            let entry = &self.rooms[*key];
            entry.namespace == namespace && &*entry.name == name
        });
        found.copied()
    }

    /// Adds a session to a room; `false` if it was in already.
    pub fn join(&mut self, session: K, namespace: NamespaceIndex, name: &Room, by: Provenance) -> bool {
        let room = match self.find(namespace, name) {
            Some(room) if self.membership(session, room).is_some() => return false,
            Some(room) => room,
            None => self.create(namespace, name.clone()),
        };
        let Some(list) = self.sessions.entry(session).map(slotmap::secondary::Entry::or_default) else { return false };
        let members = &mut self.rooms[room].members;
        let mut longer = std::mem::take(list).into_vec();
        longer.reserve_exact(1);
        longer.push(Membership::new(room, members.len(), by));
        *list = longer.into_boxed_slice();
        members.push(Member { session, back: list.len() as u32 - 1 });
        true
    }

    fn create(&mut self, namespace: NamespaceIndex, name: Room) -> RoomKey {
        if let Some(interest) = &self.interest {
            interest.enter(namespace, &name);
        }
        let hash = self.hasher.hash_one((namespace, &*name));
        let key = self.rooms.insert(RoomState { namespace, name, members: Members::Many(Vec::new()) });
        let (rooms, hasher) = (&self.rooms, &self.hasher);
        self.names.insert_unique(hash, key, |key| {
            let entry = &rooms[*key];
            hasher.hash_one((entry.namespace, &*entry.name))
        });
        key
    }

    /// Notes that something else keeps a session in a room that it is in.
    pub fn decide(&mut self, session: K, namespace: NamespaceIndex, name: &str, by: Provenance) {
        if let Some(room) = self.find(namespace, name)
            && let Some(index) = self.membership(session, room)
        {
            self.sessions[session][index].decide(by);
        }
    }

    /// Notes that presence counts a session in a room that it is in.
    pub fn count(&mut self, session: K, namespace: NamespaceIndex, name: &str) {
        if let Some(room) = self.find(namespace, name)
            && let Some(index) = self.membership(session, room)
        {
            self.sessions[session][index].packed |= COUNTED;
        }
    }

    /// Takes a session out of a room, and answers whether presence counted it there; `None` if it was not in it.
    pub fn leave(&mut self, session: K, namespace: NamespaceIndex, name: &str) -> Option<bool> {
        let room = self.find(namespace, name)?;
        let index = self.membership(session, room)?;
        let is_counted = self.sessions[session][index].is_counted();
        self.remove(session, index);
        Some(is_counted)
    }

    /// Takes a session out of all its rooms and forgets it.
    pub fn forget(&mut self, session: K) {
        while self.sessions.get(session).is_some_and(|list| !list.is_empty()) {
            let last = self.sessions[session].len() - 1;
            self.remove(session, last);
        }
        self.sessions.remove(session);
    }

    fn membership(&self, session: K, room: RoomKey) -> Option<usize> {
        self.sessions.get(session)?.iter().position(|membership| membership.room == room)
    }

    fn remove(&mut self, session: K, index: usize) {
        let list = &mut self.sessions[session];
        let mut shorter = std::mem::take(list).into_vec();
        let removed = shorter.swap_remove(index);
        *list = shorter.into_boxed_slice();
        let (room, at) = (removed.room, removed.at());
        if let Some(moved) = list.get(index) {
            self.rooms[moved.room].members.as_mut_slice()[moved.at()].back = index as u32;
        }
        let members = &mut self.rooms[room].members;
        members.swap_remove(at);
        if let Some(moved) = members.as_slice().get(at) {
            self.sessions[moved.session][moved.back as usize].move_to(at);
        }
        if members.len() == 0 {
            self.destroy(room);
        }
    }

    fn destroy(&mut self, room: RoomKey) {
        let Some(entry) = self.rooms.remove(room) else { return };
        if let Some(interest) = &self.interest {
            interest.leave(entry.namespace, &entry.name);
        }
        let hash = self.hasher.hash_one((entry.namespace, &*entry.name));
        if let Ok(occupied) = self.names.find_entry(hash, |key| *key == room) {
            occupied.remove();
        }
        if self.names.len() * 8 < self.names.capacity() {
            let (rooms, hasher) = (&self.rooms, &self.hasher);
            self.names.shrink_to(self.names.len() * 2, |key| {
                let entry = &rooms[*key];
                hasher.hash_one((entry.namespace, &*entry.name))
            });
        }
    }

    /// The members of a room.
    pub fn members(&self, room: RoomKey) -> impl ExactSizeIterator<Item = K> + '_ {
        self.rooms[room].members.as_slice().iter().map(|member| member.session)
    }

    /// Whether a session is in a room.
    pub fn contains(&self, session: K, namespace: NamespaceIndex, name: &str) -> bool {
        self.find(namespace, name).is_some_and(|room| self.membership(session, room).is_some())
    }

    /// The rooms of a session.
    pub fn of(&self, session: K) -> impl Iterator<Item = &Room> + '_ {
        self.memberships(session).map(|(room, _)| room)
    }

    /// The rooms of a session, and why it is in them.
    pub fn memberships(&self, session: K) -> impl Iterator<Item = (&Room, Provenance)> + '_ {
        let list = self.sessions.get(session).into_iter().flatten();
        list.map(|membership| (&self.rooms[membership.room].name, membership.by()))
    }

    /// The rooms of a session, and whether presence counts it there.
    pub fn counted(&self, session: K) -> impl Iterator<Item = (&Room, bool)> + '_ {
        let list = self.sessions.get(session).into_iter().flatten();
        list.map(|membership| (&self.rooms[membership.room].name, membership.is_counted()))
    }

    /// How many rooms a session is in.
    pub fn count_of(&self, session: K) -> usize {
        self.sessions.get(session).map_or(0, |list| list.len())
    }

    /// All rooms with members.
    pub fn keys(&self) -> Vec<RoomKey> {
        self.rooms.keys().collect()
    }

    /// A room's namespace and name, and how many members it has; `None` if nobody is in it any more.
    pub fn describe(&self, room: RoomKey) -> Option<(NamespaceIndex, &Room, usize)> {
        self.rooms.get(room).map(|state| (state.namespace, &state.name, state.members.len()))
    }

    /// Rooms with members.
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether nobody is in any room.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slotmap::DefaultKey;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        /// Against a naive model: sets of names.
        #[test]
        fn behaves_like_sets(steps in prop::collection::vec((0usize..6, (0u16..2).prop_map(NamespaceIndex::new), 0u8..5, 0u8..3), 1..200)) {
            let mut keys: SlotMap<DefaultKey, ()> = SlotMap::new();
            let keys: Vec<_> = (0..6).map(|_| keys.insert(())).collect();
            let mut rooms = Rooms::default();
            let mut model: BTreeMap<usize, BTreeSet<(NamespaceIndex, u8)>> = BTreeMap::new();
            let by = |room: u8| Provenance::from_bits(room.into());
            let is_counted = |room: u8| room % 2 == 1;
            for (who, namespace, room, what) in steps {
                let name: Room = format!("r{room}").into();
                let set = model.entry(who).or_default();
                match what {
                    0 => {
                        prop_assert_eq!(rooms.join(keys[who], namespace, &name, by(room)), set.insert((namespace, room)));
                        if is_counted(room) {
                            rooms.count(keys[who], namespace, &name);
                        }
                    }
                    1 => {
                        let left = set.remove(&(namespace, room)).then(|| is_counted(room));
                        prop_assert_eq!(rooms.leave(keys[who], namespace, &name), left);
                    }
                    _ => { rooms.forget(keys[who]); set.clear(); }
                }
                for namespace in [0, 1].map(NamespaceIndex::new) {
                    for room in 0..5 {
                        let expected: BTreeSet<_> =
                            (0..6).filter(|who| model.get(who).is_some_and(|set| set.contains(&(namespace, room)))).map(|who| keys[who]).collect();
                        let found = rooms.find(namespace, &format!("r{room}"));
                        let actual: BTreeSet<_> = found.map(|key| rooms.members(key).collect()).unwrap_or_default();
                        prop_assert_eq!(actual, expected);
                    }
                }
                for key in &keys {
                    for (name, provenance) in rooms.memberships(*key) {
                        prop_assert_eq!(provenance, by(name[1..].parse().unwrap()));
                    }
                    for (name, counted) in rooms.counted(*key) {
                        prop_assert_eq!(counted, is_counted(name[1..].parse().unwrap()));
                    }
                }
                prop_assert_eq!(rooms.len(), model.values().flatten().collect::<BTreeSet<_>>().len());
            }
        }
    }

    #[test]
    fn a_membership_is_small() {
        assert_eq!(size_of::<Membership>(), 12, "every idle session has one for each of its rooms");
    }

    #[test]
    fn a_million_rooms_leave_nothing_behind() {
        let mut keys: SlotMap<DefaultKey, ()> = SlotMap::new();
        let session = keys.insert(());
        let mut rooms = Rooms::default();
        for n in 0..1_000_000 {
            let name: Room = format!("room:{n}").into();
            assert!(rooms.join(session, NamespaceIndex::default(), &name, Provenance::Rule));
            if n >= 100 {
                let name = format!("room:{}", n - 100);
                assert_eq!(rooms.leave(session, NamespaceIndex::default(), &name), Some(false));
            }
        }
        rooms.forget(session);
        assert!(rooms.is_empty());
        assert!(rooms.names.capacity() < 1_000 && rooms.rooms.capacity() < 1_000, "tables keep their peak");
    }
}
