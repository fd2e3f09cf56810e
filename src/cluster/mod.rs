//! The other nodes, over Redis alone: which are live, requests between two of them, and records of sessions, so that a
//! client can resume on any node, also after its own died.
//!
//! `membership` knows the live nodes, `rpc` has the messages, `id_keys` recognizes ids, `session_store` has the records. `jobs` is the queue of what waits
//! for Redis, `pipeline` sends it, `subscription` receives messages.
//!
//! ```ignore
//! let cluster = Cluster::new(id, &config.redis, &config.recovery, metrics, memory)?;
//! tokio::spawn(cluster.clone().run(handler));
//! let response = cluster.request(node, RpcRequest::Get(sid), timeout).await?;
//! cluster.leave().await; // before the process ends
//! ```

mod confirmations;
mod id_keys;
mod jobs;
mod keys;
mod membership;
mod pipeline;
mod revocation_store;
pub mod rpc;
mod session_store;
mod shared;

mod subscription;

pub use revocation_store::Kept;
pub use rpc::explanation::{EventView, ExplainQuery, ExplainedSession, NodeExplanation, TurnedAwayView};
pub use rpc::inspection::{
    ConnectionCount, DrainStatus, NodeStatus, RoomCount, RoomsQuery, SessionPlace, SessionView, SessionsQuery,
};
pub use rpc::message::{Confirmed, Moving, MovingSession, OneWay, RpcRequest, RpcResponse};
pub use rpc::trace::{TraceBatch, TraceQuery};
pub use rpc::{RpcError, RpcHandler};
pub use session_store::{Found, Owner, Record, RecordChange};

use crate::budget::memory::MemoryBudget;
use crate::log::config::RecoveryConfig;
use crate::metrics::Metrics;
use crate::model::clock::unix_ms;
use crate::model::id::{Id, NodeId};
use crate::redis::config::RedisConfig;
use crate::redis::connection::Connector;
use crate::redis::url::RedisUrlError;
use confirmations::Confirmations;
use jobs::{Job, Queue, Sent};
use keys::Keys;
use membership::Membership;
use parking_lot::{Mutex, RwLock};
use redis::{Cmd, Value};
use rpc::calls::Calls;
use rpc::message::Body;
use rpc::pieces::WHOLE;
use shared::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Records are kept this much longer than the window, which begins when the node is found dead.
const RECORD_SLACK: Duration = Duration::from_secs(10);

/// A node whose heartbeats are refused for this long is not ready: others count it as dead by then.
const MAX_REFUSED: Duration = Duration::from_secs(5);

/// How often a caller looks whether the node it waits for is still live. A heartbeat has seen a new node by then.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(2);

/// How long the owner of a sid may take to say whether it has such a session.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// This node among the others.
pub struct Cluster {
    shared: Shared,
    confirmations: Confirmations,
}

impl Cluster {
    /// Connects in [`Cluster::run`].
    ///
    /// # Errors
    /// When the URL is missing or cannot be used.
    pub fn new(
        me: NodeId,
        config: &RedisConfig,
        recovery: &RecoveryConfig,
        metrics: Arc<Metrics>,
        memory: Arc<MemoryBudget>,
    ) -> Result<Arc<Self>, RedisUrlError> {
        let record_lifetime = recovery.window + RECORD_SLACK;
        let shared = Shared {
            me,
            connector: Connector::new(config)?,
            keys: Keys::new(&config.prefix),
            timeout: config.timeout,
            record_lifetime,
            key_lifetime: config.node_key_lifetime,
            features: membership::features(config.layout()),
            metrics,
            queue: Queue::new(memory.clone()),
            memory,
            membership: Mutex::new(Membership::new(record_lifetime)),
            refused_heartbeats: Mutex::default(),
            calls: Calls::new(me),
            lanes: Mutex::default(),
            id_keys: RwLock::default(),
            has_joined: AtomicBool::new(false),
            rewrite_round: AtomicU64::new(0),
        };
        Ok(Arc::new(Self { shared, confirmations: Confirmations::default() }))
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.shared.me
    }

    /// Sends heartbeats, reads and writes, until dropped. Reconnects by itself.
    pub async fn run(self: Arc<Self>, handler: Arc<dyn RpcHandler>) {
        tokio::join!(subscription::run(&self.shared, &*handler), pipeline::run(&self.shared, &*handler));
    }

