//! What all shards of this process share.

use crate::auth::Authenticator;
use crate::backend::Backend;
use crate::cluster::{Cluster, OneWay};
use crate::log::EventLog;
use crate::log::config::RecoveryConfig;
use crate::log::window::Window;
use crate::metrics::Metrics;
use crate::model::command::SessionCommand;
use crate::model::draft::DraftLimits;
use crate::model::id::NodeId;
use crate::model::names::{MAIN_NAMESPACE, Namespace};
use crate::node::command_tracker::CommandTracker;
use crate::node::probe::Probes;
use crate::presence::local::Presence;
use crate::rules::Rules;
use crate::session::config::{LimitsConfig, SocketIoConfig};
use crate::session::connection_limiter::ConnectionLimiter;
use crate::shard::handle::ShardHandle;
use crate::shard::runner::Shard;
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// One roomcast process.
pub struct Node {
    /// Its name among the nodes.
    pub id: NodeId,
    /// `[socketio]`.
    pub socketio: SocketIoConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[recovery]`.
    pub recovery: RecoveryConfig,
    /// Bounds of drafts.
    pub draft_limits: DraftLimits,
    /// The namespaces that clients can be in; sessions hold an index into it.
    pub namespaces: Vec<Namespace>,
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// Tokens to identities.
    pub auth: Arc<Authenticator>,
    /// `[[rooms]]` and `[[on]]`.
    pub rules: Rules,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The recent log.
    pub window: RwLock<Window>,
    /// Counts client connections.
    pub places: Arc<ConnectionLimiter>,
    /// Who is asked and told; `None` without `[backend]`.
    pub backend: Option<Arc<Backend>>,
    /// The other nodes; `None` with the embedded log.
    pub cluster: Option<Arc<Cluster>>,
    /// Who is there.
    pub presence: Arc<Presence>,
    /// Orders on their way.
    pub orders: CommandTracker,
    /// Probes on their way.
    pub probes: Probes,
    /// Set at the start of the graceful stop; readiness follows it.
    pub draining: AtomicBool,
    /// Unix milliseconds at which the tail last proved progress.
    pub tail_seen_ms: AtomicU64,
    /// The round of writing all records anew, and the shards that are not done with it.
    rewriting: Mutex<(u64, usize)>,
    shards: OnceLock<Vec<ShardHandle>>,
}

/// The settings and parts a node is made of.
pub struct Parts {
    /// Its name among the nodes.
    pub id: NodeId,
    /// Who is asked and told.
    pub backend: Option<Arc<Backend>>,
    /// The other nodes.
    pub cluster: Option<Arc<Cluster>>,
    /// Who is there.
    pub presence: Arc<Presence>,
    /// `[socketio]`.
    pub socketio: SocketIoConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[recovery]`.
    pub recovery: RecoveryConfig,
    /// Bounds of drafts.
    pub draft_limits: DraftLimits,
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// Tokens to identities.
    pub auth: Arc<Authenticator>,
    /// `[[rooms]]` and `[[on]]`.
    pub rules: Rules,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Node {
    /// A node whose shards do not run yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            id: parts.id,
            backend: parts.backend,
            cluster: parts.cluster,
            presence: parts.presence,
            namespaces: namespaces(&parts.socketio.namespaces),
            window: RwLock::new(Window::new(parts.recovery.kept(), parts.recovery.window_bytes)),
            places: ConnectionLimiter::new(parts.limits.connections, parts.limits.connections_per_ip),
            socketio: parts.socketio,
            limits: parts.limits,
            recovery: parts.recovery,
            draft_limits: parts.draft_limits,
            log: parts.log,
            auth: parts.auth,
            rules: parts.rules,
            metrics: parts.metrics,
            orders: CommandTracker::default(),
            probes: Probes::default(),
            draining: AtomicBool::new(false),
            tail_seen_ms: AtomicU64::new(0),
            rewriting: Mutex::default(),
            shards: OnceLock::new(),
        })
    }

    /// Whether Socket.IO clients get a pid and offsets.
    pub fn recovery_on(&self) -> bool {
        !self.recovery.window.is_zero()
    }

    /// The index of a namespace that Socket.IO clients may join.
    pub fn joinable(&self, name: &str) -> Option<u16> {
        self.namespace(name).filter(|index| usize::from(*index) < self.socketio.namespaces.len())
    }

    /// The index of a namespace that anybody can be in.
    pub fn namespace(&self, name: &str) -> Option<u16> {
        self.namespaces.iter().position(|known| &**known == name).and_then(|index| u16::try_from(index).ok())
    }

    /// The other nodes that are up.
    pub async fn peers(&self) -> Vec<NodeId> {
        match &self.cluster {
            Some(cluster) => cluster.peers_now().await,
            None => Vec::new(),
        }
    }

    /// A shard has carried out an order.
    pub fn order_done(&self, order: &SessionCommand, met: usize) {
        let Some(sessions) = self.orders.shard_did(order.id, met) else { return };
        match &self.cluster {
            _ if order.from == self.id => self.orders.node_did(order.id, self.id, sessions),
            Some(cluster) => cluster.tell(order.from, OneWay::Applied(order.id, sessions)),
            None => {}
        }
    }

    /// All records of this node are to be written anew.
    pub fn rewrite_records(&self, round: u64) {
        *self.rewriting() = (round, self.shards().len());
        for shard in self.shards() {
            shard.run(move |shard| {
                let begun = shard.hub.borrow_mut().rewrite(round);
                if !begun {
                    shard.node.records_rewritten(round);
                }
            });
        }
    }

    /// A shard has given all of its records anew.
    pub fn records_rewritten(&self, round: u64) {
        let mut rewriting = self.rewriting();
        if rewriting.0 != round {
            return;
        }
        rewriting.1 = rewriting.1.saturating_sub(1);
        if let (0, Some(cluster)) = (rewriting.1, &self.cluster) {
            cluster.rewritten(round);
        }
    }

    fn rewriting(&self) -> MutexGuard<'_, (u64, usize)> {
        self.rewriting.lock()
    }

    /// Whether the graceful stop has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Names the shards, once, before anything is accepted.
    pub fn set_shards(&self, shards: Vec<ShardHandle>) {
        // A second call would be a bug of the composition root and changes nothing.
        let _ = self.shards.set(shards);
    }

    /// All shards.
    pub fn shards(&self) -> &[ShardHandle] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    /// Runs `ask` on every shard and returns the answers of those that still run.
    pub async fn on_every_shard<T: Send + 'static>(
        &self,
        ask: impl Fn(&Rc<Shard>) -> T + Send + Clone + 'static,
    ) -> Vec<T> {
        let asked: Vec<_> = self.shards().iter().map(|shard| shard.ask(ask.clone())).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.extend(answer.await);
        }
        answers
    }
}

/// Those that Socket.IO clients may join, then the main one where that is not among them: `/ws` and SSE live there.
fn namespaces(joinable: &[String]) -> Vec<Namespace> {
    let main = (!joinable.iter().any(|name| name == MAIN_NAMESPACE)).then_some(MAIN_NAMESPACE);
    joinable.iter().map(String::as_str).chain(main).map(Namespace::from).collect()
}
