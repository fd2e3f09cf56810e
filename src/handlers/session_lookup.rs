//! Where the session of a client that comes back is: on this shard, another shard, another node, or in its record.

use crate::cluster::{Found, Owner, RpcError, RpcRequest, RpcResponse};
use crate::handlers::session_start::Newcomer;
use crate::model::id::Id;
use crate::node::context::LocalNode;
use crate::session::parked::Parked;
use crate::session::recovery::NotRecovered;
use crate::shard::persist;
use crate::shard::release::{Taken, Taker};
use std::rc::Rc;
use std::time::Duration;

/// How long the node that has a session is waited for.
const TAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a session may be found to have just moved.
const MAX_MOVES: usize = 3;

/// The session, on this node or another.
///
/// # Errors
/// [`NotRecovered::Unreachable`], where another node may have it that cannot be asked.
pub(super) async fn find(local: &Rc<LocalNode>, newcomer: &Newcomer, pid: Id) -> Result<Option<Parked>, NotRecovered> {
    let owner = &owner(local, newcomer);
    let taken = take(local, pid, owner, Taker::OtherShard).await;
    local.shard.inherit_record(pid, taken.as_ref().map_or(0, |taken| taken.parts));
    match taken {
        Some(Taken { parked, stale: false, .. }) => Ok(Some(parked)),
        // It belongs to another epoch of the log, so it cannot be resumed, wherever it was since.
        Some(Taken { parked, .. }) if parked.start.control().epoch != local.shard.position().control().epoch => {
            Ok(Some(parked))
        }
        // This node was away. If another one had the session since, that copy is right.
        Some(Taken { parked, stale: true, .. }) => match take_elsewhere(local, newcomer, pid, owner).await {
            Ok(other) => {
                local.shard.confirm(pid);
                Ok(Some(other.filter(|other| other.moves > parked.moves).unwrap_or(parked)))
            }
            Err(unreachable) => {
                local.shard.park(pid, parked);
                Err(unreachable)
            }
        },
        None => take_elsewhere(local, newcomer, pid, owner).await,
    }
}

/// Who resumes.
pub(super) fn owner(local: &LocalNode, newcomer: &Newcomer) -> Owner {
    let user = newcomer.identity.user.as_ref().map(|user| user.as_json());
    Owner::new(local.context.namespaces.name(newcomer.namespace), user.as_deref())
}

/// The session parked, or still live on a half-open connection, on whichever shard of this node it is. `taker` is where
/// it continues if another shard has it.
pub async fn take(local: &Rc<LocalNode>, pid: Id, owner: &Owner, taker: Taker) -> Option<Taken> {
    if let Some(taken) = local.shard.take_session(pid, owner, Taker::OwnShardOrNode) {
        return Some(taken);
    }
    let home = usize::from(pid.shard());
    let others = local.node.shards().iter().enumerate();
    let mut order: Vec<_> = others.filter(|(index, _)| *index != usize::from(local.shard.index)).collect();
    order.sort_by_key(|(index, _)| *index != home);
    for (_, other) in order {
        let owner = owner.clone();
        let taken = other.ask(move |local| local.shard.take_session(pid, &owner, taker)).await.flatten();
        if taken.is_some() {
            return taken;
        }
    }
    None
}

/// The session from another node: handed over by the node that has it, or read from its record if that node is gone.
async fn take_elsewhere(
    local: &Rc<LocalNode>,
    newcomer: &Newcomer,
    pid: Id,
    owner: &Owner,
) -> Result<Option<Parked>, NotRecovered> {
    let Some(cluster) = &local.node.cluster else { return Ok(None) };
    let read = |record: &str| Parked::from_record(record, newcomer.namespace);
    let mut found = cluster.find(owner, pid).await.ok_or(NotRecovered::Unreachable)?;
    if found == Found::Nowhere && !cluster.is_genuine(pid) {
        // Nobody made this pid, or it is of the previous release. The other nodes are not troubled with it.
        return Ok(None);
    }
    if found == Found::Nowhere {
        return Ok(ask_all(local, pid, owner).await?.and_then(|record| read(&record)));
    }
    for _ in 0..MAX_MOVES {
        let node = match found {
            Found::Nowhere => return Ok(None),
            Found::RetryLater => return Err(NotRecovered::Unreachable),
            Found::Taken(record) => return Ok(read(&record)),
            Found::OnNode(node) => node,
        };
        match cluster.request(node, RpcRequest::Take(pid, owner.as_str().to_owned()), TAKE_TIMEOUT).await {
            Ok(RpcResponse::Taken(Some(record))) => return Ok(read(&record)),
            // It has just moved (and its record moves in a moment), or it has ended.
            Ok(_) => tokio::time::sleep(persist::GATHER * 2).await,
            Err(RpcError::Offline | RpcError::Busy) => return Err(NotRecovered::Unreachable),
            // The node died or hangs, so its record is the best there is.
            Err(_) => cluster.suspect(node),
        }
        found = cluster.find(owner, pid).await.ok_or(NotRecovered::Unreachable)?;
    }
    Ok(None)
}

/// Asks all nodes for a session without a record: it is too young to have one, or has just moved, or does not exist.
async fn ask_all(local: &LocalNode, pid: Id, owner: &Owner) -> Result<Option<String>, NotRecovered> {
    let Some(cluster) = &local.node.cluster else { return Ok(None) };
    let mut peers = cluster.peers_now().await;
    // First the node that made the pid.
    peers.sort_by_key(|node| *node != pid.node());
    for node in peers {
        let question = RpcRequest::Take(pid, owner.as_str().to_owned());
        match cluster.request(node, question, TAKE_TIMEOUT).await {
            Ok(RpcResponse::Taken(Some(record))) => return Ok(Some(record)),
            Err(RpcError::Offline | RpcError::Busy) => return Err(NotRecovered::Unreachable),
            _ => {}
        }
    }
    Ok(None)
}
