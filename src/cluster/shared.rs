//! What the parts of the cluster share.

use crate::budget::memory::{Holding, MemoryBudget};
use crate::cluster::id_keys::IdKeys;
use crate::cluster::jobs::{Queue, Sent};
use crate::cluster::keys::Keys;
use crate::cluster::membership::Membership;
use crate::cluster::rpc::calls::Calls;
use crate::cluster::rpc::message::Body;
use crate::cluster::rpc::pieces::{Lanes, WHOLE};
use crate::metrics::Metrics;
use crate::model::id::NodeId;
use crate::redis::connection::Connector;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What this node shares with others through Redis. `pipeline` sends it, `subscription` receives.
pub(super) struct Shared {
    pub me: NodeId,
    pub connector: Connector,
    pub keys: Keys,
    /// `redis.timeout`.
    pub timeout: Duration,
    /// How long records outlive their node.
    pub record_lifetime: Duration,
    /// `redis.node_key_lifetime`.
    pub key_lifetime: Duration,
    /// What this node understands, for the others.
    pub features: String,
    pub metrics: Arc<Metrics>,
    pub queue: Queue,
    pub membership: Mutex<Membership>,
    /// Since when Redis refuses this node's heartbeats, and why.
    pub refused_heartbeats: Mutex<Option<(Instant, String)>>,
    pub calls: Calls,
    /// `limits.memory`, and what is held of it.
    pub memory: Arc<MemoryBudget>,
    /// Large messages on their way. Locked before the queue.
    pub lanes: Mutex<Lanes>,
    pub id_keys: RwLock<IdKeys>,
    /// Whether this process has sent a heartbeat before.
    pub has_joined: AtomicBool,
    /// Counts the times that all records had to be written again.
    pub rewrite_round: AtomicU64,
}

impl Shared {
    /// Queues a message; `None` before the signing keys are known.
    pub(super) fn send(&self, to: NodeId, body: Body) -> Option<oneshot::Receiver<Sent>> {
        let keys = self.calls.keys()?;
        let (reply, sent) = oneshot::channel();
        // Nodes of the previous release read no pieces.
        if body.size() <= WHOLE || self.membership.lock().is_legacy(to) {
            let channel = self.keys.channel_of(to);
            self.queue.push_message(channel, self.timeout, reply, || self.calls.sign(&keys, to, body));
            return Some(sent);
        }
        let text = serde_json::to_string(&body).expect("names, numbers and texts are always JSON");
        self.with_lanes(|lanes| lanes.push(to, self.calls.next(), text, reply));
        self.send_pieces(to);
        Some(sent)
    }

    /// Changes what waits in pieces.
    pub(super) fn with_lanes(&self, change: impl FnOnce(&mut Lanes)) {
        let mut lanes = self.lanes.lock();
        let before = lanes.waiting_bytes();
        change(&mut lanes);
        self.memory.adjust(Holding::Records, before, lanes.waiting_bytes());
    }

    /// Queues the pieces that may be on their way to a node now.
    pub(super) fn send_pieces(&self, to: NodeId) {
        let Some(keys) = self.calls.keys() else { return };
        // The lanes are locked until all are queued: they must keep their order.
        self.with_lanes(|lanes| {
            while let Some(piece) = lanes.next(to, Instant::now()) {
                let reply = piece.reply.unwrap_or_else(|| oneshot::channel().0);
                let channel = self.keys.channel_of(to);
                self.queue.push_message(channel, self.timeout, reply, || self.calls.sign(&keys, to, piece.body));
            }
        });
    }
}
