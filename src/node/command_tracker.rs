//! How many sessions an order of the backend met, over all shards and nodes.

use crate::model::command::SessionCommand;
use crate::model::id::{Id, NodeId};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use tokio::sync::oneshot;

/// Counts the sessions that commands are carried out on.
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
    /// The tail has read a command, and passes it to all shards next.
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

impl CommandTracker {
    /// Starts to wait for these nodes. The receiver completes once all of them have carried the command out.
    pub fn wait_for(&self, id: Id, nodes: HashSet<NodeId>) -> (Pending<'_>, oneshot::Receiver<()>) {
        let (done, all_done) = oneshot::channel();
        self.waiting.lock().insert(id, Waiting { nodes, met: 0, done: Some(done) });
        (Pending { tracker: self, id }, all_done)
    }
}

/// A command that somebody waits for. It is forgotten when dropped, also when whoever asked hangs up.
pub struct Pending<'a> {
    tracker: &'a CommandTracker,
    id: Id,
}

impl Pending<'_> {
    /// What the nodes have reported so far.
    pub fn applied(&self) -> Applied {
        let waiting = self.tracker.waiting.lock();
        let entry = waiting.get(&self.id);
        entry.map_or(Applied { sessions: 0, nodes_pending: 0 }, |entry| Applied {
            sessions: entry.met,
            nodes_pending: entry.nodes.len(),
        })
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.tracker.waiting.lock().remove(&self.id);
    }
}
