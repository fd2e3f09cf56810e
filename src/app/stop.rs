//! Stops a node in order: its clients go to other nodes, its sessions to Redis, its notices to the backend.

use crate::bridge::redis::EmitterBridge;
use crate::http::Api;
use crate::log::LogStatus;
use crate::node::context::Node;
use crate::shard::handle::ShardCommand;
use crate::shard::persist;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a stop waits for the backend to take the last notices.
const LAST_NOTICES: Duration = Duration::from_secs(5);

/// A stop does not wait for a Redis that has been away so long.
const LOG_AWAY: Duration = Duration::from_millis(500);

/// Reports "not ready", pauses, stops accepting, drains, and waits for the requests that are still being answered
/// (docs/deploy.md, "Stopping and starting a node"). Takes `shutdown.timeout` at most.
pub(super) async fn drain(api: &Arc<Api>, emitters: Option<&EmitterBridge>, stop_accepting: &watch::Sender<bool>) {
    let node = &api.node;
    let settings = api.settings().shutdown.clone();
    let drained = async {
        node.draining.store(true, Ordering::Relaxed);
        let pause = tokio::time::sleep(settings.pause);
        if let Some(emitters) = emitters {
            while_log_answers(node, emitters.leave()).await;
        }
        pause.await;
        stop_accepting.send_replace(true);
        crate::node::drain::drain(node, settings.drain).await;
        while_log_answers(node, hand_over(node)).await;
        api.traffic.wait_until_idle().await;
        if let Some(backend) = &node.backend {
            let is_away = backend.is_stream() && node.log.status() == LogStatus::Connecting;
            let unsent = backend.wait_until_notified(if is_away { LOG_AWAY } else { LAST_NOTICES }).await;
            if unsent > 0 {
                tracing::warn!(unsent, "the backend did not take all notices before the stop");
            }
        }
    };
    if tokio::time::timeout(settings.timeout, drained).await.is_err() {
        tracing::warn!(
            open = node.connection_limiter.taken(),
            "`shutdown.timeout` has passed; the remaining connections are cut"
        );
    }
}

/// Leaves the sessions and the presence of this node to the others.
async fn hand_over(node: &Node) {
    let Some(cluster) = &node.context.cluster else { return };
    // Clients that reconnect to another node find their sessions in Redis.
    node.on_every_shard(|local| persist::write_all(&local.shard)).await;
    if node.context.presence.leave().await {
        cluster.leave().await;
    }
}

/// Does something that needs the log's server, unless that has been away for [`LOG_AWAY`]: a stop does not wait for it.
async fn while_log_answers(node: &Node, work: impl Future<Output = ()>) {
    let away = async {
        let mut since = None;
        loop {
            match node.log.status() {
                LogStatus::Connecting if since.get_or_insert_with(Instant::now).elapsed() >= LOG_AWAY => return,
                LogStatus::Connecting => {}
                LogStatus::Ready | LogStatus::Embedded => since = None,
            }
            tokio::time::sleep(LOG_AWAY / 10).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = away => tracing::warn!("Redis is away: the other nodes find out by themselves that this one has gone"),
    }
}

/// Ends the threads of the shards, and waits for them.
pub(super) fn shards(node: &Node, threads: Vec<JoinHandle<()>>) {
    for shard in node.shards() {
        shard.tell(ShardCommand::Stop);
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("the thread of a shard panicked");
        }
    }
}
