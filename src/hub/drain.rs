//! Telling all clients to come back elsewhere, spread over the drain window, so that they do not all come at once.

use crate::close::CloseReason;
use crate::hub::node::Node;
use crate::hub::shard::Shard;
use rand::seq::SliceRandom as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two batches; also how often the end is looked for.
const STEP: Duration = Duration::from_millis(20);

/// Closes every connection in random order over `window`, and waits until all are gone.
pub async fn drain(node: &Arc<Node>, window: Duration) {
    for shard in node.shards() {
        shard.run(move |shard| drop(tokio::task::spawn_local(drain_shard(shard.clone(), window))));
    }
    loop {
        let open: usize = node.on_every_shard(|shard| shard.hub.borrow().connections.len()).await.into_iter().sum();
        if open == 0 {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

async fn drain_shard(shard: Rc<Shard>, window: Duration) {
    let mut keys: Vec<_> = shard.hub.borrow().connections.keys().collect();
    keys.shuffle(&mut rand::rng());
    let (begun, all) = (Instant::now(), keys.len());
    while !keys.is_empty() {
        let gone = begun.elapsed().as_secs_f64() / window.as_secs_f64().max(f64::MIN_POSITIVE);
        let due = ((all as f64 * gone.min(1.0)).ceil() as usize).max(1);
        let now = shard.now();
        while all - keys.len() < due
            && let Some(key) = keys.pop()
        {
            // Its outbox is flushed first; the close comes behind what was delivered.
            shard.hub.borrow_mut().close(key, CloseReason::Draining, now);
        }
        tokio::time::sleep(STEP).await;
    }
    // Those that got in while the listener was closing.
    let late: Vec<_> = shard.hub.borrow().connections.keys().collect();
    let now = shard.now();
    late.into_iter().for_each(|key| shard.hub.borrow_mut().close(key, CloseReason::Draining, now));
}
