//! `/socket/ping`: a probe that goes through the log, its tail and every shard.

use crate::model::id::Id;
use crate::node::context::Node;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Probes on their way.
#[derive(Default)]
pub struct Probes {
    waiting: Mutex<HashMap<Id, Waiting>>,
    last: LastAnswer,
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
        self.waiting.lock().insert(id, Waiting { tail_seen: false, shards_left: shards, done: Some(done) });
        receiver
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

/// How long an answer is good: whoever asks more often is told the same, at no cost to the log.
const FRESH: Duration = Duration::from_millis(100);

/// The last answer, and its lock: one probe at a time is on its way.
type LastAnswer = tokio::sync::Mutex<Option<(Instant, Result<Duration, Stage>)>>;

/// Sends a probe and waits for it; answers how long it took.
///
/// # Errors
/// The stage that failed within `timeout`.
pub async fn round_trip(node: &Node, timeout: Duration) -> Result<Duration, Stage> {
    let mut last = node.probes.last.lock().await;
    if let Some((at, answer)) = &*last
        && at.elapsed() < FRESH
    {
        return answer.clone();
    }
    let answer = send(node, timeout).await;
    *last = Some((Instant::now(), answer.clone()));
    answer
}

async fn send(node: &Node, timeout: Duration) -> Result<Duration, Stage> {
    let (id, begun) = (Id::random(), Instant::now());
    let done = node.probes.start(id, node.shards().len());
    let entry = Entry { probes: &node.probes, id };
    match tokio::time::timeout(timeout, node.log.probe(id)).await {
        Err(_) => return Err(Stage::Log("no answer in time".into())),
        Ok(Err(error)) => return Err(Stage::Log(error.to_string())),
        Ok(Ok(())) => {}
    }
    match tokio::time::timeout(timeout.saturating_sub(begun.elapsed()), done).await {
        Ok(Ok(())) => Ok(begun.elapsed()),
        _ => Err(entry.stage()),
    }
}

/// A waiting probe; forgotten when dropped, also where whoever asked hangs up.
struct Entry<'a> {
    probes: &'a Probes,
    id: Id,
}

impl Entry<'_> {
    /// Where it has got stuck.
    fn stage(&self) -> Stage {
        match self.probes.waiting.lock().get(&self.id) {
            Some(waiting) if waiting.tail_seen => Stage::Shards(waiting.shards_left),
            _ => Stage::Tail,
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.probes.waiting.lock().remove(&self.id);
    }
}
