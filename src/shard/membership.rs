//! Sessions in rooms: what a join or leave changes besides the room itself.

use crate::model::millis::whole_millis;
use crate::model::names::Room;
use crate::model::provenance::Provenance;
use crate::model::session_note::{LeftBy, SessionNote};
use crate::presence::LeaveReason;
use crate::presence::local::Reservation;
use crate::session::changes::Change;
use crate::session::connection::SessionKey;
use crate::shard::hub::Hub;

/// What presence makes of it.
fn leave_reason(by: LeftBy) -> LeaveReason {
    match by {
        LeftBy::Client | LeftBy::Command | LeftBy::Token | LeftBy::Rules => LeaveReason::Left,
        LeftBy::Undone => LeaveReason::Undone,
    }
}

impl Hub {
    /// Puts a session into a room that it is in from its start; whether it was not in it. Presence may have counted it
    /// already, by what is `reserved`.
    pub(super) fn join_initial(
        &mut self,
        key: SessionKey,
        room: &Room,
        by: Provenance,
        reserved: &mut Reservation,
    ) -> bool {
        let Some(namespace) = self.sessions.get(key).map(|session| session.namespace) else { return false };
        let new = self.rooms.join(key, namespace, room, by);
        if new {
            self.note_line(key, room);
            self.note_entered(key, room, reserved);
        }
        new
    }

    /// Lets a session into a room; whether it was not in it.
    pub(super) fn join(&mut self, key: SessionKey, room: &Room, by: Provenance, reserved: &mut Reservation) -> bool {
        let new = self.join_initial(key, room, by, reserved);
        if new {
            if let Some(session) = self.sessions.get_mut(key).filter(|_| by.is_of_token()) {
                session.brought_later = true;
            }
            self.trace(key, room, "joined");
            self.note(key, SessionNote::Joined { room: room.clone(), by });
            self.note_change(key, room, true);
        }
        new
    }

    /// Takes a session out of a room; whether it was in it.
    pub(super) fn leave(&mut self, key: SessionKey, room: &Room, by: LeftBy) -> bool {
        let Some(namespace) = self.sessions.get(key).map(|session| session.namespace) else { return false };
        let Some(is_counted) = self.rooms.leave(key, namespace, room) else { return false };
        self.trace(key, room, "left");
        if is_counted {
            self.note_gone(key, room, leave_reason(by));
        }
        self.note(key, SessionNote::Left { room: room.clone(), by });
        self.note_change(key, room, false);
        true
    }

    /// Notes that something else keeps a session in a room that it is in.
    pub(super) fn decide(&mut self, key: SessionKey, room: &str, by: Provenance) {
        if let Some(session) = self.sessions.get(key) {
            self.rooms.decide(key, session.namespace, room, by);
            self.note_session(key);
        }
    }

    fn trace(&self, key: SessionKey, room: &Room, what: &'static str) {
        if tracing::enabled!(tracing::Level::DEBUG)
            && let Some(session) = self.sessions.get(key)
        {
            tracing::debug!(session = %session.id, %room, "{what}");
        }
    }

    /// A resume must know in which rooms the session was at which position. And its record is now out of date.
    fn note_change(&mut self, key: SessionKey, room: &Room, joined: bool) {
        let (after, keep) = (self.position.control().position, whole_millis(self.context.recovery.kept()));
        let change = Change { after, partition: self.in_partition(room), room: room.clone(), joined };
        self.note_replay_change(key, &change);
        if let Some(session) = self.sessions.get_mut(key).filter(|session| session.pid.is_some()) {
            session.changes.note(change, keep);
        }
        self.note_session(key);
    }

    /// A session that was added to the shard is in all of its first rooms.
    pub(super) fn began(&mut self, key: SessionKey) {
        if let Some(lines) = self.sessions.get_mut(key).and_then(|session| session.lines.as_mut()) {
            lines.began();
        }
    }

    /// A line brings events to the session from now on.
    fn note_line(&mut self, key: SessionKey, room: &Room) {
        let partition = self.in_partition(room);
        if let Some(lines) = self.sessions.get_mut(key).and_then(|session| session.lines.as_mut()) {
            lines.note(partition);
        }
    }
}
