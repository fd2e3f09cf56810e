//! What operators see of a shard. A long list is looked through in slices, so that clients do not wait for it.

use crate::cluster::{RoomCount, RoomsQuery, SessionPlace, SessionView, SessionsQuery};
use crate::model::clock::unix_ms;
use crate::model::id::Id;
use crate::session::Session;
use crate::session::connection::{Connection, SessionKey};
use crate::session::parked::UNPROVABLE;
use crate::shard::face::Shard;
use crate::shard::hub::Hub;
use crate::shard::rooms::RoomKey;
use slotmap::{Key as _, KeyData};
use std::collections::BTreeMap;

/// Rooms looked at before others get their turn: some 100 ns each.
const ROOMS_AT_ONCE: usize = 1_024;
/// Sessions described before others get their turn: some 2 µs each.
const SESSIONS_AT_ONCE: usize = 64;
/// Bytes of the rooms' names of one session in a list.
const ROOM_NAMES: usize = 1_024;

impl Shard {
    /// The first rooms in order of name and namespace, after the last one that the caller has.
    pub async fn rooms_after(&self, query: &RoomsQuery) -> Vec<RoomCount> {
        let mut found = BTreeMap::new();
        let keys = self.hub.borrow().rooms.keys();
        for keys in keys.chunks(ROOMS_AT_ONCE) {
            self.pick_rooms(keys, query, &mut found);
            tokio::task::yield_now().await;
        }
        let counts = found.into_iter();
        counts.map(|((room, namespace), connections)| RoomCount { room, namespace, connections }).collect()
    }

    fn pick_rooms(&self, keys: &[RoomKey], query: &RoomsQuery, found: &mut BTreeMap<(String, String), u64>) {
        let hub = self.hub.borrow();
        let after = query.after.as_ref().map(|(room, namespace)| (room.as_str(), namespace.as_str()));
        for (namespace, room, members) in keys.iter().filter_map(|key| hub.rooms.describe(*key)) {
            let name = (&**room, &**self.context.namespaces.name(namespace));
            if !room.starts_with(&query.prefix) || after.is_some_and(|after| name <= after) {
                continue;
            }
            let last = found.last_key_value().map(|((last, of), _)| (last.as_str(), of.as_str()));
            if found.len() >= query.limit && last.is_some_and(|last| name > last) {
                continue;
            }
            found.insert((name.0.to_owned(), name.1.to_owned()), members as u64);
            if found.len() > query.limit {
                found.pop_last();
            }
        }
    }

    /// The first sessions in order of their places, after this one.
    pub async fn sessions_after(&self, query: &SessionsQuery, after: Option<u64>) -> Vec<SessionView> {
        let after = after.map(|key| SessionKey::from(KeyData::from_ffi(key)));
        let mut keys = self.hub.borrow().matching(query);
        keys.retain(|key| after.is_none_or(|after| *key > after));
        if keys.len() > query.limit {
            keys.select_nth_unstable(query.limit);
            keys.truncate(query.limit);
        }
        keys.sort_unstable();
        let mut views = Vec::new();
        for keys in keys.chunks(SESSIONS_AT_ONCE) {
            self.add_views(keys, &mut views);
            tokio::task::yield_now().await;
        }
        views
    }

    fn add_views(&self, keys: &[SessionKey], views: &mut Vec<SessionView>) {
        let hub = self.hub.borrow();
        views.extend(keys.iter().filter_map(|key| self.view(&hub, *key, ROOM_NAMES)));
    }

    /// One live session with all its rooms.
    pub fn session_view(&self, id: Id) -> Option<SessionView> {
        let hub = self.hub.borrow();
        self.view(&hub, hub.sessions.by_id(id)?, usize::MAX)
    }

    fn view(&self, hub: &Hub, key: SessionKey, room_names: usize) -> Option<SessionView> {
        let session = hub.sessions.get(key)?;
        let connection = hub.connections.get(session.connection);
        let mut left = room_names;
        let rooms = hub.rooms.of(key).take_while(|room| {
            let fits = room.len() <= left;
            left = left.saturating_sub(room.len());
            fits
        });
        Some(SessionView {
            session: session.id.to_string(),
            node: self.context.node_id.to_string(),
            place: SessionPlace { shard: self.index, key: key.data().as_ffi() },
            connection: session.connection.data().as_ffi(),
            user: session.identity.user.as_ref().map(|user| user.as_str().to_owned()),
            namespace: self.context.namespaces.name(session.namespace).to_string(),
            transport: connection.map(|connection| connection.link.transport().label().to_owned()),
            protocol: connection.map(|connection| connection.protocol.label().to_owned()),
            address: connection.map(|connection| connection.permit.peer().to_string()),
            since_ms: session.since_ms,
            rooms: rooms.map(ToString::to_string).collect(),
            room_count: hub.rooms.count_of(key) as u64,
            outbox_bytes: connection.map_or(0, |connection| connection.outbox.bytes() as u64),
            last_event_in_ms: connection.and_then(|connection| self.last_in(connection)),
            last_event_out_ms: last_out(session),
            last_refusal: hub.refused.of(key),
        })
    }

    fn last_in(&self, connection: &Connection) -> Option<u64> {
        connection.bucket.idle(self.now()).map(|idle| unix_ms().saturating_sub(idle))
    }
}

/// By the log's clock; volatile events and answers are not among them.
fn last_out(session: &Session) -> Option<u64> {
    (session.last > session.start.position && session.last != UNPROVABLE).then_some(session.last.ms)
}

impl Hub {
    fn matching(&self, query: &SessionsQuery) -> Vec<SessionKey> {
        match (&query.user, &query.room) {
            (Some(user), Some(room)) => {
                self.sessions.of_user(user).into_iter().filter(|key| self.is_in(*key, room)).collect()
            }
            (Some(user), None) => self.sessions.of_user(user),
            (None, Some(room)) => {
                let rooms = self.context.namespaces.indexes().filter_map(|namespace| self.rooms.find(namespace, room));
                rooms.flat_map(|room| self.rooms.members(room)).collect()
            }
            (None, None) => self.sessions.keys().collect(),
        }
    }

    fn is_in(&self, key: SessionKey, room: &str) -> bool {
        self.sessions.get(key).is_some_and(|session| self.rooms.contains(key, session.namespace, room))
    }
}
