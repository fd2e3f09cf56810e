//! How many sessions an order of the backend met, over all shards and nodes.

use crate::log::AppendError;
use crate::model::command::{Action, Selector, SessionCommand};
use crate::model::id::{Id, NodeId};
use crate::node::context::Node;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long nodes are waited for. The order itself is in the log, so that those that are slower carry it out too.
const WAIT: Duration = Duration::from_secs(2);

/// What is being counted.
#[derive(Default)]
pub struct CommandTracker {
    /// Shards of this node that have not carried out an order yet, and the sessions met so far.
    here: Mutex<HashMap<Id, Tally>>,
    /// Orders that came in on this node and wait for nodes.
    waiting: Mutex<HashMap<Id, Waiting>>,
}

struct Tally {
    shards_left: usize,
    sessions: usize,
}

struct Waiting {
    nodes: HashSet<NodeId>,
    met: usize,
    done: Option<oneshot::Sender<()>>,
}

/// What an order came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Sessions that it was carried out on.
    pub sessions: usize,
    /// Nodes that have not said how many in time.
    pub nodes_pending: usize,
}

impl CommandTracker {
    /// The tail brought an order, and all shards are about to be told.
    pub fn tail_saw(&self, order: &SessionCommand, shards: usize) {
        self.here.lock().insert(order.id, Tally { shards_left: shards, sessions: 0 });
    }

    /// A shard has carried out an order; answers the sessions of all shards once the last one has.
    pub fn shard_did(&self, id: Id, sessions: usize) -> Option<usize> {
        let mut here = self.here.lock();
        let tally = here.get_mut(&id)?;
        tally.sessions += sessions;
        tally.shards_left = tally.shards_left.saturating_sub(1);
        (tally.shards_left == 0).then(|| here.remove(&id).map(|tally| tally.sessions)).flatten()
    }

    /// A node has carried out an order.
    pub fn node_did(&self, id: Id, node: NodeId, sessions: usize) {
        let mut waiting = self.waiting.lock();
        let Some(entry) = waiting.get_mut(&id) else { return };
        if entry.nodes.remove(&node) {
            entry.met += sessions;
        }
        if entry.nodes.is_empty()
            && let Some(done) = entry.done.take()
        {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }
}

/// Gives an order and waits until all nodes have carried it out, or for as long as may be asked of the caller.
///
/// # Errors
/// When the log does not take it, or its answer is lost; an order that is given twice does no harm.
pub async fn submit(
    node: &Arc<Node>,
    selector: Selector,
    namespace: Option<u16>,
    act: Action,
) -> Result<Applied, AppendError> {
    let id = Id::random();
    let namespace = namespace.map(|index| node.namespaces[usize::from(index)].clone());
    let order = SessionCommand { id, from: node.id, selector, namespace, act };
    let (done, all_done) = oneshot::channel();
    let nodes = node.peers().await.into_iter().chain([node.id]).collect();
    node.orders.waiting.lock().insert(id, Waiting { nodes, met: 0, done: Some(done) });
    let entry = Entry { orders: &node.orders, id };
    node.log.order(Arc::new(order)).await?;
    // In vain where a node has died or hangs.
    let _ = tokio::time::timeout(WAIT, all_done).await;
    Ok(entry.met())
}

/// An order that is being waited for; forgotten when dropped, also where whoever asked hangs up.
struct Entry<'a> {
    orders: &'a CommandTracker,
    id: Id,
}

impl Entry<'_> {
    fn met(&self) -> Applied {
        let waiting = self.orders.waiting.lock();
        let entry = waiting.get(&self.id);
        entry.map_or(Applied { sessions: 0, nodes_pending: 0 }, |entry| Applied {
            sessions: entry.met,
            nodes_pending: entry.nodes.len(),
        })
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.orders.waiting.lock().remove(&self.id);
    }
}
