//! Commands of the backend, carried out on the sessions of a shard.

use crate::auth::Identity;
use crate::auth::revocations::{Revocation, Revoked};
use crate::model::close::CloseReason;
use crate::model::command::{Action, Selector, SessionCommand};
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::model::names::EVERYBODY;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::Offset;
use crate::model::provenance::Provenance;
use crate::model::session_note::LeftBy;
use crate::model::transport::Protocol;
use crate::presence::Ticket;
use crate::presence::local::Reservation;
use crate::protocol::{plain_ws, socketio_encode};
use crate::session::connection::SessionKey;
use crate::shard::hub::Hub;
use std::collections::HashSet;

impl Hub {
    /// Carries out a command on this shard and moves its position. Answers the number of sessions, and the newest change of
    /// presence that it made.
    pub(super) fn carry_out(&mut self, command: &SessionCommand, offset: Offset, now: Millis) -> (usize, Ticket) {
        self.position.set(offset);
        self.noted = Ticket::default();
        if let Some(revocation) = Revocation::of_command(command) {
            return (self.end_revoked(&revocation, now), self.noted);
        }
        let namespace = command.namespace.as_deref().map(|name| self.context.namespaces.find(name));
        let chosen = match namespace {
            // Only other nodes have this namespace.
            Some(None) => Vec::new(),
            Some(Some(index)) => self.select(&command.selector, Some(index)),
            None => self.select(&command.selector, None),
        };
        for key in &chosen {
            match &command.action {
                Action::Join(rooms) => self.join_all(*key, rooms),
                Action::Leave(rooms) => self.leave_all(*key, rooms),
                Action::Disconnect | Action::Revoke { .. } => self.end(*key, CloseReason::Disconnected, now),
            }
        }
        (chosen.len(), self.noted)
    }

    /// Ends the sessions of these clients for good.
    pub(super) fn end_sessions_of(&mut self, reason: CloseReason, whose: impl Fn(&Identity) -> bool, now: Millis) {
        let is_one = |key: &SessionKey| self.sessions.get(*key).is_some_and(|session| whose(&session.identity));
        let chosen: Vec<_> = self.all_sessions().into_iter().filter(is_one).collect();
        chosen.into_iter().for_each(|key| self.end(key, reason, now));
    }

    fn all_sessions(&self) -> Vec<SessionKey> {
        self.context.namespaces.indexes().flat_map(|index| self.sessions.in_namespace(index)).collect()
    }

    /// Ends the sessions of revoked tokens; answers how many.
    fn end_revoked(&mut self, revocation: &Revocation, now: Millis) -> usize {
        let mut ended = 0;
        for key in self.sessions_of(&revocation.who) {
            if self.sessions.get(key).is_some_and(|session| revocation.covers(&session.identity)) {
                self.end(key, CloseReason::Revoked, now);
                ended += 1;
            }
        }
        ended
    }

    /// Sessions that a revocation may concern.
    fn sessions_of(&self, who: &Revoked) -> Vec<SessionKey> {
        match who {
            Revoked::User(name) => self.sessions.of_user(name),
            Revoked::Token(_) => self.all_sessions(),
        }
    }

    fn select(&self, selector: &Selector, namespace: Option<NamespaceIndex>) -> Vec<SessionKey> {
        let fits = |key: &SessionKey| {
            let session = self.sessions.get(*key);
            session.is_some_and(|session| namespace.is_none_or(|namespace| session.namespace == namespace))
        };
        match selector {
            // Only revocations choose by token.
            Selector::Token(_) => Vec::new(),
            Selector::User(user) => self.sessions.of_user(user).into_iter().filter(fits).collect(),
            Selector::Session(id) => {
                Id::parse(id).and_then(|id| self.sessions.by_id(id)).into_iter().filter(fits).collect()
            }
            Selector::In(room) => {
                let rooms = self.context.namespaces.indexes().filter_map(|index| self.rooms.find(index, room));
                rooms.flat_map(|room| self.rooms.members(room)).filter(fits).collect()
            }
            Selector::RoomsExcept { rooms, except } => {
                let Some(namespace) = namespace else { return Vec::new() };
                let members = |rooms: &[Room]| -> HashSet<SessionKey> {
                    rooms.iter().flat_map(|room| self.receivers(namespace, room)).collect()
                };
                let mut chosen = if rooms.is_empty() { members(&[EVERYBODY.into()]) } else { members(rooms) };
                for key in members(except) {
                    chosen.remove(&key);
                }
                chosen.into_iter().collect()
            }
        }
    }

    fn join_all(&mut self, key: SessionKey, rooms: &[Room]) {
        let Some(session) = self.sessions.get(key) else { return };
        let connection = session.connection;
        for room in rooms {
            // The backend may exceed `limits.rooms_per_session`, which guards against clients.
            if !self.join(key, room, Provenance::Command, &mut Reservation::default()) {
                // Whatever let it in before, now the backend has put it there.
                self.decide(key, room, Provenance::Command);
            } else if self.speaks_json(key) {
                let offset = self.room_point(key, room).to_string();
                self.push_json(connection, &plain_ws::joined(room, Some(&offset), None, None));
            }
        }
    }

    fn leave_all(&mut self, key: SessionKey, rooms: &[Room]) {
        let Some(session) = self.sessions.get(key) else { return };
        let connection = session.connection;
        for room in rooms {
            if self.leave(key, room, LeftBy::Command) && self.speaks_json(key) {
                self.push_json(connection, &plain_ws::left(room, None));
            }
        }
    }

    /// Takes a session out of a room that it may not be in any more, and says so where the client's protocol can; whether it
    /// was in it. It gets no more of the room's past either.
    pub(super) fn lose_room(&mut self, key: SessionKey, room: &Room, by: LeftBy) -> bool {
        let connection = self.sessions.get(key).map(|session| session.connection);
        if !self.leave(key, room, by) {
            return false;
        }
        self.forget_past(key, room);
        if let Some(connection) = connection.filter(|_| self.speaks_json(key)) {
            self.push_json(connection, &plain_ws::left(room, None));
        }
        true
    }

    fn speaks_json(&self, key: SessionKey) -> bool {
        let connection = self.sessions.get(key).and_then(|session| self.connections.get(session.connection));
        connection.is_some_and(|connection| connection.protocol == Protocol::PlainWs)
    }

    /// Ends a session for good. Its connection ends with the last one.
    fn end(&mut self, key: SessionKey, reason: CloseReason, now: Millis) {
        let Some(session) = self.sessions.get(key) else { return };
        let connection = session.connection;
        let namespace = self.context.namespaces.name(session.namespace).clone();
        let Some(protocol) = self.connections.get(connection).map(|connection| connection.protocol) else { return };
        if protocol == Protocol::SocketIo {
            self.push_packet(connection, socketio_encode::disconnect(&namespace));
        }
        self.dismiss(key, reason, now);
        if self.connections.get(connection).is_some_and(|connection| connection.sessions.is_empty()) {
            self.close(connection, reason, now);
        }
    }
}
