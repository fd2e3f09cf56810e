//! How this node is doing: for `/health`, and for operators of the cluster.

use crate::cluster::{ConnectionCount, NodeStatus};
use crate::log::LogStatus;
use crate::metrics::Metrics;
use crate::model::clock::unix_ms;
use crate::model::millis::whole_millis;
use crate::model::namespaces::NamespaceIndex;
use crate::node::context::Node;
use crate::presence::StoreError;
use crate::shard::face::ShardCounts;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The node is not ready if the tail makes no progress for this long.
const TAIL_SILENCE_MS: u64 = 5_000;
/// The node is not ready if its presence could not be written for this long.
const PRESENCE_FAILING: Duration = Duration::from_secs(5);

/// Whether a node is to get clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It is.
    Ok,
    /// Something that it needs fails.
    Degraded,
    /// It sends its clients to other nodes.
    Draining,
}

impl Readiness {
    /// Its name on `/health`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
        }
    }
}

/// What `/health` says.
pub struct Health {
    /// Whether the node is ready.
    pub readiness: Readiness,
    /// `ready`, `connecting` or `disabled`.
    pub log: &'static str,
    /// What is wrong, if that is known.
    pub problem: Option<String>,
}

/// How long the slowest tail has not moved.
fn silent_ms(node: &Node) -> u64 {
    let oldest = node.tails_seen_ms.iter().map(|seen| seen.load(Ordering::Relaxed)).min();
    unix_ms().saturating_sub(oldest.unwrap_or(0))
}

/// Whether this node serves.
pub fn health(node: &Node) -> Health {
    let log = node.log.status();
    let tail_ok = log == LogStatus::Embedded || silent_ms(node) < TAIL_SILENCE_MS;
    let refused = node.cluster.as_ref().and_then(|cluster| cluster.problem());
    let unwritten = node.presence.failing().filter(|(span, _)| *span >= PRESENCE_FAILING);
    let readiness = match (node.is_draining(), log) {
        (true, _) => Readiness::Draining,
        (false, LogStatus::Connecting) => Readiness::Degraded,
        (false, _) if !tail_ok || unwritten.is_some() || refused.is_some() => Readiness::Degraded,
        (false, _) => Readiness::Ok,
    };
    let log = match log {
        LogStatus::Embedded => "disabled",
        LogStatus::Ready if tail_ok => "ready",
        LogStatus::Ready | LogStatus::Connecting => "connecting",
    };
    let unwritten = unwritten.map(|(_, StoreError(why))| format!("presence could not be written: {why}"));
    Health { readiness, log, problem: node.log.problem().or(refused).or(unwritten) }
}

/// How far the tail is behind the log: what its newest event showed, or the time for which it has not moved.
fn lag_ms(node: &Node) -> u64 {
    let silent = silent_ms(node);
    match node.log.status() {
        LogStatus::Embedded => 0,
        LogStatus::Ready if silent < TAIL_SILENCE_MS => (node.context.metrics.log.tail_lag.get() * 1e3) as u64,
        // It may have read nothing since the start.
        LogStatus::Ready | LogStatus::Connecting => silent.min(whole_millis(node.context.started.elapsed())),
    }
}

/// The name of this machine, as the kernel knows it.
fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim().to_owned()
    })
}

/// Live sessions by namespace.
fn namespaces(node: &Node, shards: &[ShardCounts]) -> BTreeMap<String, u64> {
    let namespaces = &node.context.namespaces;
    let count = |index: NamespaceIndex| shards.iter().map(|shard| shard.in_namespace(index)).sum();
    namespaces.indexes().map(|index| (namespaces.name(index).to_string(), count(index))).collect()
}

fn connections_by(metrics: &Metrics) -> Vec<ConnectionCount> {
    let count = |(transport, protocol, connections): (&str, &str, u64)| ConnectionCount {
        transport: transport.to_owned(),
        protocol: protocol.to_owned(),
        connections,
    };
    metrics.connections.open_by_kind().map(count).collect()
}

/// What operators see of this node.
pub async fn of(node: &Node) -> NodeStatus {
    let shards = node.on_every_shard(|local| local.shard.counts()).await;
    let open = node.connection_limiter.taken();
    let memory = &node.context.memory;
    let config = node.config.lock().clone();
    let [events_total, deliveries_total, drops_total] = node.context.metrics.events.totals();
    NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        status: health(node).readiness.label().to_owned(),
        hostname: hostname().to_owned(),
        pid: std::process::id(),
        uptime_seconds: node.context.started.elapsed().as_secs(),
        connections: open as u64,
        connections_by: connections_by(&node.context.metrics),
        namespaces: namespaces(node, &shards),
        sessions: shards.iter().map(|shard| shard.sessions as u64).sum(),
        rooms: shards.iter().map(|shard| shard.rooms as u64).sum(),
        lag_ms: lag_ms(node),
        outbox_bytes: shards.iter().map(|shard| shard.outbox_bytes as u64).sum(),
        memory_bytes: memory.used() as u64,
        memory_limit_bytes: memory.limit() as u64,
        events_total,
        deliveries_total,
        closes_total: node.context.metrics.connections.closes_total(),
        drops_total,
        config: config.fingerprint,
        needs_restart: config.needs_restart,
        drain: node.operator_drain.status(open),
    }
}
