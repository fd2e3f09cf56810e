//! Requests between two nodes, over Redis Pub/Sub: each node subscribes to a channel of its own.
//!
//! `message` has the kinds, `signer` their signed form, `pieces` the flow of large ones, `calls` the state of a node,
//! `inspection`, `explanation` and `trace` what operators see. [`crate::cluster::Cluster::request`]
//! sends a request; an [`RpcHandler`] receives those of others.

pub(crate) mod calls;
pub mod explanation;
pub mod inspection;
pub mod message;
pub(crate) mod pieces;
pub mod signer;
pub mod trace;

use crate::model::id::NodeId;
use message::{OneWay, RpcRequest};

/// Receives what other nodes send. Called on the control thread: it must hand work on and return.
pub trait RpcHandler: Send + Sync + 'static {
    /// A request. [`crate::cluster::Cluster::respond`] sends the response to this call.
    fn on_request(&self, from: NodeId, call: u64, request: RpcRequest);

    /// A message that wants no response.
    fn on_one_way(&self, from: NodeId, message: OneWay);

    /// This node had missed its heartbeats: others may have taken over any of its sessions.
    fn on_rejoined(&self);

    /// From now on others can reach this node, or cannot. While they cannot, they count it as dead.
    fn on_reachable(&self, reachable: bool);

    /// Redis may hold old records of this node, or none: all must be written again.
    /// [`crate::cluster::Cluster::all_records_queued`] takes the round when all are on their way.
    fn on_rewrite_records(&self, round: u64);
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The node is dead: nobody subscribes to its channel.
    #[error("the node is gone")]
    Gone,
    /// No response in time.
    #[error("the node did not answer in time")]
    Timeout,
    /// This node has no connection to Redis.
    #[error("this node has no connection to the other nodes")]
    Offline,
    /// Too much waits for that node already, or for its answers.
    #[error("too much is on its way to the node already")]
    Busy,
    /// The node is of an older release that does not know this request.
    #[error("the node is of an older release that does not know this request")]
    Unsupported,
}
