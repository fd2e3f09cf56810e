//! Sessions and polling connections that continue on another node.

use crate::cluster::{Moving, MovingSession, Owner, RpcResponse};
use crate::handlers::session_lookup;
use crate::model::id::{Id, NodeId};
use crate::node::context::LocalNode;
use crate::session::Session;
use crate::session::parked::Parked;
use crate::shard::release::{Released, Taker};
use std::rc::Rc;
use std::time::Duration;

/// How often, and how many times, a connection is looked at that cannot be released yet.
const IDLE_LOOK: Duration = Duration::from_millis(10);
const IDLE_LOOKS: usize = 200;

/// Gives a session to another node. It stays here if the answer does not arrive there.
pub(super) async fn hand_over(local: &Rc<LocalNode>, to: NodeId, call: u64, pid: Id, owner: Owner) {
    let taken = session_lookup::take(local, pid, &owner, Taker::OwnShardOrNode).await.map(|taken| taken.parked);
    let arrived =
        local.node.answer_peer(to, call, RpcResponse::Taken(taken.as_ref().map(|parked| parked.to_record()))).await;
    if let Some(parked) = taken.filter(|_| !arrived) {
        local.shard.park(pid, parked);
    }
}

/// Gives a connection to the node that its WebSocket came to. Its sessions stay here if the answer does not arrive there.
pub(super) async fn release(local: &Rc<LocalNode>, to: NodeId, call: u64, sid: Id) {
    // The packets that are being worked on are finished here first.
    for _ in 0..IDLE_LOOKS {
        if !local.shard.is_busy(sid) {
            break;
        }
        tokio::time::sleep(IDLE_LOOK).await;
    }
    let released = local.shard.release(sid);
    let moving = released.as_ref().map(|released| Box::new(moving(local, released)));
    let arrived = local.node.answer_peer(to, call, RpcResponse::Released(moving)).await;
    for (session, parked) in released.into_iter().flat_map(|released| released.sessions).filter(|_| !arrived) {
        if let Some(pid) = session.pid {
            local.shard.park(pid, parked);
        }
    }
}

fn moving(local: &LocalNode, released: &Released) -> Moving {
    let session = |(session, parked): &(Box<Session>, Parked)| MovingSession {
        pid: session.pid,
        namespace: local.context.namespaces.name(session.namespace).to_string(),
        record: parked.to_record(),
        claims: session.identity.claims.to_string(),
        expires: session.identity.expires(),
        auth: session.auth.as_deref().map(str::to_owned),
    };
    Moving {
        payload: released.payload.clone(),
        position: released.position.to_string(),
        token: released.token.as_deref().map(str::to_owned),
        sessions: released.sessions.iter().map(session).collect(),
    }
}
