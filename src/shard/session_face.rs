//! What code outside the shard does with a session.

use crate::auth::Identity;
use crate::model::close::CloseReason;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::place::Place;
use crate::model::provenance::Provenance;
use crate::model::session_note::{LeftBy, SessionNote};
use crate::presence::Ticket;
use crate::presence::local::Reservation;
use crate::session::Session;
use crate::session::connection::{ConnectionKey, SessionKey};
use crate::session::replay::Replay;
use crate::shard::face::Shard;
use crate::shard::rooms::Rooms;
use std::ops::Deref;
use std::sync::Arc;

/// A live session and its rooms, for the length of a [`Shard::with_session`].
pub struct SessionView<'a> {
    session: &'a Session,
    key: SessionKey,
    rooms: &'a Rooms<SessionKey>,
}

impl Deref for SessionView<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
    }
}

impl<'a> SessionView<'a> {
    /// Its rooms.
    pub fn rooms(&self) -> impl Iterator<Item = &'a Room> + use<'a> {
        self.rooms.of(self.key)
    }

    /// Its rooms, and why it is in them.
    pub fn memberships(&self) -> impl Iterator<Item = (&'a Room, Provenance)> + use<'a> {
        self.rooms.memberships(self.key)
    }

    /// Why it is in a room; `None`: it is not.
    pub fn provenance(&self, room: &str) -> Option<Provenance> {
        self.memberships().find(|(own, _)| ***own == *room).map(|(_, by)| by)
    }

    /// How many rooms it is in.
    pub fn room_count(&self) -> usize {
        self.rooms.count_of(self.key)
    }

    /// Whether it is in a room.
    pub fn is_in(&self, room: &str) -> bool {
        self.rooms.contains(self.key, self.session.namespace, room)
    }
}

impl Shard {
    /// Reads a live session; `None` when it has ended. `read` must not change anything on the shard.
    pub fn with_session<T>(&self, key: SessionKey, read: impl FnOnce(&SessionView<'_>) -> T) -> Option<T> {
        let hub = self.hub.borrow();
        let session = hub.sessions.get(key)?;
        Some(read(&SessionView { session, key, rooms: &hub.rooms }))
    }

    /// Whether a session is live.
    pub fn has_session(&self, key: SessionKey) -> bool {
        self.hub.borrow().sessions.get(key).is_some()
    }

    /// The connection's session in a namespace.
    pub fn session_in(&self, connection: ConnectionKey, namespace: NamespaceIndex) -> Option<SessionKey> {
        self.hub.borrow().session_in(connection, namespace)
    }

    /// The connection that a session lives on.
    pub fn connection_of(&self, key: SessionKey) -> Option<ConnectionKey> {
        self.with_session(key, |session| session.connection)
    }

    /// Counts a session that is not on the shard yet, with its rooms, for presence.
    pub fn reserve(&self, session: &Session, rooms: &[Room]) -> Reservation {
        self.hub.borrow().reserve(session, rooms)
    }

    /// Counts a session in rooms that it is about to join, for presence.
    pub fn reserve_rooms(&self, key: SessionKey, rooms: &[Room]) -> Reservation {
        self.hub.borrow().reserve_rooms(key, rooms)
    }

    /// The session's newest change of presence that is announced.
    pub fn announced(&self, key: SessionKey) -> Ticket {
        self.with_session(key, |session| session.announced).unwrap_or_default()
    }

    /// Adds a session to its connection, in the rooms that it starts in. What is `reserved` is counted already. These joins
    /// are no changes, since the session never was without them, and no limit holds: the backend may have exceeded it.
    pub fn admit<'a>(
        &self,
        session: Box<Session>,
        rooms: impl IntoIterator<Item = (&'a Room, Provenance)>,
        reserved: &mut Reservation,
    ) -> SessionKey {
        let mut hub = self.hub.borrow_mut();
        let key = hub.admit(session, reserved);
        for (room, by) in rooms {
            hub.join_initial(key, room, by, reserved);
        }
        hub.began(key);
        hub.note(key, SessionNote::Began);
        key
    }

    /// Takes note of what happened to a session.
    pub fn note(&self, key: SessionKey, note: SessionNote) {
        self.hub.borrow_mut().note(key, note);
    }

    /// Ends one session; after a reason that allows it, it may resume within the window.
    pub fn dismiss(&self, key: SessionKey, reason: CloseReason) {
        let now = self.now();
        self.hub.borrow_mut().dismiss(key, reason, now);
    }

    /// Ends the sessions of these clients for good.
    pub fn end_sessions_of(&self, reason: CloseReason, whose: impl Fn(&Identity) -> bool) {
        let now = self.now();
        self.hub.borrow_mut().end_sessions_of(reason, whose, now);
    }

    /// Joins rooms; answers those that the session was not in. What is `reserved` is counted already.
    pub fn join<'a>(
        &self,
        key: SessionKey,
        rooms: impl IntoIterator<Item = (&'a Room, Provenance)>,
        reserved: &mut Reservation,
    ) -> Vec<Room> {
        let mut hub = self.hub.borrow_mut();
        let new = rooms.into_iter().filter(|(room, by)| hub.join(key, room, *by, reserved));
        new.map(|(room, _)| room.clone()).collect()
    }

    /// Leaves a room that the session's new token, or new rules, do not give it; whether it was in it. It gets no more of its
    /// past either.
    pub fn lose_room(&self, key: SessionKey, room: &Room, by: LeftBy) -> bool {
        self.hub.borrow_mut().lose_room(key, room, by)
    }

    /// All live sessions.
    pub fn session_keys(&self) -> Vec<SessionKey> {
        self.hub.borrow().sessions.keys().collect()
    }

    /// Counts a session in those of its rooms that have presence only since the rules changed.
    pub fn count_quietly(&self, key: SessionKey) {
        self.hub.borrow_mut().count_quietly(key);
    }

    /// Notes that something else keeps a session in a room that it is in.
    pub fn decide(&self, key: SessionKey, room: &str, by: Provenance) {
        self.hub.borrow_mut().decide(key, room, by);
    }

    /// A session that was just admitted continues behind this cursor.
    pub fn begin_replay(&self, key: SessionKey, replay: Replay) {
        let now = self.now();
        self.hub.borrow_mut().begin_replay(key, replay, now);
    }

    /// A `/ws` session gets the past of one of its rooms, in (`after`, `up_to`]; without `up_to`, to where the shard is.
    pub fn replay_past(&self, key: SessionKey, room: &Room, after: &Place, up_to: Option<&Place>) {
        let now = self.now();
        self.hub.borrow_mut().replay_past(key, room, after, up_to, now);
    }

    /// The place up to which a session has, or had queued, everything of the log.
    pub fn resume_point(&self, key: SessionKey) -> Place {
        self.hub.borrow().resume_point(key)
    }

    /// Leaves a room at the wish of a `/ws` client, which gets nothing more of it, also of what it still had to get.
    pub fn leave_for_good(&self, key: SessionKey, room: &Room) {
        let mut hub = self.hub.borrow_mut();
        hub.leave(key, room, LeftBy::Client);
        hub.forget_past(key, room);
    }

    /// A `/ws` client has joined a room anew: of what was before it gets only what it asks for.
    pub fn forget_past(&self, key: SessionKey, room: &Room) {
        self.hub.borrow_mut().forget_past(key, room);
    }

    /// From where on a `/ws` session is to get events of a room that it is in.
    pub fn room_point(&self, key: SessionKey, room: &Room) -> Place {
        self.hub.borrow().room_point(key, room)
    }

    /// Leaves rooms. A session that is behind still gets what they had before.
    pub fn leave(&self, key: SessionKey, rooms: &[Room], by: LeftBy) {
        let mut hub = self.hub.borrow_mut();
        for room in rooms {
            hub.leave(key, room, by);
        }
    }

    /// Closes the session's connection at this time of the wall clock (Unix seconds): its token ends then.
    pub fn expire_at_unix(&self, key: SessionKey, seconds: u64) {
        let at = self.at_unix(seconds);
        let mut hub = self.hub.borrow_mut();
        let Some(session) = hub.sessions.get_mut(key) else { return };
        session.expires = Some(at);
        let connection = session.connection;
        hub.connections.change_timers(connection, |timers| {
            timers.expires = Some(timers.expires.map_or(at, |other| other.min(at)));
        });
    }

    /// A fresh token of the same user: its identity counts from now on, and the old one's end no longer does.
    pub fn renew(&self, key: SessionKey, identity: Arc<Identity>) {
        let mut hub = self.hub.borrow_mut();
        let Some(session) = hub.sessions.get_mut(key).filter(|session| session.identity.is_same_user(&identity)) else {
            return;
        };
        session.identity = identity;
        session.brought_later = true;
        session.expires = None;
        let connection = session.connection;
        hub.connections.change_timers(connection, |timers| timers.expires = None);
    }
}
