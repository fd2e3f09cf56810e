//! What operators see of the whole cluster: all nodes are asked at once, and one that does not answer in time is said so.

use crate::cluster::{
    NodeStatus, RoomCount, RoomsQuery, RpcError, RpcRequest, RpcResponse, SessionPlace, SessionView, SessionsQuery,
};
use crate::model::id::{Id, NodeId};
use crate::node::context::{LocalNode, Node};
use crate::node::status;
use crate::shard::handle::ShardHandle;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How long another node is waited for.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why nothing more is known of a node that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It did not answer in time.
    Unreachable,
    /// It is of a release that does not know the question.
    OlderRelease,
}

impl Silence {
    /// Its name as a node's status.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::OlderRelease => "older_release",
        }
    }
}

/// Asks all other live nodes. Those that are gone meanwhile are left out.
async fn ask_all(node: &Node, request: RpcRequest) -> Vec<(NodeId, Result<RpcResponse, Silence>)> {
    ask_all_within(PEER_TIMEOUT, node, request).await
}

/// The same, where each is waited for no longer than this.
pub(super) async fn ask_all_within(
    timeout: Duration,
    node: &Node,
    request: RpcRequest,
) -> Vec<(NodeId, Result<RpcResponse, Silence>)> {
    ask(timeout, node, |_| Some(request.clone())).await
}

