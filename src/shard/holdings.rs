//! What the connections of a shard hold, for the node's memory budget. The sums are kept where a connection changes what it
//! holds; which connection holds how much is looked up only when some must be closed.

use crate::budget::Holding;
use crate::budget::relief::Holder;
use crate::protocol::socketio::Decoder;
use crate::session::Session;
use crate::session::connection::{Connection, ConnectionKey};
use crate::session::outbox;
use crate::session::pending_packets::PendingPackets;
use crate::shard::face::Shard;
use crate::shard::hub::Hub;
use slotmap::Key as _;

/// Bytes by which the outboxes of a shard may differ from what the node's budget knows.
const OUTBOX_STEP: usize = 64 << 10;

impl Hub {
    /// Runs `act` with a connection's decoder, and charges the attachments that it keeps for the rest of their packet.
    pub(super) fn with_decoder<T>(&mut self, key: ConnectionKey, act: impl FnOnce(&mut Decoder) -> T) -> Option<T> {
        let unfinished = &mut self.connections.get_mut(key)?.unfinished;
        let before = unfinished.attached();
        let result = unfinished.with_decoder(act);
        let after = unfinished.attached();
        self.context.memory.adjust(Holding::Unfinished, before, after);
        Some(result)
    }

    /// Notes how many bytes of an unfinished WebSocket message a connection's reader keeps, and whether an earlier message
    /// has ended since.
    pub(super) fn note_fragments(&mut self, key: ConnectionKey, bytes: usize, ended: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let before = connection.unfinished.note_fragments(bytes, ended);
        self.context.memory.adjust(Holding::Unfinished, before, bytes);
    }

    /// A connection is closing or gone: what its client sent and did not finish is dropped.
    pub(super) fn drop_unfinished(&mut self, key: ConnectionKey) {
        self.note_fragments(key, 0, true);
        self.with_decoder(key, |decoder| *decoder = Decoder::new());
    }

    /// Releases what waited on a connection.
    pub(super) fn release_pending(&self, pending: &PendingPackets) {
        self.context.memory.release(Holding::Pending, pending.bytes());
    }

    /// Takes over what the sessions hold that wait to be resumed.
    pub(super) fn note_parked(&mut self) {
        let bytes = self.parked.bytes();
        let before = std::mem::replace(&mut self.parked_bytes, bytes);
        self.context.memory.adjust(Holding::Parked, before, bytes);
    }

    /// Takes over what outboxes hold, once it has changed by so much that it matters: the counter is shared by all shards.
    pub(super) fn note_outboxes(&mut self) {
        let bytes = outbox::totals().plus(self.outbox_totals).held();
        if bytes.abs_diff(self.outbox_bytes) >= OUTBOX_STEP {
            let before = std::mem::replace(&mut self.outbox_bytes, bytes);
            self.context.memory.adjust(Holding::Outbox, before, bytes);
        }
    }

    /// A session's own memory, as long as it lives.
    pub(super) fn charge_auth(&self, session: &Session, lives: bool) {
        let Some(auth) = &session.auth else { return };
        match lives {
            true => self.context.memory.charge(Holding::Handshake, auth.len()),
            false => self.context.memory.release(Holding::Handshake, auth.len()),
        }
    }

    fn held_by(&self, connection: &Connection) -> usize {
        let sessions = connection.sessions.iter().filter_map(|key| self.sessions.get(*key));
        let auth: usize = sessions.map(|session| session.auth.as_ref().map_or(0, |auth| auth.len())).sum();
        let pending = connection.pending.as_ref();
        let pending = pending.map_or(0, |pending| pending.bytes() + pending.asking.unwrap_or_default());
        connection.outbox.held() + connection.unfinished.held() + pending + auth
    }
}

impl Shard {
    /// The connections that hold at least `min` bytes and are not closing.
    pub fn holders(&self, min: usize) -> Vec<Holder<ConnectionKey>> {
        let hub = self.hub.borrow();
        let open = hub.connections.iter().filter(|(_, connection)| connection.closing.is_none());
        let holder = |(key, connection): (ConnectionKey, &Connection)| {
            let own = (u64::from(self.index) << 56) ^ key.data().as_ffi();
            let owner = connection.account.as_ref().map_or(own, |permit| permit.account().id());
            Holder { owner, key, bytes: hub.held_by(connection) }
        };
        open.map(holder).filter(|holder| holder.bytes >= min).collect()
    }

    /// Drops the oldest of the sessions that wait to be resumed, until so many bytes are free.
    pub fn drop_parked(&self, bytes: usize) {
        let mut hub = self.hub.borrow_mut();
        hub.parked.drop_bytes(bytes);
        hub.forget_dropped();
    }

    /// See [`Hub::note_fragments`].
    pub fn note_fragments(&self, key: ConnectionKey, bytes: usize, ended: bool) {
        self.hub.borrow_mut().note_fragments(key, bytes, ended);
    }
}
