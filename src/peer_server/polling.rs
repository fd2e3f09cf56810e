//! Polling requests that other nodes forward to the owner of their session.

use crate::cluster::RpcResponse;
use crate::model::id::{Id, NodeId};
use crate::node::context::LocalNode;
use crate::session::polling::PollAnswer;
use crate::transport::polling;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Forwarded GETs that wait for packets, by node and call.
#[derive(Clone, Default)]
pub(super) struct PendingGets(Arc<Mutex<HangUps>>);

type HangUps = HashMap<(NodeId, u64), oneshot::Sender<()>>;

impl PendingGets {
    /// Notes a GET; the receiver completes when the other node says that its client has hung up.
    pub(super) fn insert(&self, from: NodeId, call: u64) -> oneshot::Receiver<()> {
        let (hung_up, receiver) = oneshot::channel();
        self.0.lock().insert((from, call), hung_up);
        receiver
    }

    /// Forgets a GET that was answered, or whose client has hung up.
    pub(super) fn remove(&self, from: NodeId, call: u64) {
        self.0.lock().remove(&(from, call));
    }
}

/// Answers a forwarded GET. `hung_up` completes when the client of the other node is gone.
pub(super) async fn answer_get(
    local: &Rc<LocalNode>,
    gets: &PendingGets,
    hung_up: oneshot::Receiver<()>,
    (from, call): (NodeId, u64),
    sid: Id,
) {
    let answer = tokio::select! {
        answer = polling::get(local, sid, None) => answer,
        // Dropping the GET ends the session, as if the client's own connection had broken.
        _ = hung_up => return,
    };
    gets.remove(from, call);
    // If the answer does not arrive, the client's GET fails, and the client reconnects and gets what it missed.
    local.node.answer_peer(from, call, answer_of(answer)).await;
}

/// Takes a forwarded POST; `body` is `None` for one that polling does not take.
pub(super) async fn take_post(local: &Rc<LocalNode>, sid: Id, body: Option<String>) -> RpcResponse {
    let post = match polling::begin_post(local, sid, None).await {
        Ok(post) => post,
        Err(answer) => return answer_of(answer),
    };
    match body {
        Some(body) => answer_of(post.finish(local, body.into()).await),
        None => {
            post.refuse(local).await;
            RpcResponse::Overlap
        }
    }
}

fn answer_of(answer: PollAnswer) -> RpcResponse {
    match answer {
        PollAnswer::Payload(bytes) => match String::from_utf8(bytes.into()) {
            Ok(text) => RpcResponse::Payload(text),
            // Payloads are always text.
            Err(_) => RpcResponse::Unknown,
        },
        PollAnswer::Accepted => RpcResponse::Accepted,
        PollAnswer::Overlap | PollAnswer::TooBig | PollAnswer::TooBigUnproven | PollAnswer::Busy => {
            RpcResponse::Overlap
        }
        PollAnswer::Unknown => RpcResponse::Unknown,
        PollAnswer::Moved => RpcResponse::Moved,
    }
}
