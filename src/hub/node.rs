//! What all shards of this process share.

use crate::auth::Authenticator;
use crate::backend::Backend;
use crate::cluster::{Cluster, Notice};
use crate::draft::DraftLimits;
use crate::event::{Delivery, MAIN_NAMESPACE, Namespace, Offset, Placed};
use crate::hub::orders::Orders;
use crate::hub::presence::Presence;
use crate::hub::probe::Probes;
use crate::hub::shard::Shard;
use crate::id::{Id, NodeId};
use crate::log::EventLog;
use crate::log::config::RecoveryConfig;
use crate::log::window::Window;
use crate::metrics::Metrics;
use crate::order::Order;
use crate::rules::Rules;
use crate::session::config::{LimitsConfig, SocketIoConfig};
use crate::session::places::Places;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use tokio::sync::{Notify, mpsc, oneshot};

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
    pub places: Arc<Places>,
    /// Who is asked and told; `None` without `[backend]`.
    pub backend: Option<Arc<Backend>>,
    /// The other nodes; `None` with the embedded log.
    pub cluster: Option<Arc<Cluster>>,
    /// Who is there.
    pub presence: Presence,
    /// Orders on their way.
    pub orders: Orders,
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
    pub presence: Presence,
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
            places: Places::new(parts.limits.connections, parts.limits.connections_per_ip),
            socketio: parts.socketio,
            limits: parts.limits,
            recovery: parts.recovery,
            draft_limits: parts.draft_limits,
            log: parts.log,
            auth: parts.auth,
            rules: parts.rules,
            metrics: parts.metrics,
            orders: Orders::default(),
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
    pub fn order_done(&self, order: &Order, met: usize) {
        let Some(sessions) = self.orders.shard_did(order.id, met) else { return };
        match &self.cluster {
            _ if order.from == self.id => self.orders.node_did(order.id, self.id, sessions),
            Some(cluster) => cluster.tell(order.from, Notice::Met(order.id, sessions)),
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
        self.rewriting.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Work for a shard's thread.
pub type Work = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// What a shard is told.
pub enum Command {
    /// The next events, in log order, and their size in bytes.
    Events(Arc<[Arc<Delivery>]>, usize),
    /// An order to sessions, and its place in the log.
    Order(Placed),
    /// A probe of this node.
    Probe(Id),
    /// The log begins here, for the first time or anew: its life, and the position after which events follow.
    Begin(Offset),
    /// The log has come to here, and there was no event on the way.
    Advance(Offset),
    /// Work for the shard's thread.
    Run(Work),
    /// End the shard's thread.
    Stop,
}

/// Reaches a shard from any thread.
#[derive(Clone)]
pub struct ShardHandle {
    commands: mpsc::UnboundedSender<Command>,
    backlog: Arc<Backlog>,
}

/// Bytes of events that were sent to a shard and are not in outboxes yet.
#[derive(Default)]
pub struct Backlog {
    bytes: AtomicUsize,
    shrunk: Notify,
}

impl Backlog {
    /// The shard has taken so many bytes.
    pub fn took(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.shrunk.notify_one();
    }
}

impl ShardHandle {
    /// A handle and the ends that the shard keeps.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Command>, Arc<Backlog>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        (Self { commands, backlog: backlog.clone() }, receiver, backlog)
    }

    /// Tells the shard; a shard that has stopped hears nothing.
    pub fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Runs work on the shard's thread.
    pub fn run(&self, work: impl FnOnce(&Rc<Shard>) + Send + 'static) {
        self.tell(Command::Run(Box::new(work)));
    }

    /// Runs work on the shard's thread and answers what it returns; `None` when the shard has stopped.
    pub fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Rc<Shard>) -> T + Send + 'static,
    ) -> Pin<Box<dyn Future<Output = Option<T>> + Send>> {
        let (reply, answer) = oneshot::channel();
        self.run(move |shard| {
            let _ = reply.send(ask(shard));
        });
        Box::pin(async move { answer.await.ok() })
    }

    /// Whether no more than `most` bytes of events wait there, or nobody takes them any more.
    pub fn has_room(&self, most: usize) -> bool {
        self.backlog.bytes.load(Ordering::Relaxed) <= most || self.commands.is_closed()
    }

    /// Completes when no more than `most` bytes wait there.
    pub async fn room(&self, most: usize) {
        while !self.has_room(most) {
            self.backlog.shrunk.notified().await;
        }
    }

    /// Hands over events; [`ShardHandle::room`] says when.
    pub fn deliver(&self, events: Arc<[Arc<Delivery>]>, bytes: usize) {
        self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tell(Command::Events(events, bytes));
    }
}
