//! What nodes know of each other, over Redis alone: who is up, letters between two of them, and records of sessions, so
//! that a client is taken up on any node, also after its own died.

pub mod envelope;
pub(crate) mod jobs;
mod membership;
mod pipeline;
mod session_store;

pub use envelope::{Moving, MovingSession, OneWay, RpcRequest, RpcResponse};
pub use session_store::{Found, Owner, Record};

use crate::log::config::RecoveryConfig;
use crate::metrics::Metrics;
use crate::model::id::{Id, NodeId};
use crate::redis::config::RedisConfig;
use crate::redis::connection::Connector;
use crate::redis::url::RedisUrlError;
use envelope::{Body, Envelope, Signer};
use jobs::{Job, Queue, Sent};
use membership::Membership;
use parking_lot::{Mutex, MutexGuard};
use redis::{Cmd, Value};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Records stay this much longer than the window: it begins when the node is found dead.
const RECORD_SLACK: Duration = Duration::from_secs(10);

/// How often it is looked whether a node that is waited for is still there; by then a beat has seen one that is young.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Receives what other nodes write. Called on the control thread: it hands on and returns.
pub trait RpcHandler: Send + Sync + 'static {
    /// A question; [`Cluster::answer`] answers the call.
    fn asked(&self, from: NodeId, call: u64, question: RpcRequest);

    /// A notice.
    fn told(&self, from: NodeId, notice: OneWay);

    /// Others may have taken this node for gone, and have taken up any of its sessions.
    fn returned(&self);

    /// Others cannot reach this node from now on, or can again: while they cannot, they take it for gone.
    fn reachable(&self, reachable: bool);

    /// Redis may hold old records of this node, or none: all are to be written anew. [`Cluster::rewritten`] says when
    /// they are on their way.
    fn rewrite(&self, round: u64);
}

/// Why a node did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It is gone: nobody listens on its channel.
    #[error("the node is gone")]
    Gone,
    /// It did not answer in time.
    #[error("the node did not answer in time")]
    Timeout,
    /// This node has no connection to write on.
    #[error("this node is cut off from the others")]
    Offline,
}

/// This node among the others.
pub struct Cluster {
    me: NodeId,
    connector: Connector,
    keys: Keys,
    timeout: Duration,
    /// How long records outlive their node.
    record_life: Duration,
    metrics: Arc<Metrics>,
    queue: Queue,
    membership: Mutex<Membership>,
    signer: Mutex<Option<Arc<Signer>>>,
    /// Calls of this node that wait for an answer.
    calls: Mutex<HashMap<u64, oneshot::Sender<RpcResponse>>>,
    numbers: AtomicU64,
    inbox: OnceLock<Arc<dyn RpcHandler>>,
    /// The number of each node's letter that was read last: one that is played again is not read again. Only nodes write
    /// into it, so it is as small as they are few.
    read: Mutex<HashMap<NodeId, u64>>,
    /// Whether it has beaten before.
    beaten: AtomicBool,
    /// Counts the times that all records had to be written anew.
    round: AtomicU64,
}

/// Keys and channels. The keys are in the slot of the log's stream, so that a script may use them together.
struct Keys {
    /// When each node last beat.
    nodes: String,
    /// The key with which letters are sealed.
    signer: String,
    /// What the names of the hashes of sessions begin with.
    sessions: String,
    /// What the names of the nodes' channels begin with.
    channels: String,
}

impl Keys {
    fn new(prefix: &str) -> Self {
        let key = |name: &str| format!("{prefix}:{{{prefix}:events}}:{name}");
        Self {
            nodes: key("nodes"),
            signer: key("seal"),
            sessions: key("sessions:"),
            channels: format!("{prefix}:node:"),
        }
    }

    fn sessions_of(&self, node: NodeId) -> String {
        format!("{}{node}", self.sessions)
    }

    fn channel_of(&self, node: NodeId) -> String {
        format!("{}{node}", self.channels)
    }
}

