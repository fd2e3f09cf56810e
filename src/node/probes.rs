//! The probes of `/socket/ping` that are on their way, and the last answer.

use crate::model::id::Id;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Probes on their way.
#[derive(Default)]
pub struct Probes {
    waiting: Mutex<HashMap<Id, Waiting>>,
    /// Also keeps all but one probe from being on their way.
    pub last: LastAnswer,
}

struct Waiting {
    tail_seen: bool,
    shards_left: usize,
    done: Option<oneshot::Sender<()>>,
}

/// Where a probe was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The log did not take it; its own words.
    Log(String),
    /// The tail did not bring it.
    Tail,
    /// So many shards did not see it.
    Shards(usize),
}

impl Probes {
    /// Starts waiting for a probe; the receiver completes when all `shards` have seen it.
    pub fn start(&self, id: Id, shards: usize) -> (PendingProbe<'_>, oneshot::Receiver<()>) {
        let (done, receiver) = oneshot::channel();
        self.waiting.lock().insert(id, Waiting { tail_seen: false, shards_left: shards, done: Some(done) });
        (PendingProbe { probes: self, id }, receiver)
    }

    /// The tail brought it; `false` if it is another node's or nobody waits any more.
    pub fn tail_saw(&self, id: Id) -> bool {
        self.waiting.lock().get_mut(&id).map(|waiting| waiting.tail_seen = true).is_some()
    }

    /// One shard has seen it.
    pub fn shard_saw(&self, id: Id) {
        if let Some(waiting) = self.waiting.lock().get_mut(&id) {
            waiting.shards_left = waiting.shards_left.saturating_sub(1);
            if waiting.shards_left == 0
                && let Some(done) = waiting.done.take()
            {
                // The asker may have given up; then nobody needs to know.
                let _ = done.send(());
            }
        }
    }
}

/// The last answer, and its lock: one probe at a time is on its way.
type LastAnswer = tokio::sync::Mutex<Option<(Instant, Result<Duration, Stage>)>>;

/// A waiting probe; forgotten when dropped, also where whoever asked hangs up.
pub struct PendingProbe<'a> {
    probes: &'a Probes,
    id: Id,
}

impl PendingProbe<'_> {
    /// Where it has got stuck.
    pub fn stage(&self) -> Stage {
        match self.probes.waiting.lock().get(&self.id) {
            Some(waiting) if waiting.tail_seen => Stage::Shards(waiting.shards_left),
            _ => Stage::Tail,
        }
    }
}

impl Drop for PendingProbe<'_> {
    fn drop(&mut self) {
        self.probes.waiting.lock().remove(&self.id);
    }
}
