//! Giving sessions away: one to the client that came back for it, or a polling connection with all of its sessions to the
//! node that its WebSocket came to.

use crate::cluster::Owner;
use crate::model::close::CloseReason;
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::model::place::Place;
use crate::session::Session;
use crate::session::connection::{ConnectionKey, ConnectionUse, Link};
use crate::session::parked::Parked;
use crate::shard::flush::take_all;
use crate::shard::hub::Hub;

/// A connection on its way to another node.
pub struct Released {
    /// The packets that waited for the client, as one polling payload; may be empty.
    pub payload: String,
    /// Its sessions have, or have among these packets, every event up to here.
    pub position: Place,
    /// The handshake's token.
    pub token: Option<Box<str>>,
    /// Its sessions, and what a resume needs of each.
    pub sessions: Vec<(Box<Session>, Parked)>,
}

impl Hub {
    /// Whether a connection can be given away now: it polls, and none of its packets is being worked on.
    pub(super) fn is_idle(&self, key: ConnectionKey) -> bool {
        self.connections.get(key).is_some_and(|connection| {
            matches!(connection.link, Link::Polling(_))
                && connection.closing.is_none()
                // What a page of the Admin UI knows is not handed over.
                && connection.use_of() != ConnectionUse::AdminUi
                && connection.pending.is_none()
                && connection.unfinished.is_decoder_idle()
                // One position is handed over, which several sessions may not be at.
                && (!connection.has_replays() || connection.sessions.len() == 1)
        })
    }

    /// Takes a connection and its sessions out of the tables. No `disconnect` rule runs: they continue on another node.
    pub(super) fn release(&mut self, sid: Id) -> Option<Released> {
        let key = self.connections.by_sid(sid).filter(|key| self.is_idle(*key))?;
        let with_offset = self.context.recovery_on();
        let first = self.connections.get(key)?.sessions.first().copied();
        let position = first.map_or_else(|| self.position.clone(), |session| self.resume_point(session));
        let connection = self.connections.get_mut(key)?;
        let payload = take_all(connection, with_offset);
        let token = connection.handshake.take().and_then(|handshake| handshake.token);
        let keys = connection.sessions.to_vec();
        let mut sessions = Vec::with_capacity(keys.len());
        for session in keys {
            let Some(form) = self.sessions.get(session).map(|live| self.park_form(session, live)) else { continue };
            sessions.extend(self.take_session(session).map(|session| (session, form)));
        }
        self.context.metrics.connections.closed(CloseReason::Moved);
        self.forget(key);
        Some(Released { payload, position, token, sessions })
    }

    /// See [`crate::shard::face::Shard::take_session`].
    pub(super) fn take_for_resume(&mut self, pid: Id, owner: &Owner, taker: Taker, now: Millis) -> Option<Taken> {
        let live = self.sessions.by_pid(pid).and_then(|key| self.sessions.get(key));
        if let Some(session) = live.filter(|session| self.owner(session.namespace, &session.identity) == *owner) {
            let connection = session.connection;
            self.close(connection, CloseReason::Replaced, now);
        }
        let is_theirs = |parked: &Parked| self.owner(parked.namespace, &parked.identity) == *owner;
        if !self.parked.get(pid).is_some_and(is_theirs) {
            // A shard that never had the session must not remove the record that another one writes.
            return None;
        }
        let parked = self.parked.take(pid, now)?;
        self.note_parked();
        let stale = self.persister.as_ref().is_some_and(|persister| persister.is_stale(pid));
        let parts = match (taker, &mut self.persister) {
            // The other shard writes the node's record from now on, and removes it. A removal from here would come later.
            (Taker::OtherShard, Some(persister)) => persister.forget(pid),
            _ => {
                self.note_record(pid);
                0
            }
        };
        Some(Taken { parked, stale, parts })
    }
}

/// Where a session continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// On the shard that has it, or on another node.
    OwnShardOrNode,
    /// On another shard of this node, which becomes responsible for the record.
    OtherShard,
}

/// A session that a client has come back for.
pub struct Taken {
    /// What a resume needs.
    pub parked: Parked,
    /// Another node may have resumed it since.
    pub stale: bool,
    /// How many parts of its record the taking shard is responsible for.
    pub parts: u8,
}
