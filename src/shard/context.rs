//! What a shard knows of the node that it is part of.

use crate::budget::{Accounts, MemoryBudget};
use crate::cluster::Cluster;
use crate::explain::config::ExplainConfig;
use crate::feed::Feed;
use crate::log::config::RecoveryConfig;
use crate::log::shared_window::SharedWindow;
use crate::metrics::Metrics;
use crate::model::command::SessionCommand;
use crate::model::draft::DraftLimits;
use crate::model::id::{Id, NodeId};
use crate::model::millis::Millis;
use crate::model::namespaces::Namespaces;
use crate::presence::local::Presence;
use crate::protocol::socketio::max_attached;
use crate::refusals::Refusals;
use crate::session::bucket::Rate;
use crate::session::config::SocketIoConfig;
use crate::shard::settings::{LiveSettings, Settings};
use crate::telemetry::Telemetry;
use arc_swap::Guard;
use std::sync::Arc;
use std::time::Instant;

/// The settings and parts that all shards of a node share.
pub struct ShardContext {
    /// The node's name; ids that a shard makes carry it.
    pub node_id: NodeId,
    /// `[socketio]`.
    pub socketio: SocketIoConfig,
    /// `[recovery]`.
    pub recovery: RecoveryConfig,
    /// `[explain]`.
    pub explain: ExplainConfig,
    /// The recent log, from which clients get what they missed.
    pub window: Arc<SharedWindow>,
    /// Bounds of drafts.
    pub draft_limits: DraftLimits,
    /// The namespaces that clients can be in.
    pub namespaces: Namespaces,
    /// Rules and limits, which may change.
    pub live: LiveSettings,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Counts, logs and tells what is refused.
    pub refusals: Refusals,
    /// Spans, for a collector.
    pub telemetry: Arc<Telemetry>,
    /// What happens to clients, for whoever follows it.
    pub feed: Arc<Feed>,
    /// How many shards the node has.
    pub shards: usize,
    /// `limits.memory`, and what is held of it.
    pub memory: Arc<MemoryBudget>,
    /// What users, addresses and tenants use.
    pub accounts: Accounts,
    /// When the clock of all shards began.
    pub started: Instant,
    /// Which users are online, and who is in which room.
    pub presence: Arc<Presence>,
    /// Where records of sessions are written for other nodes; `None` with the embedded log.
    pub cluster: Option<Arc<Cluster>>,
}

impl ShardContext {
    /// Rules and limits, as they are now.
    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.live.get()
    }

    /// What one connection may send.
    pub fn rate(&self) -> Rate {
        self.settings().limits.rate(max_attached(self.socketio.max_payload))
    }

    /// The clock of all shards.
    pub fn now(&self) -> Millis {
        Millis::new(1).after(self.started.elapsed())
    }

    /// Milliseconds on the same clock, for the ages of events in the window.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether Socket.IO clients get a pid and offsets.
    pub fn recovery_on(&self) -> bool {
        !self.recovery.window.is_zero()
    }
}

/// What a shard reports to its node. Called on the shard's thread, so it must not block.
pub trait ShardObserver: Send + Sync + 'static {
    /// The shard has carried out a command on so many of its sessions.
    fn command_applied(&self, command: &SessionCommand, sessions: usize);

    /// A probe of `/socket/ping` has come to the shard.
    fn probe_seen(&self, id: Id);

    /// The shard has written all of its records again, as [`crate::cluster::RpcHandler::rewrite`] asked in this round.
    fn records_rewritten(&self, round: u64);
}
