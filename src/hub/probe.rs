//! `/socket/ping`: a probe that goes through the log, its tail and every shard.

use crate::id::Id;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Probes on their way.
#[derive(Default)]
pub struct Probes {
    waiting: Mutex<HashMap<Id, Waiting>>,
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
    /// Starts waiting for a probe; the receiver is told when all `shards` have seen it.
    fn start(&self, id: Id, shards: usize) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        self.lock().insert(id, Waiting { tail_seen: false, shards_left: shards, done: Some(done) });
        receiver
    }

    /// The tail brought it; `false` if it is another node's or nobody waits any more.
    pub fn tail_saw(&self, id: Id) -> bool {
        self.lock().get_mut(&id).map(|waiting| waiting.tail_seen = true).is_some()
    }

    /// One shard has seen it.
    pub fn shard_saw(&self, id: Id) {
        if let Some(waiting) = self.lock().get_mut(&id) {
            waiting.shards_left = waiting.shards_left.saturating_sub(1);
            if waiting.shards_left == 0
                && let Some(done) = waiting.done.take()
            {
                // The asker may have given up; then nobody needs to know.
                let _ = done.send(());
            }
        }
    }

    fn finish(&self, id: Id) -> Option<Waiting> {
        self.lock().remove(&id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a probe and waits for it.
///
/// # Errors
/// The stage that failed within `timeout`.
pub async fn round_trip(node: &super::node::Node, timeout: Duration) -> Result<Duration, Stage> {
    let (id, begun) = (Id::random(), Instant::now());
    let done = node.probes.start(id, node.shards().len());
    let appended = tokio::time::timeout(timeout, node.log.probe(id)).await;
    let outcome = match appended {
        Err(_) => Err(Stage::Log("no answer in time".into())),
        Ok(Err(error)) => Err(Stage::Log(error.to_string())),
        Ok(Ok(())) => match tokio::time::timeout(timeout.saturating_sub(begun.elapsed()), done).await {
            Ok(Ok(())) => Ok(begun.elapsed()),
            _ => Err(Stage::Tail),
        },
    };
    let waiting = node.probes.finish(id);
    match (outcome, waiting) {
        (Err(Stage::Tail), Some(waiting)) if waiting.tail_seen => Err(Stage::Shards(waiting.shards_left)),
        (outcome, _) => outcome,
    }
}
