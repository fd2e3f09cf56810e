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
pub mod keys;
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
use crate::presence::Ticket;
use changes::Changes;
use connection::ConnectionKey;
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
    /// The log's position when it began: what it may resume from before it received anything.
    pub start: Offset,
    /// When its token ends, on the shard's clock.
    pub expires: Option<Millis>,
    /// The last stored event that was put into its outbox.
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
}