impl Cluster {
    /// Connects in [`Cluster::run`].
    ///
    /// # Errors
    /// When the URL is missing or not served.
    pub fn new(
        me: NodeId,
        config: &RedisConfig,
        recovery: &RecoveryConfig,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, RedisUrlError> {
        Ok(Arc::new(Self {
            me,
            connector: Connector::new(config)?,
            keys: Keys::new(&config.prefix),
            timeout: config.timeout,
            record_life: recovery.window + RECORD_SLACK,
            metrics,
            queue: Queue::default(),
            membership: Mutex::default(),
            signer: Mutex::default(),
            calls: Mutex::default(),
            // Other nodes take no number twice, and this process may be younger than its name.
            numbers: AtomicU64::new(1),
            inbox: OnceLock::new(),
            read: Mutex::default(),
            beaten: AtomicBool::new(false),
            round: AtomicU64::new(0),
        }))
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.me
    }

    /// Sends a command of `bytes` to Redis with the jobs that wait, and returns what Redis answers.
    ///
    /// # Errors
    /// The reason as text: Redis refused the command, was not reached, or did not answer in time.
    pub async fn call(&self, command: Cmd, bytes: usize) -> Result<Value, String> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Job::Call { command, reply }, bytes + 500, self.timeout);
        let late = |_| "Redis did not answer in time".to_owned();
        let answer = tokio::time::timeout(self.timeout, answer).await.map_err(late)?;
        answer.map_err(|_| "Redis is not reached".to_owned())?
    }

    /// Beats, reads and writes until dropped; reconnects by itself.
    pub async fn run(self: Arc<Self>, inbox: Arc<dyn RpcHandler>) {
        // It runs once.
        let inbox = self.inbox.get_or_init(|| inbox);
        tokio::join!(pipeline::listen(&self, inbox), pipeline::carry(&self));
    }

    /// The last words of a node that stops: what waits is written, and others need not wait for it.
    pub async fn leave(&self) {
        self.queue.leave();
        // In vain without Redis: then the node counts as gone a little later.
        let _ = tokio::time::timeout(self.timeout, self.queue.left()).await;
    }

    /// The other nodes that are up.
    pub fn peers(&self) -> Vec<NodeId> {
        self.membership().live().filter(|node| *node != self.me).collect()
    }

    /// The same, and not as of the last beat but now, where Redis answers.
    pub async fn peers_now(&self) -> Vec<NodeId> {
        let (reply, beaten) = oneshot::channel();
        self.queue.push(Job::Heartbeat { reply }, 100, self.timeout);
        // Without Redis what was known last must do.
        let _ = tokio::time::timeout(self.timeout, beaten).await;
        self.peers()
    }

    /// Whether another node is up, as far as is known.
    pub fn is_peer(&self, node: NodeId) -> bool {
        node != self.me && self.membership().is_live(node)
    }

    /// Doubts a node until it is heard of again.
    pub fn suspect(&self, node: NodeId) {
        self.membership().suspect(node);
    }

    /// Writes and removes records of sessions of this node, soon.
    pub fn keep(&self, changes: Vec<(Id, Option<Record>)>) {
        self.queue.keep(changes);
    }

    /// All records that [`RpcHandler::rewrite`] asked for have been given to [`Cluster::keep`].
    pub fn rewritten(&self, round: u64) {
        self.queue.mark(round);
    }

    /// Writes a record and completes when it is written, or one that Redis has no room for is at least removed; `false`
    /// where neither is done within `patience`.
    pub async fn keep_now(&self, pid: Id, record: Option<Record>, patience: Duration) -> bool {
        let kept = self.queue.keep_now(pid, record, patience);
        tokio::time::timeout(patience, kept).await.is_ok_and(|kept| kept.is_ok())
    }

    /// Whether a node that a client's id names is there: what the client sends is not sent on for nothing.
    pub async fn is_there(&self, node: NodeId) -> bool {
        // It may be so young that no beat of ours has seen it.
        self.is_peer(node) || self.write(node, Body::OneWay(OneWay::Hangup(0))).await == Sent::Heard
    }

    /// Where the session with this pid is. `None` where Redis does not answer.
    pub async fn find(&self, owner: &Owner, pid: Id) -> Option<Found> {
        let (reply, found) = oneshot::channel();
        let size = owner.as_str().len() + 100;
        self.queue.push(Job::Find { owner: owner.clone(), pid, reply }, size, self.timeout);
        tokio::time::timeout(self.timeout, found).await.ok()?.ok()
    }

    /// Asks another node and waits for its answer. Dropped before, the node is told that nobody waits any more.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ask(&self, node: NodeId, question: RpcRequest, patience: Duration) -> Result<RpcResponse, AskError> {
        let call = self.number();
        let (reply, answered) = oneshot::channel();
        self.calls().insert(call, reply);
        let mut entry = Call { cluster: self, node, call, asked: true };
        match self.write(node, Body::Request(call, question)).await {
            Sent::Heard => {}
            Sent::Unheard => {
                entry.asked = false;
                return Err(AskError::Gone);
            }
            Sent::Failed => return Err(AskError::Offline),
        }
        let end = Instant::now() + patience;
        let mut answered = answered;
        loop {
            let look = end.min(Instant::now() + LOOK_EVERY);
            match tokio::time::timeout_at(look, &mut answered).await {
                Ok(Ok(answer)) => {
                    entry.asked = false;
                    return Ok(answer);
                }
                // Cut off meanwhile: an answer would not have been heard.
                Ok(Err(_)) => return Err(AskError::Offline),
                Err(_) if Instant::now() >= end => return Err(AskError::Timeout),
                // It has died since: what would be a long wait, for a GET that is forwarded, is none.
                Err(_) if !self.membership().is_live(node) => return Err(AskError::Gone),
                Err(_) => {}
            }
        }
    }

    /// Answers a call; whether the node that made it is still there to hear it.
    pub async fn answer(&self, node: NodeId, call: u64, answer: RpcResponse) -> bool {
        self.write(node, Body::Response(call, answer)).await == Sent::Heard
    }

    /// Tells a node something, as far as it is there.
    pub fn tell(&self, node: NodeId, notice: OneWay) {
        drop(self.post(node, Body::OneWay(notice)));
    }

    async fn write(&self, node: NodeId, body: Body) -> Sent {
        let Some(sent) = self.post(node, body) else { return Sent::Failed };
        let sent = tokio::time::timeout(self.timeout, sent).await;
        let sent = sent.ok().and_then(Result::ok).unwrap_or(Sent::Failed);
        if sent == Sent::Unheard && self.is_peer(node) {
            self.suspect(node);
        }
        sent
    }

    /// Puts a letter into the queue; `None` before the key is known.
    fn post(&self, to: NodeId, body: Body) -> Option<oneshot::Receiver<Sent>> {
        let signer = self.signer.lock().clone()?;
        // Numbers rise in the order of the queue.
        self.queue.push_letter(self.timeout, |reply| {
            let letter = signer.write(&Envelope { from: self.me, to, number: self.number(), body });
            Job::Envelope { channel: self.keys.channel_of(to), letter, reply }
        })
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn membership(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock()
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<RpcResponse>>> {
        self.calls.lock()
    }
}

/// A call that waits; forgotten when dropped.
struct Call<'a> {
    cluster: &'a Cluster,
    node: NodeId,
    call: u64,
    /// The other node has the question and may still be working on it.
    asked: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.cluster.calls().remove(&self.call);
        if self.asked {
            self.cluster.tell(self.node, OneWay::Hangup(self.call));
        }
    }
}
