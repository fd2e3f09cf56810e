//! Requests for sessions of other nodes, forwarded to the node that owns them.

use crate::cluster::{OneWay, RpcError, RpcRequest, RpcResponse};
use crate::model::id::Id;
use crate::node::context::{LocalNode, Node};
use crate::session::polling::PollAnswer;
use bytes::Bytes;
use std::time::Duration;

/// How long a forwarded request may take, besides the time that a GET waits for packets (at most until the next ping).
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the session of this sid began on another node.
pub fn is_elsewhere(node: &Node, sid: Id) -> bool {
    sid.node() != node.id && node.cluster.is_some()
}

/// Forwards a GET. If the future is dropped because the client hung up, the owner gets a notice.
pub async fn get(local: &LocalNode, sid: Id) -> PollAnswer {
    ask(local, sid, RpcRequest::Get(sid), local.context.socketio.ping_interval + FORWARD_TIMEOUT).await
}

/// Forwards a POST's payload; `None` for a body that polling does not accept, such as binary.
pub async fn post(local: &LocalNode, sid: Id, body: Option<String>) -> PollAnswer {
    ask(local, sid, RpcRequest::Post(sid, body), FORWARD_TIMEOUT).await
}

/// Whether a WebSocket may probe for a session of another node, and take it over.
pub async fn may_probe(local: &LocalNode, sid: Id) -> bool {
    // Without the window, what the session misses during the move could not be proven.
    local.context.recovery_on()
        && question(local, sid, RpcRequest::Probe(sid), FORWARD_TIMEOUT).await == Ok(RpcResponse::Accepted)
}

/// Sends a notice to the owner of a session.
pub fn tell(local: &LocalNode, sid: Id, notice: OneWay) {
    if let Some(cluster) = &local.node.cluster {
        cluster.send_one_way(sid.node(), notice);
    }
}

/// Sends a request to the owner of a session.
pub async fn question(
    local: &LocalNode,
    sid: Id,
    question: RpcRequest,
    timeout: Duration,
) -> Result<RpcResponse, RpcError> {
    let cluster = local.node.cluster.as_ref().ok_or(RpcError::Offline)?;
    cluster.request(sid.node(), question, timeout).await
}

/// Whether the node that a sid names is up. Checked before the body of a POST is read and forwarded.
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
