//! Commands of the backend to sessions, over all nodes.

use crate::log::AppendError;
use crate::model::command::{Action, Selector, SessionCommand};
use crate::model::id::Id;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::Position;
use crate::model::partition::Line;
use crate::node::command_tracker::Applied;
use crate::node::context::Node;
use std::sync::Arc;
use std::time::Duration;

/// How long the nodes are waited for. The command is in the log, so slower nodes carry it out too.
const WAIT: Duration = Duration::from_secs(2);

/// Where this node is in the partitions of the rooms that a command names.
fn positions(node: &Node, act: &Action) -> Vec<(Line, Position)> {
    let lines = node.window.partitions().of_all(act.rooms()).filter(|line| *line != Line::CONTROL);
    lines.map(|line| (line, node.window.head_of(line).position)).collect()
}

/// Appends a command to the log and waits until all nodes have carried it out, at most for two seconds.
///
/// # Errors
/// When the log does not take it, or its answer is lost. It does no harm to submit a command twice.
pub async fn submit(
    node: &Arc<Node>,
    selector: Selector,
    namespace: Option<NamespaceIndex>,
    act: Action,
) -> Result<Applied, AppendError> {
    let id = Id::random();
    let namespace = namespace.map(|index| node.context.namespaces.name(index).clone());
    let at = positions(node, &act);
    let command = SessionCommand { id, from: node.id, selector, namespace, action: act, at };
    let nodes = node.peers().await.into_iter().chain([node.id]).collect();
    let (pending, all_done) = node.command_tracker.wait_for(id, nodes);
    node.log.append_command(Arc::new(command)).await?;
    // The timeout passes if a node has died or hangs.
    let _ = tokio::time::timeout(WAIT, all_done).await;
    Ok(pending.applied())
}
