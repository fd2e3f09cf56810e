//! This node's part of a trace that another node serves.

use crate::cluster::{TraceBatch, TraceQuery};
use crate::feed::Batch;
use crate::model::id::NodeId;
use crate::node::context::Node;
use std::sync::Arc;
use std::time::Duration;

/// How long a node that is asked waits for something to happen.
const POLL: Duration = Duration::from_secs(1);
/// What comes so soon after goes with it.
const GATHER: Duration = Duration::from_millis(50);
/// A node stops to follow when it was not asked for so long.
const LEASE: Duration = Duration::from_secs(15);

/// Answers another node what happened on this one since it was last asked for the same trace.
pub async fn answer(node: &Arc<Node>, from: NodeId, query: TraceQuery) -> TraceBatch {
    let key = (from, query.trace);
    let known = node.traces.take(key);
    let began = known.is_none();
    let opened = known.map_or_else(|| node.traces.open(&node.context.feed, &query), Ok);
    let Ok(mut trace) = opened else { return TraceBatch { is_full: true, ..TraceBatch::default() } };
    if began && !node.traces.begin(key) {
        return TraceBatch::default();
    }
    let mut batch = Batch::default();
    if !began && let Ok(next) = tokio::time::timeout(POLL, trace.next()).await {
        batch = next;
        tokio::time::sleep(GATHER).await;
        let more = trace.take();
        batch.happenings.extend(more.happenings);
        batch.skipped += more.skipped;
    }
    if let Some(asked) = node.traces.keep(key, trace) {
        let node = node.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LEASE).await;
            node.traces.expire(key, asked);
        });
    }
    let Batch { happenings, skipped } = batch;
    TraceBatch { began, is_full: false, happenings, skipped }
}
