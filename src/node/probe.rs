//! `/socket/ping`: a probe that goes through the log, its tail and every shard.

use crate::model::id::Id;
use crate::node::context::Node;
use crate::node::probes::Stage;
use std::time::{Duration, Instant};

/// How long an answer is reused, so that frequent requests cost the log nothing.
const FRESH: Duration = Duration::from_millis(100);

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
    let (pending, done) = node.probes.start(id, node.tails_seen_ms.len(), node.shards().len());
    match tokio::time::timeout(timeout, node.log.probe(id)).await {
        Err(_) => return Err(Stage::Log("no answer in time".into())),
        Ok(Err(error)) => return Err(Stage::Log(error.to_string())),
        Ok(Ok(())) => {}
    }
    match tokio::time::timeout(timeout.saturating_sub(begun.elapsed()), done).await {
        Ok(Ok(())) => Ok(begun.elapsed()),
        _ => Err(pending.stage()),
    }
}
