//! Requests for sessions of other nodes, forwarded to the node that owns them.

use crate::cluster::{OneWay, RpcError, RpcRequest, RpcResponse};
use crate::model::id::Id;
use crate::node::context::{LocalNode, Node};
use crate::session::polling::PollAnswer;
use bytes::Bytes;
use std::time::Duration;

/// A forwarded GET is answered at the latest by the next ping; this is for the way.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the session of this sid began on another node.
pub fn is_elsewhere(node: &Node, sid: Id) -> bool {
    sid.node() != node.id && node.cluster.is_some()
}

/// Forwards a GET. When the future is dropped because the client hung up, the owner hears of it.
pub async fn get(local: &LocalNode, sid: Id) -> PollAnswer {
    ask(local, sid, RpcRequest::Get(sid), local.context.socketio.ping_interval + FORWARD_TIMEOUT).await
}

/// Forwards a POST's payload; `None` for a body that polling does not take.
pub async fn post(local: &LocalNode, sid: Id, body: Option<String>) -> PollAnswer {
    ask(local, sid, RpcRequest::Post(sid, body), FORWARD_TIMEOUT).await
}

/// Whether a WebSocket may probe for a session of another node, and take it over.
pub async fn may_probe(local: &LocalNode, sid: Id) -> bool {
    // Without the window nobody could tell what the session misses on its way.
    local.context.recovery_on()
        && question(local, sid, RpcRequest::Probe(sid), FORWARD_TIMEOUT).await == Ok(RpcResponse::Accepted)
}

/// Tells the owner of a session something.
pub fn tell(local: &LocalNode, sid: Id, notice: OneWay) {
    if let Some(cluster) = &local.node.cluster {
        cluster.send_one_way(sid.node(), notice);
    }
}

/// Asks the owner of a session.
pub async fn question(
    local: &LocalNode,
    sid: Id,
    question: RpcRequest,
    timeout: Duration,
) -> Result<RpcResponse, RpcError> {
    let cluster = local.node.cluster.as_ref().ok_or(RpcError::Offline)?;
    cluster.request(sid.node(), question, timeout).await
}

/// Whether the node that a sid names is there: what a client sends is not read, nor sent on, for nothing.
pub async fn has_owner(node: &Node, sid: Id) -> bool {
    match &node.cluster {
        Some(cluster) => cluster.is_reachable(sid.node()).await,
        None => false,
    }
}

async fn ask(local: &LocalNode, sid: Id, asked: RpcRequest, timeout: Duration) -> PollAnswer {
    match question(local, sid, asked, timeout).await {
        Ok(RpcResponse::Payload(text)) => PollAnswer::Payload(Bytes::from(text)),
        Ok(RpcResponse::Accepted) => PollAnswer::Accepted,
        Ok(RpcResponse::Overlap) => PollAnswer::Overlap,
        Ok(RpcResponse::Moved) => PollAnswer::Moved,
        Ok(
            RpcResponse::Unknown
            | RpcResponse::Taken(_)
            | RpcResponse::Released(_)
            | RpcResponse::Members(..)
            | RpcResponse::Unsupported,
        ) => PollAnswer::Unknown,
        Err(problem) => {
            tracing::debug!(%sid, node = %sid.node(), %problem, "a polling request could not be forwarded");
            PollAnswer::Unknown
        }
    }
}