    /// Why other nodes count this one as dead, if Redis refuses its heartbeats.
    pub fn problem(&self) -> Option<String> {
        let refused = self.shared.refused_heartbeats.lock();
        let lasting = refused.as_ref().filter(|(since, _)| since.elapsed() >= MAX_REFUSED);
        lasting.map(|(_, why)| format!("heartbeats are refused: {why}"))
    }

    /// Writes what waits and says that this node stops, so that others need not wait for its heartbeats to end.
    pub async fn leave(&self) {
        self.shared.queue.leave();
        // Without Redis this fails, and the node counts as dead a little later.
        let _ = tokio::time::timeout(self.shared.timeout, self.shared.queue.left()).await;
    }

    /// Sends a command of `bytes` to Redis with what waits, and returns the reply.
    ///
    /// # Errors
    /// A text: Redis refused the command, was not reached, or did not answer in time.
    pub async fn call(&self, command: Cmd, bytes: usize) -> Result<Value, String> {
        let (reply, received) = oneshot::channel();
        self.shared.queue.push(Job::Command { command, reply }, bytes + 500, self.shared.timeout);
        let late = |_| format!("Redis did not answer within {:?}", self.shared.timeout);
        let reply = tokio::time::timeout(self.shared.timeout, received).await.map_err(late)?;
        reply.map_err(|_| "Redis is not reachable".to_owned())?
    }

    /// The other live nodes, as of the last heartbeat.
    pub fn peers(&self) -> Vec<NodeId> {
        self.shared.membership.lock().live().filter(|node| *node != self.shared.me).collect()
    }

    /// The other live nodes as of now, or as of the last heartbeat where Redis does not answer.
    pub async fn peers_now(&self) -> Vec<NodeId> {
        self.known_peers().await.unwrap_or_else(|| self.peers())
    }

    /// The other live nodes as of now; `None` where Redis does not say.
    pub async fn known_peers(&self) -> Option<Vec<NodeId>> {
        let (reply, done) = oneshot::channel();
        self.shared.queue.push(Job::Heartbeat { reply }, 100, self.shared.timeout);
        let answered = tokio::time::timeout(self.shared.timeout, done).await;
        matches!(answered, Ok(Ok(()))).then(|| self.peers())
    }

    /// Whether another node is live, as of the last heartbeat.
    pub fn is_peer(&self, node: NodeId) -> bool {
        node != self.shared.me && self.shared.membership.lock().is_live(node)
    }

    /// Counts a node as dead until its next heartbeat: it did not respond.
    pub fn suspect(&self, node: NodeId) {
        self.shared.membership.lock().suspect(node, unix_ms());
    }

    /// A new Engine.IO sid or pid that leads to a shard of this node, and that other nodes recognize.
    pub fn fresh_id(&self, shard: u8) -> Id {
        self.shared.id_keys.read().fresh(self.shared.me, shard)
    }

    /// Whether a node of this cluster made a sid or pid. Those of the previous release cannot be recognized, so that they
    /// are believed as long as the node that they name is live.
    pub fn is_genuine(&self, id: Id) -> bool {
        self.shared.id_keys.read().knows(id) || self.shared.membership.lock().is_legacy(id.node())
    }

    /// Whether a node is live and of the previous release.
    pub fn is_legacy(&self, node: NodeId) -> bool {
        self.shared.membership.lock().is_legacy(node)
    }

    /// Queues changes of this node's session records.
    pub fn write_records(&self, changes: Vec<(Id, RecordChange)>) {
        self.shared.queue.push_changes(changes);
    }

    /// Writes a record and waits until it is written, or until one that Redis refuses is removed. `false` where neither
    /// happens within `timeout`.
    pub async fn write_record(&self, pid: Id, change: RecordChange, timeout: Duration) -> bool {
        let written = self.shared.queue.write_record(pid, change, timeout);
        tokio::time::timeout(timeout, written).await.is_ok_and(|written| written.is_ok())
    }

    /// All records that [`RpcHandler::on_rewrite_records`] asked for were given to [`Cluster::write_records`].
    pub fn all_records_queued(&self, round: u64) {
        self.shared.queue.finish_round(round);
    }

    /// Looks for the session with this pid; `None` where Redis does not answer.
    pub async fn find(&self, owner: &Owner, pid: Id) -> Option<Found> {
        let (reply, found) = oneshot::channel();
        let bytes = owner.as_str().len() + 100;
        self.shared.queue.push(Job::Find { owner: owner.clone(), pid, reply }, bytes, self.shared.timeout);
        tokio::time::timeout(self.shared.timeout, found).await.ok()?.ok()
    }

