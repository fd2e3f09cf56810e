//! One roomcast process, and its shards as seen from their threads.

use crate::auth::Authenticator;
use crate::backend::Backend;
use crate::cluster::{Cluster, OneWay, RpcResponse};
use crate::feed::config::TraceConfig;
use crate::log::EventLog;
use crate::log::backfill::budget::PassBudget;
use crate::log::shared_window::SharedWindow;
use crate::model::command::SessionCommand;
use crate::model::id::{Id, NodeId};
use crate::node::admin_ui::config::Settings;
use crate::node::admin_ui::state::AdminUi;
use crate::node::backend_lanes::BackendLanes;
use crate::node::backfill_queue::BackfillQueue;
use crate::node::command_tracker::CommandTracker;
use crate::node::operator_drain::OperatorDrain;
use crate::node::probes::Probes;
use crate::node::resumes::Resumes;
use crate::node::revocations_read::RevocationsRead;
use crate::node::traces::Traces;
use crate::presence::local::Presence;
use crate::session::connection::ConnectionKey;
use crate::session::connection_limiter::{Bounds, ConnectionLimiter};
use crate::session::forwarded::ForwardedSids;
use crate::session::unproven::Ticket;
use crate::shard::context::{ShardContext, ShardObserver};
use crate::shard::face::Shard;
use crate::shard::handle::ShardHandle;
use parking_lot::{Mutex, MutexGuard};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// One roomcast process.
pub struct Node {
    /// Its name among the nodes.
    pub id: NodeId,
    /// What it shares with its shards: settings, rules, namespaces, metrics.
    pub context: Arc<ShardContext>,
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// Checks tokens.
    pub auth: Arc<Authenticator>,
    /// The recent log.
    pub window: Arc<SharedWindow>,
    /// Reads the log again for clients that come back.
    pub backfill: Box<[BackfillQueue]>,
    /// What all passes over the log may hold together.
    pub pass_budget: Arc<PassBudget>,
    /// Counts client connections.
    pub connection_limiter: Arc<ConnectionLimiter>,
    /// The application's backend; `None` without `[backend]`.
    pub backend: Option<Arc<Backend>>,
    /// Socket.IO's Admin UI, where it is switched on.
    pub admin_ui: Option<Arc<AdminUi>>,
    /// The other nodes; `None` with the embedded log.
    pub cluster: Option<Arc<Cluster>>,
    /// Which users are online, and who is in which room.
    pub presence: Arc<Presence>,
    /// Commands that are being carried out.
    pub command_tracker: CommandTracker,
    /// Whether this node knows what is revoked.
    pub revocations_read: RevocationsRead,
    /// Polling sessions of other nodes whose requests arrive here.
    pub forwarded: Mutex<ForwardedSids>,
    /// Sessions that are being resumed.
    pub resumes: Resumes,
    /// Probes on their way.
    pub probes: Probes,
    /// Set at the start of the graceful stop, or of a drain that an operator asked for; readiness follows it.
    pub draining: AtomicBool,
    /// The drain that an operator asked for.
    pub operator_drain: OperatorDrain,
    /// Who follows live what happens.
    pub traces: Traces,
    /// When the tail of each line of the log last made progress, in Unix milliseconds.
    pub tails_seen_ms: Box<[AtomicU64]>,
    /// What configuration is in force.
    pub config: Mutex<ConfigStatus>,
    /// The round of writing all records again, and how many shards are not done.
    rewriting: Mutex<(u64, usize)>,
    shards: OnceLock<Vec<ShardHandle<LocalNode>>>,
}

/// What configuration a node has in force, for operators.
#[derive(Clone, Debug, Default)]
pub struct ConfigStatus {
    /// Differs where a shared key does.
    pub fingerprint: String,
    /// Keys that were changed and need a restart.
    pub needs_restart: Vec<String>,
}

/// A node on the thread of one of its shards: what the work of that shard's clients gets.
pub struct LocalNode {
    /// The whole process.
    pub node: Arc<Node>,
    /// This thread's shard.
    pub shard: Rc<Shard>,
    /// What all shards share.
    pub context: Arc<ShardContext>,
    /// What waits for the backend.
    pub backend_lanes: BackendLanes,
}

impl LocalNode {
    /// A node with one of its shards.
    pub fn new(node: Arc<Node>, shard: Rc<Shard>) -> Rc<Self> {
        let context = node.context.clone();
        Rc::new(Self { node, shard, context, backend_lanes: BackendLanes::default() })
    }

    /// Counts a connection of this shard among the unproven until its client's token is accepted: it is closed where newer
    /// ones need its place. The answer is its ticket; `None` where it is gone.
    pub fn await_proof(&self, key: ConnectionKey) -> Option<Ticket> {
        let shard = self.node.shards().get(usize::from(self.shard.index))?.clone();
        self.shard.await_proof(key, move || shard.run(move |local: &Rc<Self>| local.shard.evict(key)))
    }
}