/// Asks other live nodes, each its own question, if it has one.
async fn ask(
    timeout: Duration,
    node: &Node,
    request: impl Fn(NodeId) -> Option<RpcRequest>,
) -> Vec<(NodeId, Result<RpcResponse, Silence>)> {
    let Some(cluster) = &node.cluster else { return Vec::new() };
    let mut asked = JoinSet::new();
    // While Redis does not answer, those of the last heartbeat are asked, so that the answer says that they are silent.
    let peers = tokio::time::timeout(timeout / 2, cluster.peers_now()).await;
    for peer in peers.unwrap_or_else(|_| cluster.peers()) {
        let (cluster, Some(request)) = (cluster.clone(), request(peer)) else { continue };
        asked.spawn(async move {
            // Its own timeout begins once Redis has taken the request.
            let answer = tokio::time::timeout(timeout, cluster.request(peer, request, timeout)).await;
            (peer, answer.unwrap_or(Err(RpcError::Timeout)))
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((_, Err(RpcError::Gone))) | Err(_) => {}
            Ok((peer, Err(RpcError::Unsupported))) => answers.push((peer, Err(Silence::OlderRelease))),
            Ok((peer, answer)) => answers.push((peer, answer.map_err(|_| Silence::Unreachable))),
        }
    }
    answers
}

/// All nodes that are up, in order of their names.
pub async fn nodes(node: &Arc<Node>) -> Vec<(NodeId, Result<NodeStatus, Silence>)> {
    let (own, others) = tokio::join!(status::of(node), ask_all(node, RpcRequest::NodeStatus));
    let mut nodes = vec![(node.id, Ok(own))];
    nodes.extend(others.into_iter().map(|(peer, answer)| match answer {
        Ok(RpcResponse::NodeStatus(status)) => (peer, Ok(*status)),
        Ok(_) => (peer, Err(Silence::Unreachable)),
        Err(silence) => (peer, Err(silence)),
    }));
    nodes.sort_unstable_by_key(|(node, _)| *node);
    nodes
}

/// A part of a list.
pub struct Page<T> {
    /// In order.
    pub items: Vec<T>,
    /// Whether there are more behind them.
    pub has_more: bool,
    /// Nodes that are up and did not answer.
    pub nodes_pending: usize,
}

/// Rooms over all nodes, in order of name and namespace.
pub async fn rooms(node: &Arc<Node>, query: &RoomsQuery) -> Page<RoomCount> {
    // One more shows whether there are more.
    let query = RoomsQuery { limit: query.limit + 1, ..query.clone() };
    let (own, others) = tokio::join!(rooms_here(node, query.clone()), ask_all(node, RpcRequest::Rooms(query.clone())));
    let mut nodes_pending = 0;
    let mut all = own;
    for (_, answer) in others {
        match answer {
            Ok(RpcResponse::Rooms(rooms)) => all.extend(rooms),
            _ => nodes_pending += 1,
        }
    }
    let mut items = summed(all);
    let has_more = items.len() >= query.limit;
    items.truncate(query.limit - 1);
    Page { items, has_more, nodes_pending }
}

/// Each room once. The first `n` of all parts hold all there is of the first `n`.
fn summed(parts: Vec<RoomCount>) -> Vec<RoomCount> {
    let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
    for RoomCount { room, namespace, connections } in parts {
        *sums.entry((room, namespace)).or_default() += connections;
    }
    let counts = sums.into_iter();
    counts.map(|((room, namespace), connections)| RoomCount { room, namespace, connections }).collect()
}

/// Rooms with members on this node.
pub async fn rooms_here(node: &Node, query: RoomsQuery) -> Vec<RoomCount> {
    let limit = query.limit;
    let parts = on_every_shard(node, move |local| {
        let query = query.clone();
        async move { local.shard.rooms_after(&query).await }
    });
    let mut rooms = summed(parts.await.into_iter().flatten().collect());
    rooms.truncate(limit);
    rooms
}

/// Sessions over all nodes, in order of node and place, behind this one.
pub async fn sessions(
    node: &Arc<Node>,
    query: &SessionsQuery,
    after: Option<(NodeId, SessionPlace)>,
) -> Page<(NodeId, SessionView)> {
    let limit = query.limit;
    let query_of = |of: NodeId| match after {
        Some((last, _)) if of < last => None,
        Some((last, place)) if of == last => {
            Some(SessionsQuery { after: Some(place), limit: limit + 1, ..query.clone() })
        }
        _ => Some(SessionsQuery { after: None, limit: limit + 1, ..query.clone() }),
    };
    let own = async {
        match query_of(node.id) {
            Some(query) => sessions_here(node, query).await,
            None => Vec::new(),
        }
    };
    let (own, others) = tokio::join!(own, ask(PEER_TIMEOUT, node, |peer| query_of(peer).map(RpcRequest::Sessions)));
    let mut items: Vec<_> = own.into_iter().map(|view| (node.id, view)).collect();
    let mut nodes_pending = 0;
    for (peer, answer) in others {
        match answer {
            Ok(RpcResponse::Sessions(views)) => items.extend(views.into_iter().map(|view| (peer, view))),
            _ => nodes_pending += 1,
        }
    }
    items.sort_unstable_by_key(|(node, view)| (*node, view.place));
    let has_more = items.len() > limit;
    items.truncate(limit);
    Page { items, has_more, nodes_pending }
}

/// The first sessions of each node, at most so many of each; `None` for a node that is up and did not answer.
pub async fn sample(node: &Arc<Node>, limit: usize) -> Vec<(NodeId, Option<Page<SessionView>>)> {
    let query = SessionsQuery { limit: limit + 1, ..SessionsQuery::default() };
    let page = |mut items: Vec<SessionView>| {
        let has_more = items.len() > limit;
        items.truncate(limit);
        Page { items, has_more, nodes_pending: 0 }
    };
    let (own, others) = tokio::join!(sessions_here(node, query.clone()), ask_all(node, RpcRequest::Sessions(query)));
    let others = others.into_iter().map(|(peer, answer)| match answer {
        Ok(RpcResponse::Sessions(views)) => (peer, Some(page(views))),
        _ => (peer, None),
    });
    others.chain([(node.id, Some(page(own)))]).collect()
}

/// Sessions of this node.
pub async fn sessions_here(node: &Node, query: SessionsQuery) -> Vec<SessionView> {
    let limit = query.limit;
    let parts = on_every_shard(node, move |local| {
        let query = query.clone();
        async move {
            let index = local.shard.index;
            match query.after {
                Some(after) if index < after.shard => Vec::new(),
                Some(after) if index == after.shard => local.shard.sessions_after(&query, Some(after.key)).await,
                _ => local.shard.sessions_after(&query, None).await,
            }
        }
    });
    let mut views: Vec<SessionView> = parts.await.into_iter().flatten().collect();
    views.sort_unstable_by_key(|view| view.place);
    views.truncate(limit);
    views
}

/// A live session on whatever node, and how many nodes did not answer.
pub async fn session(node: &Arc<Node>, id: Id) -> (Option<SessionView>, usize) {
    if let Some(view) = session_here(node, id).await {
        return (Some(view), 0);
    }
    let mut nodes_pending = 0;
    for (_, answer) in ask_all(node, RpcRequest::Session(id)).await {
        match answer {
            Ok(RpcResponse::Sessions(views)) => {
                if let Some(view) = views.into_iter().next() {
                    return (Some(view), 0);
                }
            }
            _ => nodes_pending += 1,
        }
    }
    (None, nodes_pending)
}

/// A live session of this node.
pub async fn session_here(node: &Node, id: Id) -> Option<SessionView> {
    node.on_every_shard(move |local| local.shard.session_view(id)).await.into_iter().flatten().next()
}

/// Runs work of some length on every shard.
pub(super) async fn on_every_shard<T: Send + 'static, F: Future<Output = T> + 'static>(
    node: &Node,
    work: impl Fn(Rc<LocalNode>) -> F + Send + Clone + 'static,
) -> Vec<T> {
    let begin = |shard: &ShardHandle<LocalNode>| {
        let (reply, done) = oneshot::channel();
        let work = work.clone();
        shard.run(move |local| {
            let work = work(local.clone());
            drop(tokio::task::spawn_local(async move {
                // The caller may be gone.
                let _ = reply.send(work.await);
            }));
        });
        done
    };
    let begun: Vec<_> = node.shards().iter().map(begin).collect();
    let mut answers = Vec::with_capacity(begun.len());
    for answer in begun {
        answers.extend(answer.await);
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_of_several_nodes_is_listed_once() {
        let count = |room: &str, namespace: &str, connections| RoomCount {
            room: room.into(),
            namespace: namespace.into(),
            connections,
        };
        let parts = vec![count("b", "/", 2), count("a", "/x", 1), count("a", "/", 1), count("b", "/", 3)];
        assert_eq!(summed(parts), [count("a", "/", 1), count("a", "/x", 1), count("b", "/", 5)]);
    }
}
