//! What a client is on this node: a connection with an outbox and timers, and one session per joined namespace.

pub mod accepted;
pub mod backpressure;
pub mod bucket;
pub mod caller;
pub mod changes;
pub mod config;
pub mod connection;
pub mod connection_limiter;
pub mod cut;
pub mod forwarded;
pub mod frame;
pub mod keys;
pub mod lines;
pub mod outbox;
pub mod pace;
pub mod parked;
pub mod parked_sessions;
pub mod pending_packets;
pub mod polling;
pub mod record;
pub mod record_parts;
pub mod recovery;
pub mod replay;
pub mod session_list;
pub mod timers;
pub mod unfinished;
pub mod unproven;

use crate::auth::identity::Identity;
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use crate::model::place::{LineSet, Place};
use crate::presence::Ticket;
use changes::Changes;
use connection::ConnectionKey;
use lines::SessionLines;
use std::sync::Arc;

/// A client in one namespace. Its id is what the frontend sees as `socket.id`.
pub struct Session {
    /// The Socket.IO sid, or the `/ws` session.
    pub id: Id,
    /// The secret with which a Socket.IO client resumes; `None` if recovery is off or the protocol has none.
    pub pid: Option<Id>,
    /// The connection it lives on.
    pub connection: ConnectionKey,
    /// Index of its namespace in `socketio.namespaces`.
    pub namespace: NamespaceIndex,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The handshake auth without the token, raw JSON; `None` for an empty object.
    pub auth: Option<Box<str>>,
    /// The control line's position when it began: what it may resume from before it received anything.
    pub start: Offset,
    /// The other lines of the log, where it has partitions.
    pub lines: Option<Box<SessionLines>>,
    /// When its token ends, on the shard's clock.
    pub expires: Option<Millis>,
    /// The last stored event that was put into its outbox, or [`parked::UNPROVABLE`].
    pub last: Position,
    /// How often it was resumed on another connection. Of two records, the one with more moves is right.
    pub moves: u32,
    /// Whether its token may have brought rooms after it began.
    pub brought_later: bool,
    /// Which rooms it joined and left since it began.
    pub changes: Changes,
    /// Its newest change of presence that is announced: what it sends comes behind that.
    pub announced: Ticket,
    /// The number of the last delivery to it, so that an event to several of its rooms arrives once.
    pub mark: u64,
    /// When it began on this node, in Unix milliseconds.
    pub since_ms: u64,
}

#[cfg(test)]
#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 160, "the allocator's next size has 192 bytes, and each idle client has a session");
}

impl Session {
    /// The text of its user's claim.
    pub fn user(&self) -> Option<&str> {
        self.identity.user.as_ref().map(|user| user.as_str())
    }

    /// It begins here.
    pub fn begin_at(&mut self, here: &Place) {
        self.start = here.control();
        self.lines = SessionLines::begin(here);
    }

    /// Where it began.
    pub fn start(&self) -> Place {
        self.lines.as_ref().map_or_else(|| self.start.into(), |lines| lines.start.clone())
    }

    /// The partitions that a place of its client names.
    pub fn line_set(&self) -> LineSet {
        self.lines.as_ref().map_or_else(LineSet::default, |lines| lines.set)
    }

    /// A stored event was put into its outbox.
    pub fn note_last(&mut self, offset: Offset) {
        self.last = offset.position;
        if let Some(lines) = &mut self.lines {
            lines.last = offset.line;
        }
    }

    /// The same, of an event that it had missed. It may be one that its client has by another connection.
    pub fn note_replayed(&mut self, offset: Offset) {
        if self.last != parked::UNPROVABLE {
            self.note_last(offset);
        }
    }

    /// The line of the last stored event.
    pub fn last_line(&self) -> Line {
        self.lines.as_ref().map_or(Line::CONTROL, |lines| lines.last)
    }
}