/// The parts a node is made of.
pub struct Parts {
    /// What it shares with its shards.
    pub context: Arc<ShardContext>,
    /// The application's backend.
    pub backend: Option<Arc<Backend>>,
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// How many lines it has.
    pub lines: usize,
    /// Checks tokens.
    pub auth: Arc<Authenticator>,
    /// How many sockets clients may have.
    pub sockets: usize,
    /// Whether addresses are those of clients, also behind a proxy.
    pub knows_addresses: bool,
    /// `[trace]`.
    pub trace: TraceConfig,
    /// Socket.IO's Admin UI.
    pub admin_ui: Settings,
}

impl Node {
    /// A node whose shards do not run yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { context, backend, log, lines, auth, sockets, knows_addresses, admin_ui, trace } = parts;
        let settings = context.settings();
        let limits = &settings.limits;
        let has_cluster = context.cluster.is_some();
        Arc::new(Self {
            id: context.node_id,
            window: context.window.clone(),
            backfill: (0..lines).map(|_| BackfillQueue::default()).collect(),
            pass_budget: PassBudget::new(context.recovery.window_bytes, lines),
            connection_limiter: ConnectionLimiter::new(Bounds {
                clients: limits.connections,
                per_address: limits.connections_per_ip,
                unproven: limits.unauthenticated,
                knows_addresses,
                sockets,
            }),
            admin_ui: admin_ui.config.enabled.then(|| AdminUi::new(admin_ui)),
            cluster: context.cluster.clone(),
            presence: context.presence.clone(),
            context,
            log,
            auth,
            backend,
            command_tracker: CommandTracker::default(),
            revocations_read: RevocationsRead::new(!has_cluster),
            forwarded: Mutex::default(),
            resumes: Resumes::default(),
            probes: Probes::default(),
            draining: AtomicBool::new(false),
            operator_drain: OperatorDrain::default(),
            traces: Traces::new(trace),
            tails_seen_ms: (0..lines).map(|_| AtomicU64::new(0)).collect(),
            config: Mutex::default(),
            rewriting: Mutex::default(),
            shards: OnceLock::new(),
        })
    }

    /// The other nodes that are up.
    pub async fn peers(&self) -> Vec<NodeId> {
        match &self.cluster {
            Some(cluster) => cluster.peers_now().await,
            None => Vec::new(),
        }
    }

    /// Answers a request of another node; `false` if the answer did not reach it.
    pub async fn answer_peer(&self, to: NodeId, call: u64, answer: RpcResponse) -> bool {
        match &self.cluster {
            Some(cluster) => cluster.respond(to, call, answer).await,
            None => false,
        }
    }

    /// Makes all shards write all of their records again.
    pub fn rewrite_records(&self, round: u64) {
        *self.rewriting() = (round, self.shards().len());
        for shard in self.shards() {
            shard.run(move |local| local.shard.rewrite_records(round));
        }
    }

    fn rewriting(&self) -> MutexGuard<'_, (u64, usize)> {
        self.rewriting.lock()
    }

    /// Whether the graceful stop has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Sets the shards. Called once, before anything is accepted.
    pub fn set_shards(&self, shards: Vec<ShardHandle<LocalNode>>) {
        // A second call would be a bug of the composition root and changes nothing.
        let _ = self.shards.set(shards);
    }

    /// All shards.
    pub fn shards(&self) -> &[ShardHandle<LocalNode>] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    /// Runs `ask` on every shard and returns the answers of those that still run.
    pub async fn on_every_shard<T: Send + 'static>(
        &self,
        ask: impl Fn(&Rc<LocalNode>) -> T + Send + Clone + 'static,
    ) -> Vec<T> {
        let asked: Vec<_> = self.shards().iter().map(|shard| shard.ask(ask.clone())).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.extend(answer.await);
        }
        answers
    }
}

impl ShardObserver for Node {
    fn command_applied(&self, command: &SessionCommand, sessions: usize) {
        let Some(sessions) = self.command_tracker.shard_applied(command.id, sessions) else { return };
        match &self.cluster {
            _ if command.from == self.id => self.command_tracker.node_applied(command.id, self.id, sessions),
            Some(cluster) => cluster.send_one_way(command.from, OneWay::Applied(command.id, sessions)),
            None => {}
        }
    }

    fn probe_seen(&self, id: Id) {
        self.probes.shard_saw(id);
    }

    fn records_rewritten(&self, round: u64) {
        let mut rewriting = self.rewriting();
        if rewriting.0 != round {
            return;
        }
        rewriting.1 = rewriting.1.saturating_sub(1);
        if let (0, Some(cluster)) = (rewriting.1, &self.cluster) {
            cluster.all_records_queued(round);
        }
    }
}
