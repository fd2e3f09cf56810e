//! Requests for sessions of other nodes, forwarded to the node that owns them.

use crate::cluster::{Confirmed, OneWay, RpcError, RpcRequest, RpcResponse};
use crate::model::id::Id;
use crate::model::refusal::Refusal;
use crate::node::context::{LocalNode, Node};
use crate::refusals::Who;
use crate::session::accepted::AcceptedSocket;
use crate::session::forwarded::PollKind;
use crate::session::polling::{BodyLimit, PollAnswer};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a forwarded request may take, besides the time that a GET waits for packets (at most until the next ping).
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the session of this sid began on another node.
pub fn is_elsewhere(node: &Node, sid: Id) -> bool {
    sid.node() != node.id && node.cluster.is_some()
}

/// Whether no node of this cluster made this sid. Known without asking anybody.
pub fn is_invented(node: &Node, sid: Id) -> bool {
    is_elsewhere(node, sid) && node.cluster.as_ref().is_some_and(|cluster| !cluster.is_genuine(sid))
}

/// A request that is on its way to the session's node, counted until it is dropped.
pub struct Forwarding {
    node: Arc<Node>,
    sid: Id,
    kind: PollKind,
}

impl Forwarding {
    /// Counts a request.
    ///
    /// # Errors
    /// With the answer for one that is not forwarded: too many are under way, or the owner said a moment ago that there is
    /// no such session.
    pub fn begin(local: &LocalNode, sid: Id, kind: PollKind) -> Result<Self, PollAnswer> {
        let mut forwarded = local.node.forwarded.lock();
        if forwarded.known(sid, Instant::now()) == Some(Confirmed::Unknown) {
            return Err(PollAnswer::Unknown);
        }
        if !forwarded.begin(sid, kind) {
            let why = format_args!("two long-polling requests of one kind at once, for a session of another node");
            local.context.refusals.note(Refusal::Protocol, &Who::unknown("a Socket.IO client"), why);
            return Err(PollAnswer::Overlap);
        }
        drop(forwarded);
        Ok(Self { node: local.node.clone(), sid, kind })
    }

    /// Forwards a GET that came on `socket`. If the future is dropped because the client hung up, the owner gets a notice.
    pub async fn get(self, local: &LocalNode, socket: &AcceptedSocket) -> PollAnswer {
        let known = local.node.forwarded.lock().known(self.sid, Instant::now());
        // One that waits long must not count as unproven because of what was known before its client had joined.
        let confirmed = match known {
            Some(Confirmed::Proven) => Ok(Confirmed::Proven),
            _ => confirm(local, self.sid).await,
        };
        match confirmed {
            Ok(Confirmed::Proven) => socket.carry(),
            Ok(Confirmed::Unproven) => {}
            Ok(Confirmed::Unknown) => return PollAnswer::Unknown,
            Err(answer) => return answer,
        }
        let timeout = local.context.socketio.ping_interval + FORWARD_TIMEOUT;
        ask(local, self.sid, RpcRequest::Get(self.sid), timeout).await
    }

    /// How many bytes of a POST's body may be read: its owner is asked whether the session exists, unless that is known.
    /// `declared` is the length that the request on `socket` states.
    ///
    /// # Errors
    /// With the answer for a POST that is not forwarded.
    pub async fn max_body(
        &self,
        local: &LocalNode,
        socket: &AcceptedSocket,
        declared: Option<u64>,
    ) -> Result<BodyLimit, PollAnswer> {
        let max = local.context.socketio.max_payload;
        let known = local.node.forwarded.lock().known(self.sid, Instant::now());
        let fits = declared.is_some_and(|bytes| bytes <= BodyLimit::of(false, max).bytes as u64);
        let confirmed = match known {
            // A client that has proven who it is since is asked about again before it sends more.
            Some(answer) if answer == Confirmed::Proven || fits => answer,
            _ => confirm(local, self.sid).await?,
        };
        match confirmed {
            Confirmed::Unknown => Err(PollAnswer::Unknown),
            Confirmed::Unproven => Ok(BodyLimit::of(false, max)),
            Confirmed::Proven => {
                socket.carry();
                Ok(BodyLimit::of(true, max))
            }
        }
    }

    /// Forwards a POST's payload; `None` for a body that polling does not accept, such as binary.
    pub async fn post(self, local: &LocalNode, body: Option<String>) -> PollAnswer {
        ask(local, self.sid, RpcRequest::Post(self.sid, body), FORWARD_TIMEOUT).await
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.node.forwarded.lock().end(self.sid, self.kind);
    }
}

/// Asks the owner whether there is a session with this sid.
async fn confirm(local: &LocalNode, sid: Id) -> Result<Confirmed, PollAnswer> {
    let Some(cluster) = &local.node.cluster else { return Err(PollAnswer::Unknown) };
    if cluster.is_legacy(sid.node()) {
        return Ok(Confirmed::Proven);
    }
    let answer = cluster.confirm(sid).await;
    if let Ok(answer) = answer {
        local.node.forwarded.lock().note(sid, answer, Instant::now());
    }
    answer.map_err(|problem| not_forwarded(local, sid, problem))
}

/// The answer to a request that the owner did not get, or did not answer.
fn not_forwarded(local: &LocalNode, sid: Id, problem: RpcError) -> PollAnswer {
    tracing::debug!(%sid, node = %sid.node(), %problem, "a polling request could not be forwarded");
    match problem {
        RpcError::Busy => return PollAnswer::Busy,
        // A node that is gone does not come back; nobody needs to ask again for this sid.
        RpcError::Gone => local.node.forwarded.lock().note(sid, Confirmed::Unknown, Instant::now()),
        RpcError::Timeout | RpcError::Offline | RpcError::Unsupported => {}
    }
    PollAnswer::Unknown
}

/// Whether a WebSocket may probe for a session of another node, and take it over.
pub async fn may_probe(local: &LocalNode, sid: Id) -> bool {
    // Without the window, what the session misses during the move could not be proven.
    local.context.recovery_on()
        && local.node.forwarded.lock().known(sid, Instant::now()) != Some(Confirmed::Unknown)
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

async fn ask(local: &LocalNode, sid: Id, asked: RpcRequest, timeout: Duration) -> PollAnswer {
    let answer = match question(local, sid, asked, timeout).await {
        Ok(RpcResponse::Payload(text)) => PollAnswer::Payload(Bytes::from(text)),
        Ok(RpcResponse::Accepted) => PollAnswer::Accepted,
        Ok(RpcResponse::Overlap) => PollAnswer::Overlap,
        Ok(RpcResponse::Moved) => PollAnswer::Moved,
        Ok(
            RpcResponse::Unknown
            | RpcResponse::Taken(_)
            | RpcResponse::Released(_)
            | RpcResponse::Confirmed(_)
            | RpcResponse::Members(..)
            | RpcResponse::NodeStatus(_)
            | RpcResponse::Rooms(_)
            | RpcResponse::Sessions(_)
            | RpcResponse::Trace(_)
            | RpcResponse::Explained(_)
            | RpcResponse::Unsupported,
        ) => PollAnswer::Unknown,
        Err(problem) => return not_forwarded(local, sid, problem),
    };
    let mut forwarded = local.node.forwarded.lock();
    match answer {
        PollAnswer::Unknown => forwarded.note(sid, Confirmed::Unknown, Instant::now()),
        _ => forwarded.note_served(sid, Instant::now()),
    }
    drop(forwarded);
    answer
}
