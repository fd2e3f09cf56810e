//! Reads the log again for sessions that come back to rooms whose events this node did not keep: one pass over a line for all
//! that wait for it. A storm of reconnects reads each a few times, however many clients come.

use crate::log::backfill::{Needs, PastRange};
use crate::log::interest::lines::Interests;
use crate::log::window::RecentLog;
use crate::model::names::{Namespace, Room};
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::Offset;
use crate::model::partition::Line;
use crate::model::place::Place;
use crate::node::context::{LocalNode, Node};
use crate::session::recovery::Asked;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sessions that come within this time share the first pass.
const GATHER: Duration = Duration::from_millis(5);
/// Passes for one session: what the first one finds may put the session into other rooms.
const MAX_PASSES: usize = 3;
/// How long a shard may take to come to where a pass has read.
const MAX_BEHIND: Duration = Duration::from_secs(5);

/// Runs the passes over a line, one after the other, as long as the node runs.
pub async fn run(node: Arc<Node>, line: Line) {
    let Some(queue) = node.backfill.get(line.index()) else { return };
    let window = &node.window;
    let bounds = node.context.recovery.bounds(window.partitions());
    loop {
        queue.arrival().await;
        tokio::time::sleep(GATHER).await;
        while let Some((number, needed)) = queue.begin() {
            let head = Offset { line, ..window.head_of(line) };
            let range = needed.range(window.interest().of(line), head, bounds);
            let has_read = match range {
                Some(range) => pass(&node, PastRange { budget: Some(node.pass_budget.clone()), ..range }).await,
                // Another pass has brought it.
                None => true,
            };
            queue.finish(number, has_read);
        }
    }
}

/// One pass.
async fn pass(node: &Node, range: PastRange) -> bool {
    let begun = Instant::now();
    let (line, after, rooms) = (range.line, range.after, range.rooms.values().map(HashMap::len).sum::<usize>());
    let read = node.log.read_past(range, node.context.recovery.backfill_timeout).await;
    let metrics = &node.context.metrics.recovery;
    metrics.backfill_took(begun.elapsed());
    match read {
        Ok(past) => {
            metrics.backfill(if past.after <= after { "complete" } else { "partial" }, past.entries);
            tracing::debug!(%line, rooms, entries = past.entries, events = past.events.len(), "the log was read again");
            node.window.fill(past, node.context.elapsed_ms());
            true
        }
        Err(error) => {
            metrics.backfill("unavailable", 0);
            tracing::warn!(%error, %line, rooms, "clients that come back cannot get what they missed");
            false
        }
    }
}

/// Makes sure that the window has what a session asks for, as far as the log still has it, and that the session gets live what
/// comes after it. `ask` finds out what that is; it is called again after each pass.
pub async fn fetch(local: &LocalNode, namespace: NamespaceIndex, ask: impl Fn(&Place) -> Asked) {
    let (window, node) = (&local.context.window, &local.node);
    if window.interest().is_everything() {
        return;
    }
    let mut touched = 0;
    let mut known = BTreeMap::new();
    for _ in 0..=MAX_PASSES {
        let Asked { rooms, missing } = ask(&local.shard.position());
        let is_new = rooms.len() > touched;
        touched = rooms.len();
        touch(window.interest(), namespace, &rooms);
        if missing.is_empty() || missing == known {
            if is_new && missing.is_empty() {
                // What was covered may have been passed over before it was wanted.
                continue;
            }
            break;
        }
        if !read(node, local.context.namespaces.name(namespace), &missing).await {
            break;
        }
        known = missing;
    }
    pass_filled(local).await;
}

/// Waits, for a bounded time, until the shard has come to where passes have read on each line, also those that ended since
/// [`fetch`]: a session that begins before that would miss what came to the window meanwhile.
pub async fn pass_filled(local: &LocalNode) {
    let window = &local.context.window;
    if window.interest().is_everything() {
        return;
    }
    let passed = async {
        loop {
            let mut place = local.shard.position();
            let filled = |here: &Offset| Offset { position: window.filled_up_to(here.line), ..*here };
            let is_behind = |here: &Offset| {
                here.epoch == window.head_of(here.line).epoch && here.position < window.filled_up_to(here.line)
            };
            let ahead: Vec<Offset> = place.offsets().filter(is_behind).map(|here| filled(&here)).collect();
            if ahead.is_empty() {
                return;
            }
            ahead.into_iter().for_each(|offset| place.set(offset));
            local.shard.come_to(&place, MAX_BEHIND).await;
        }
    };
    // What was read is on its way to the shard. Where that takes too long, the session cannot be proven.
    let _ = tokio::time::timeout(MAX_BEHIND, passed).await;
}

/// Waits for a pass over each of these lines, which run side by side. Whether all could be read.
async fn read(node: &Node, namespace: &Namespace, missing: &BTreeMap<Line, Needs>) -> bool {
    let queue = |line: Line| node.backfill.get(line.index());
    let asked = missing.iter().filter_map(|(line, needs)| Some((queue(*line)?, needs)));
    let asked: Vec<_> = asked.map(|(queue, needs)| (queue, queue.ask(namespace, needs))).collect();
    let mut has_read = true;
    for (queue, number) in asked {
        has_read &= queue.read(number).await;
    }
    has_read
}

fn touch(interest: &Interests, namespace: NamespaceIndex, rooms: &[Room]) {
    rooms.iter().for_each(|room| interest.touch(namespace, room));
}