    /// Sends a request and waits for the response. If the caller drops this before, the other node learns that nobody
    /// waits any more.
    ///
    /// # Errors
    /// When there is no response.
    pub async fn request(&self, node: NodeId, request: RpcRequest, timeout: Duration) -> Result<RpcResponse, RpcError> {
        let (call, mut response) = self.shared.calls.begin(node).ok_or(RpcError::Busy)?;
        let mut pending = PendingCall { cluster: self, node, call, is_received: true };
        match self.send_and_wait(node, Body::Request(call, request)).await {
            Sent::Received => {}
            Sent::NoSubscriber => {
                pending.is_received = false;
                return Err(RpcError::Gone);
            }
            Sent::Busy => {
                pending.is_received = false;
                return Err(RpcError::Busy);
            }
            Sent::Failed => return Err(RpcError::Offline),
        }
        let deadline = Instant::now() + timeout;
        loop {
            let next_look = deadline.min(Instant::now() + LIVENESS_INTERVAL);
            match tokio::time::timeout_at(next_look, &mut response).await {
                Ok(Ok(response)) => {
                    pending.is_received = false;
                    return match response {
                        RpcResponse::Unsupported => Err(RpcError::Unsupported),
                        response => Ok(response),
                    };
                }
                // The subscription broke: the response would not have arrived.
                Ok(Err(_)) => return Err(RpcError::Offline),
                Err(_) if Instant::now() >= deadline => return Err(RpcError::Timeout),
                // It died since; a forwarded GET would otherwise wait for its whole timeout.
                Err(_) if !self.shared.membership.lock().is_live(node) => return Err(RpcError::Gone),
                Err(_) => {}
            }
        }
    }

    /// What the owner of a sid says of it.
    ///
    /// # Errors
    /// When it says nothing.
    pub async fn confirm(self: &Arc<Self>, sid: Id) -> Result<Confirmed, RpcError> {
        let (reply, answer) = oneshot::channel();
        if self.confirmations.push(sid, reply)? {
            // On its own, since this caller may hang up.
            tokio::spawn(self.clone().ask_for_confirmations(sid.node()));
        }
        answer.await.unwrap_or(Err(RpcError::Offline))
    }

    async fn ask_for_confirmations(self: Arc<Self>, node: NodeId) {
        while let Some(waiting) = self.confirmations.take(node) {
            let sids: Vec<Id> = waiting.iter().map(|(sid, _)| *sid).collect();
            let answers = match self.request(node, RpcRequest::Confirm(sids), CONFIRM_TIMEOUT).await {
                Ok(RpcResponse::Confirmed(answers)) if answers.len() == waiting.len() => Ok(answers),
                Ok(_) => Err(RpcError::Unsupported),
                Err(error) => Err(error),
            };
            for (index, (_, reply)) in waiting.into_iter().enumerate() {
                // The caller may be gone.
                let _ = reply.send(answers.as_ref().map(|answers| answers[index]).map_err(|error| *error));
            }
        }
    }

    /// Responds to a call; whether the node that made it received the response.
    pub async fn respond(&self, node: NodeId, call: u64, response: RpcResponse) -> bool {
        self.send_and_wait(node, Body::Response(call, response)).await == Sent::Received
    }

    /// Sends a message that wants no response, if the node is there.
    pub fn send_one_way(&self, node: NodeId, message: OneWay) {
        drop(self.shared.send(node, Body::OneWay(message)));
    }

    async fn send_and_wait(&self, node: NodeId, body: Body) -> Sent {
        // A large one waits behind others.
        let late = if body.size() > WHOLE { Sent::Busy } else { Sent::Failed };
        let Some(sent) = self.shared.send(node, body) else { return Sent::Failed };
        let sent = tokio::time::timeout(self.shared.timeout, sent).await;
        let sent = sent.map_or(late, |sent| sent.unwrap_or(Sent::Failed));
        if sent == Sent::NoSubscriber && self.is_peer(node) {
            self.suspect(node);
        }
        sent
    }
}

/// A call that waits; forgotten when dropped.
struct PendingCall<'a> {
    cluster: &'a Cluster,
    node: NodeId,
    call: u64,
    /// The other node has the request and may still be working on it.
    is_received: bool,
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        self.cluster.shared.calls.forget(self.call);
        if self.is_received {
            self.cluster.send_one_way(self.node, OneWay::Hangup(self.call));
        }
    }
}
