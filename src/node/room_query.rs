//! Who is in a room now. For rooms with presence the presence store knows, and counts users within the grace as present. For
//! other rooms all nodes are asked.

use crate::cluster::{RpcError, RpcRequest, RpcResponse};
use crate::model::namespaces::NamespaceIndex;
use crate::node::context::Node;
use crate::presence::{RoomStatus, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long another node is waited for.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// An error: the members of this node alone would be a wrong answer.
const UNKNOWN_PEERS: &str = "it is not known which other nodes are up; try again";

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The members; users in order of their text.
    pub status: RoomStatus,
    /// Nodes that did not answer in time.
    pub nodes_pending: usize,
}

/// The members over the whole cluster.
///
/// # Errors
/// When the presence store or the other nodes cannot be asked.
pub async fn of(node: &Arc<Node>, namespace: NamespaceIndex, room: &str) -> Result<Members, StoreError> {
    let name = node.context.namespaces.name(namespace).clone();
    if node.context.settings().rules.has_presence(room) {
        let mut status = node.presence.room(&name, room).await?;
        status.users.sort_unstable();
        return Ok(Members { status, nodes_pending: 0 });
    }
    let mut asked = JoinSet::new();
    let peers = match &node.cluster {
        Some(cluster) => cluster.known_peers().await.ok_or_else(|| StoreError(UNKNOWN_PEERS.to_owned()))?,
        None => Vec::new(),
    };
    for peer in peers {
        let question = RpcRequest::Members(name.to_string(), room.to_owned());
        let node = node.clone();
        asked.spawn(async move {
            match &node.cluster {
                Some(cluster) => cluster.request(peer, question, PEER_TIMEOUT).await,
                None => Err(RpcError::Gone),
            }
        });
    }
    let mut status = here(node, namespace, room).await;
    let mut users: BTreeSet<String> = std::mem::take(&mut status.users).into_iter().collect();
    let mut nodes_pending = 0;
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(RpcResponse::Members(connections, others))) => {
                status.connections += connections;
                users.extend(others);
            }
            Ok(Err(RpcError::Gone)) => {}
            Ok(Err(RpcError::Offline)) => return Err(StoreError(RpcError::Offline.to_string())),
            _ => nodes_pending += 1,
        }
    }
    status.users = users.into_iter().collect();
    Ok(Members { status, nodes_pending })
}

/// The members on this node.
pub async fn here(node: &Node, namespace: NamespaceIndex, room: &str) -> RoomStatus {
    let room = room.to_owned();
    let parts = node.on_every_shard(move |local| local.shard.room_status(namespace, &room)).await;
    let mut status = RoomStatus::default();
    let mut users = BTreeSet::new();
    for part in parts {
        status.connections += part.connections;
        users.extend(part.users);
    }
    status.users = users.into_iter().collect();
    status
}
