//! Keeps the node within `limits.memory`: looks at what the process has, and closes the largest holders when that is too much.
//! New work is refused by whoever takes it in ([`crate::budget::MemoryBudget::is_tight`]).

use crate::budget::relief::{Holder, MIN_HOLDING, Relief, closable, largest};
use crate::budget::{Holding, MemoryBudget, machine};
use crate::model::close::CloseReason;
use crate::node::context::{LocalNode, Node};
use crate::session::connection::ConnectionKey;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Between two looks. A node on two cores takes in some 50 MB meanwhile, if all of it is kept.
const LOOK: Duration = Duration::from_millis(100);
/// Looks until the system is asked again while less than half of the limit is in use.
const SELDOM: u32 = 10;
/// Looks between two of what is done every second: [`crate::budget::Accounts::sweep`], and refusals without a line.
const SWEEP: u32 = 10;
/// Looks between two warnings that nothing is left to close.
const WARN: u32 = 100;
/// Looks after holders were closed in which the sums alone say what is in use: the allocator keeps freed memory for a second.
/// Also those after there was nothing to close, until it is tried again.
const SETTLE: u32 = 15;
/// An allocation that the allocator gives a page of its own.
const OWN_PAGE: usize = 8 << 20;
/// Connections closed at once, before others on their shard get their turn.
const CLOSED_AT_ONCE: usize = 64;

/// A shard's number, and a connection on it.
type Place = (usize, ConnectionKey);

/// Watches as long as the node runs.
pub async fn watch(node: Arc<Node>) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (context, memory) = (&node.context, &node.context.memory);
    let (mut looks, mut settle, mut futile, mut warned) = (0_u32, 0_u32, 0_u32, 0_u32);
    let mut of_window = 0;
    let mut relief = Relief::default();
    loop {
        interval.tick().await;
        looks = looks.wrapping_add(1);
        [&mut settle, &mut futile, &mut warned].into_iter().for_each(|left| *left = left.saturating_sub(1));
        if looks.is_multiple_of(SWEEP) {
            context.accounts.sweep(context.now());
            context.refusals.say_withheld();
            let metrics = &context.metrics.recovery;
            metrics.window_rooms.set(i64::try_from(node.window.interest().rooms()).unwrap_or(i64::MAX));
            metrics.window_events.set(i64::try_from(node.window.len()).unwrap_or(i64::MAX));
        }
        let window = node.window.bytes();
        memory.adjust(Holding::Window, std::mem::replace(&mut of_window, window), window);
        if settle > 0 || memory.is_tight() {
            give_back();
        }
        let is_due = memory.used() >= memory.limit() / 2 || looks.is_multiple_of(SELDOM);
        if settle == 0
            && is_due
            && let Some(resident) = machine::resident()
        {
            memory.observe(resident);
        }
        if !relief.is_due(memory.level(), settle == 0) || futile > 0 {
            continue;
        }
        settle = SETTLE;
        let closed = relieve(&node, memory).await;
        if closed > 0 {
            tracing::warn!(closed, "limits.memory is reached: the largest holders are closed");
            continue;
        }
        futile = SETTLE;
        if warned == 0 {
            warned = WARN;
            let (used, limit) = (memory.used(), memory.limit());
            tracing::warn!(used, limit, "limits.memory is exceeded, and no connection holds much of it");
        }
    }
}

/// The allocator returns pages that were freed a second ago to the system only when another page is freed. A node that has
/// become quiet would seem full for good.
fn give_back() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(OWN_PAGE)));
}

/// Closes the largest holders, and drops the oldest of the sessions that wait to be resumed, each in proportion to what they
/// hold together. How many connections were closed.
async fn relieve(node: &Arc<Node>, memory: &MemoryBudget) -> usize {
    let of_shards = node.on_every_shard(|local| local.shard.holders(MIN_HOLDING)).await;
    let holders: Vec<Holder<Place>> = (0..)
        .zip(of_shards)
        .flat_map(|(shard, holders)| {
            holders.into_iter().map(move |Holder { owner, key, bytes }| Holder { owner, key: (shard, key), bytes })
        })
        .collect();
    let excess = memory.excess();
    let holders = closable(holders, excess);
    let held = holders.iter().map(|holder| holder.bytes).sum::<usize>();
    let parked = memory.held(Holding::Parked);
    let of_parked = (excess as f64 * (parked as f64 / (parked + held).max(1) as f64)) as usize;
    let chosen = largest(holders, excess.saturating_sub(of_parked));
    let closed = chosen.len();
    let mut by_shard: HashMap<usize, Vec<ConnectionKey>> = HashMap::new();
    for (shard, key) in chosen {
        by_shard.entry(shard).or_default().push(key);
    }
    let share = of_parked.div_ceil(node.shards().len().max(1));
    let mut closings = Vec::new();
    for (index, shard) in node.shards().iter().enumerate() {
        let keys = by_shard.remove(&index).unwrap_or_default();
        let (done, closing) = oneshot::channel::<()>();
        closings.push(closing);
        shard.run(move |local| {
            let local = local.clone();
            drop(tokio::task::spawn_local(async move {
                close(&local, keys, share).await;
                drop(done);
            }));
        });
    }
    // What is still to be closed must not be looked for again.
    for closing in closings {
        let _ = closing.await;
    }
    closed
}

async fn close(local: &LocalNode, keys: Vec<ConnectionKey>, parked: usize) {
    local.shard.drop_parked(parked);
    for keys in keys.chunks(CLOSED_AT_ONCE) {
        keys.iter().for_each(|key| local.shard.close(*key, CloseReason::Memory));
        tokio::task::yield_now().await;
    }
}
