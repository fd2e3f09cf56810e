//! Closing all connections, before a stop or because an operator asked for it, spread over a window, so that the clients do
//! not all reconnect at once.

use crate::log::LogStatus;
use crate::model::close::CloseReason;
use crate::node::context::Node;
use crate::shard::face::Shard;
use rand::seq::SliceRandom as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The pause between two batches, and between two checks for the end.
const STEP: Duration = Duration::from_millis(20);

/// How long after the window the log is waited for while it is not connected.
const LOG_AWAY: Duration = Duration::from_millis(500);

/// Between two looks for connections that came late, after an operator's drain.
const LATE: Duration = Duration::from_secs(1);

/// Begins a drain: reports "not ready", pauses, then refuses new clients and closes the others over a window. Does nothing
/// but answer `false` if one was begun before.
pub fn begin(node: &Arc<Node>, pause: Duration, over: Duration) -> bool {
    let connections = node.connection_limiter.taken();
    if !node.operator_drain.begin(over, connections) {
        return false;
    }
    tracing::info!(?over, connections, "draining, as an operator asked");
    node.draining.store(true, Ordering::Relaxed);
    let node = node.clone();
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        node.operator_drain.refuse_clients();
        drain(&node, over).await;
        node.operator_drain.finish();
        tracing::info!("drained; the node can be stopped");
        // Clients that were on their way in when the refusing began.
        loop {
            tokio::time::sleep(LATE).await;
            node.on_every_shard(|local| left(&local.shard, true)).await;
        }
    });
    true
}

/// Closes every connection in random order over `window`. Waits until all are gone and the events of their `disconnect` rules
/// are in the log.
pub async fn drain(node: &Arc<Node>, window: Duration) {
    for shard in node.shards() {
        shard.run(move |local| drop(tokio::task::spawn_local(drain_shard(local.shard.clone(), window))));
    }
    let begun = Instant::now();
    loop {
        let over = begun.elapsed() >= window;
        let left: usize = node.on_every_shard(move |local| left(&local.shard, over)).await.into_iter().sum();
        // What `disconnect` rules say cannot be appended to a log that is away.
        let is_over = over && begun.elapsed() >= window + LOG_AWAY && node.log.status() == LogStatus::Connecting;
        if left == 0 || is_over {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// What is left to do on a shard. Once the window is `over`, connections that came late are closed here.
fn left(shard: &Rc<Shard>, over: bool) -> usize {
    if over {
        shard.connections().into_iter().for_each(|key| shard.close(key, CloseReason::Draining));
    }
    shard.left_to_drain()
}

async fn drain_shard(shard: Rc<Shard>, window: Duration) {
    let mut keys = shard.connections();
    keys.shuffle(&mut rand::rng());
    let (begun, all) = (Instant::now(), keys.len());
    while !keys.is_empty() {
        let gone = begun.elapsed().as_secs_f64() / window.as_secs_f64().max(f64::MIN_POSITIVE);
        let due = ((all as f64 * gone.min(1.0)).ceil() as usize).max(1);
        while all - keys.len() < due
            && let Some(key) = keys.pop()
        {
            // The close is queued behind what was delivered before.
            shard.close(key, CloseReason::Draining);
        }
        tokio::time::sleep(STEP).await;
    }
}
