//! Revoking tokens, over all nodes. The log carries a revocation to the running nodes, in order with the events; Redis keeps it
//! for those that start later. A node lets nobody in before it has read what is kept.

use crate::auth::revocations::{Revocation, Revoked};
use crate::cluster::{Cluster, Kept};
use crate::log::AppendError;
use crate::model::clock::unix_ms;
use crate::model::close::CloseReason;
use crate::node::command_tracker::Applied;
use crate::node::commands::submit;
use crate::node::context::Node;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Before what is kept is read again after a failure.
const AGAIN: Duration = Duration::from_millis(200);
/// How often a node that knows revocations looks whether Redis still has as many.
const LOOK: Duration = Duration::from_secs(2);

/// Why tokens were not revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// `auth.max_revocations` is reached.
    #[error("{0} users and tokens are revoked, which is what `auth.max_revocations` allows")]
    TooMany(usize),
    /// Redis did not keep it, or the log did not take it. It does no harm to repeat it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Refuses tokens for some time, and ends their sessions. The answer comes with the next second: tokens say in whole seconds
/// when they were issued, and one that is issued after the answer must not count as older.
///
/// # Errors
/// When it cannot be kept, or not passed on. Then it may be in force on some nodes, until it is repeated on all.
pub async fn revoke(node: &Arc<Node>, who: Revoked, lasts: Duration) -> Result<(Applied, u64), RevokeError> {
    let now_ms = unix_ms();
    let until_ms = now_ms.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
    let before_ms = (now_ms / 1000 + 1) * 1000;
    let revocation = Revocation { who, before_ms, until_ms };
    let revocations = node.auth.revocations();
    let max = revocations.max();
    let has_room = match &node.cluster {
        // Before the log has it: a node that starts meanwhile finds it in one or the other.
        Some(cluster) => {
            cluster.keep_revocation(&revocation, now_ms, max).await.map_err(|error| {
                // Reading repairs what is kept.
                node.revocations_read.read_again();
                AppendError::Unavailable(error)
            })? != Kept::Full
        }
        None => revocations.has_room(&revocation.who, now_ms),
    };
    if !has_room {
        return Err(RevokeError::TooMany(max));
    }
    let (selector, action) = revocation.into_command();
    let applied = submit(node, selector, None, action).await?;
    tokio::time::sleep(Duration::from_millis(before_ms.saturating_sub(unix_ms()).min(1000))).await;
    Ok((applied, until_ms))
}

/// Reads what is kept, at the start, whenever the log starts anew, and when something of it is gone, until dropped.
pub async fn run(node: Arc<Node>) {
    let Some(cluster) = node.cluster.clone() else { return std::future::pending().await };
    loop {
        match cluster.kept_revocations().await {
            Ok(kept) => {
                let now_ms = unix_ms();
                let new = kept.iter().filter(|kept| node.auth.revocations().add(kept, now_ms)).count();
                if new > 0 {
                    end_sessions(&node);
                }
                node.revocations_read.done();
                write_back(&node, &kept).await;
                tokio::select! {
                    () = node.revocations_read.wanted_again() => {}
                    () = some_are_lost(&node, &cluster) => {}
                }
            }
            Err(error) => {
                tracing::debug!(error, "the revoked tokens cannot be read yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Those that come by the log end sessions at their place in it. Some were missed.
fn end_sessions(node: &Node) {
    for shard in node.shards() {
        shard.run(|local| {
            let (revocations, now_ms) = (local.node.auth.revocations(), unix_ms());
            local.shard.end_sessions_of(CloseReason::Revoked, |identity| revocations.refuse(identity, now_ms));
        });
    }
}

/// Completes when Redis has fewer revocations than this node knows: somebody has removed some.
async fn some_are_lost(node: &Node, cluster: &Cluster) {
    loop {
        tokio::time::sleep(LOOK).await;
        let own = node.auth.revocations().expire(unix_ms());
        if own == 0 {
            continue;
        }
        match cluster.count_revocations().await {
            Ok(kept) if kept >= own => {}
            Ok(_) => return,
            Err(error) if error.contains("WRONGTYPE") => return,
            Err(error) => tracing::debug!(error, "the revoked tokens cannot be counted"),
        }
    }
}

/// Keeps again what Redis has lost, and tells nodes that have started in the meantime.
async fn write_back(node: &Arc<Node>, kept: &[Revocation]) {
    let Some(cluster) = &node.cluster else { return };
    let (revocations, now_ms) = (node.auth.revocations(), unix_ms());
    let kept: HashMap<&Revoked, u64> = kept.iter().map(|kept| (&kept.who, kept.until_ms)).collect();
    let lost = revocations
        .all()
        .into_iter()
        .filter(|own| own.until_ms > now_ms && kept.get(&own.who).is_none_or(|until_ms| *until_ms < own.until_ms));
    for revocation in lost {
        let kept = match cluster.keep_revocation(&revocation, now_ms, revocations.max()).await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(error, "a lost revocation cannot be kept again; nodes that start do not know it");
                return;
            }
        };
        // Another node may have been faster.
        if kept == Kept::New {
            let (selector, action) = revocation.into_command();
            if let Err(error) = submit(node, selector, None, action).await {
                tracing::warn!(%error, "a lost revocation is kept again, but nodes that have just started may not know it");
            }
        }
    }
}
