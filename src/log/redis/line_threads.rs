//! The threads of the lines of a log with several: lines are shared out over as many threads as there are cores, each with
//! a runtime of its own. The tail and the connections of a line are on its thread, but
//! for those by which shards append ([`crate::log::redis::shard_append`]).

use crate::log::redis::RedisLog;
use crate::log::{EventLog as _, Sink};
use std::sync::Arc;
use std::thread;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// Runs the lines until dropped. Completes if a thread ends or cannot be started, which is the end of the node.
pub(super) async fn run(logs: &[Arc<RedisLog>], sink: Arc<dyn Sink>) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(logs.len()).max(1);
    // Dropped with this future, which ends the threads.
    let (running, _) = watch::channel(());
    let mut ends = Vec::new();
    for thread in 0..threads {
        let own: Vec<_> = logs.iter().skip(thread).step_by(threads).cloned().collect();
        match start(thread, own, sink.clone(), running.subscribe()) {
            Ok(end) => ends.push(end),
            Err(error) => return tracing::error!(%error, "a thread of the log could not be started"),
        }
    }
    let mut ends: JoinSet<_> = ends.into_iter().collect();
    ends.join_next().await;
}

/// Starts a thread; the receiver completes when it ends.
fn start(
    number: usize,
    logs: Vec<Arc<RedisLog>>,
    sink: Arc<dyn Sink>,
    mut running: watch::Receiver<()>,
) -> std::io::Result<oneshot::Receiver<()>> {
    let (end, ended) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name(format!("log-{number}")).spawn(move || {
        runtime.block_on(async {
            let mut lines: JoinSet<()> = logs.into_iter().map(|log| log.run(sink.clone())).collect();
            tokio::select! {
                _ = lines.join_next() => {}
                // An error: nobody sends.
                _ = running.changed() => {}
            }
        });
        drop(end);
    })?;
    Ok(ended)
}
