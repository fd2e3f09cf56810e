//! On how many sessions a command of the backend was carried out, over all shards and nodes.

use crate::model::command::SessionCommand;
use crate::model::id::{Id, NodeId};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use tokio::sync::oneshot;

/// Counts the sessions that commands are carried out on.
#[derive(Default)]
pub struct CommandTracker {
    /// Commands that the tail has read and that not all shards of this node have carried out yet.
    here: Mutex<HashMap<Id, Tally>>,
    /// Commands that came in on this node and wait for other nodes.
    pending: Mutex<HashMap<Id, PendingCommand>>,
}

struct Tally {
    shards_left: usize,
    sessions: usize,
}

struct PendingCommand {
    nodes: HashSet<NodeId>,
    sessions: usize,
    done: Option<oneshot::Sender<()>>,
}

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Sessions that it was carried out on.
    pub sessions: usize,
    /// Nodes that did not answer in time.
    pub nodes_pending: usize,
}

impl CommandTracker {
    /// The tail has read a command, and passes it to all shards next.
    pub fn begin(&self, command: &SessionCommand, shards: usize) {
        self.here.lock().insert(command.id, Tally { shards_left: shards, sessions: 0 });
    }

    /// A shard has carried out a command. Answers the sessions of all shards once the last one has.
    pub fn shard_applied(&self, id: Id, sessions: usize) -> Option<usize> {
        let mut here = self.here.lock();
        let tally = here.get_mut(&id)?;
        tally.sessions += sessions;
        tally.shards_left = tally.shards_left.saturating_sub(1);
        (tally.shards_left == 0).then(|| here.remove(&id).map(|tally| tally.sessions)).flatten()
    }

    /// A node has carried out a command.
    pub fn node_applied(&self, id: Id, node: NodeId, sessions: usize) {
        let mut pending = self.pending.lock();
        let Some(entry) = pending.get_mut(&id) else { return };
        if entry.nodes.remove(&node) {
            entry.sessions += sessions;
        }
        if entry.nodes.is_empty()
            && let Some(done) = entry.done.take()
        {
            // The caller may have hung up.
            let _ = done.send(());
        }
    }

    /// Starts to wait for these nodes. The receiver completes once all of them have carried the command out.
    pub fn wait_for(&self, id: Id, nodes: HashSet<NodeId>) -> (Pending<'_>, oneshot::Receiver<()>) {
        let (done, all_done) = oneshot::channel();
        self.pending.lock().insert(id, PendingCommand { nodes, sessions: 0, done: Some(done) });
        (Pending { tracker: self, id }, all_done)
    }
}

/// A command that somebody waits for. It is forgotten when dropped, also when the caller hangs up.
pub struct Pending<'a> {
    tracker: &'a CommandTracker,
    id: Id,
}

impl Pending<'_> {
    /// What the nodes have reported so far.
    pub fn applied(&self) -> Applied {
        let pending = self.tracker.pending.lock();
        let entry = pending.get(&self.id);
        entry.map_or(Applied { sessions: 0, nodes_pending: 0 }, |entry| Applied {
            sessions: entry.sessions,
            nodes_pending: entry.nodes.len(),
        })
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.tracker.pending.lock().remove(&self.id);
    }
}
