//! What a shard remembers of sessions that have ended and of clients that were not let in, to explain it later.

use crate::explain::history::{End, Ended, TurnedAway};
use crate::explain::stamp::Stamp;
use crate::model::clock::unix_ms;
use crate::model::close::CloseReason;
use crate::model::millis::whole_millis;
use crate::session::connection::{ConnectionKey, SessionKey};
use crate::shard::face::Shard;
use crate::shard::hub;
use crate::shard::hub::Hub;

impl Shard {
    /// Remembers that a client was not let in. `is_claimed`: its user is only what its refused token says.
    pub fn note_turned_away(&self, user: &str, code: &'static str, is_claimed: bool) {
        let mut hub = self.hub.borrow_mut();
        let at = hub.stamp();
        hub.history.turned_away(user, at, TurnedAway { code, is_claimed });
    }
}

impl Hub {
    /// Now, by the clock and in the log.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp::new(unix_ms(), &self.position)
    }

    /// Remembers a session that is about to end.
    pub(super) fn remember_end(&mut self, key: SessionKey, reason: CloseReason) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(user) = session.identity.user.as_ref().filter(|_| self.history.is_on()) else { return };
        let user: Box<str> = user.as_str().into();
        let (at, connection_key) = (self.stamp(), session.connection);
        let connection = self.connections.get(connection_key);
        let resumable = session.pid.is_some() && hub::recoverable(reason) && self.context.recovery_on();
        let window = whole_millis(self.context.recovery.window);
        let lines = self.context.window.partitions().lines().len();
        // A connection that goes on writes what waits, also for a session that has left it.
        let closes = connection.filter(|connection| {
            let is_last = connection.sessions.len() == 1;
            connection.closing.is_some()
                || is_last && matches!(reason, CloseReason::Disconnected | CloseReason::Revoked)
        });
        let ended = Ended {
            id: session.id,
            namespace: session.namespace,
            protocol: connection.map(|connection| connection.protocol),
            transport: connection.map(|connection| connection.link.transport()),
            address: connection.map(|connection| connection.permit.peer()),
            since_ms: session.since_ms,
            began: session.start(),
            end: End {
                resumable_until_ms: resumable.then(|| at.unix_ms + window),
                at,
                reason,
                behind: self.cursor(key).map(|cursor| Box::new(cursor.place(&self.position))),
                unsent_from: closes.map(|connection| connection.outbox.first_events(0, lines)).unwrap_or_default(),
                lost_from: Vec::new(),
            },
            rooms: self.rooms.memberships(key).map(|(room, by)| (room.clone(), by)).collect(),
            changes: session.pid.map(|_| session.changes.clone()),
            brought_later: session.brought_later,
            skipped: self.history.skipped_of(key),
        };
        self.history.ended(&user, ended, connection_key);
    }

    /// A closing connection's outbox is about to be dropped, but for its first frames.
    pub(super) fn note_lost(&mut self, key: ConnectionKey, kept: usize) {
        if !self.history.is_closing(key) {
            return;
        }
        let connection = self.connections.get(key);
        let lines = self.context.window.partitions().lines().len();
        if let Some(lost) = connection.map(|connection| connection.outbox.first_events(kept, lines)) {
            self.history.lost(key, &lost);
        }
    }
}
