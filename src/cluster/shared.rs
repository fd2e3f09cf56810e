//! What the parts of the cluster share.

use crate::cluster::jobs::Queue;
use crate::cluster::keys::Keys;
use crate::cluster::membership::Membership;
use crate::cluster::rpc::calls::Calls;
use crate::metrics::Metrics;
use crate::model::id::NodeId;
use crate::redis::connection::Connector;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// What this node shares with others through Redis. `pipeline` sends it, `subscription` receives.
pub(super) struct Shared {
    pub me: NodeId,
    pub connector: Connector,
    pub keys: Keys,
    /// `redis.timeout`.
    pub timeout: Duration,
    /// How long records outlive their node.
    pub record_lifetime: Duration,
    pub metrics: Arc<Metrics>,
    pub queue: Queue,
    pub membership: Mutex<Membership>,
    pub calls: Calls,
    /// Whether this process has sent a heartbeat before.
    pub has_joined: AtomicBool,
    /// Counts the times that all records had to be written again.
    pub rewrite_round: AtomicU64,
}
