//! Keeps the node within `limits.memory`: looks at what the process has, and closes the largest holders when that is too much.
//! New work is refused by whoever takes it in ([`crate::budget::MemoryBudget::is_tight`]).

use crate::budget::relief::{Holder, MIN_HOLDING, largest};
use crate::budget::{Holding, Level, MemoryBudget, machine};
use crate::model::close::CloseReason;
use crate::node::context::{LocalNode, Node};
use crate::session::connection::ConnectionKey;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks. A node on two cores takes in some 50 MB meanwhile, if all of it is kept.
const LOOK: Duration = Duration::from_millis(100);
/// Looks after holders were closed until more are: the allocator gives memory back a little later.
const SETTLE: u32 = 5;
/// Looks between two of [`crate::budget::Accounts::sweep`].
const SWEEP: u32 = 10;
/// Looks between two warnings that nothing is left to close.
const WARN: u32 = 100;
/// Connections closed at once, before others on their shard get their turn.
const CLOSED_AT_ONCE: usize = 64;

/// A shard's number, and a connection on it.
type Place = (usize, ConnectionKey);

/// Watches as long as the node runs.
pub async fn watch(node: Arc<Node>) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut looks, mut settle, mut warned) = (0_u32, 0_u32, 0_u32);
    let mut of_window = 0;
    loop {
        interval.tick().await;
        looks = looks.wrapping_add(1);
        let context = &node.context;
        if looks.is_multiple_of(SWEEP) {
            context.accounts.sweep(context.now());
        }
        let window = node.window.write().bytes();
        context.memory.adjust(Holding::Window, std::mem::replace(&mut of_window, window), window);
        if let Some(resident) = machine::resident() {
            context.memory.observe(resident);
        }
        settle = settle.saturating_sub(1);
        warned = warned.saturating_sub(1);
        if settle == 0 && context.memory.level() == Level::Over {
            let closed = relieve(&node, &context.memory).await;
            settle = SETTLE;
            if closed == 0 && warned == 0 {
                warned = WARN;
                let (used, limit) = (context.memory.used(), context.memory.limit());
                tracing::warn!(used, limit, "limits.memory is exceeded, and no connection holds much of it");
            }
        }
    }
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
    let (excess, held) = (memory.excess(), holders.iter().map(|holder| holder.bytes).sum::<usize>());
    let parked = memory.held(Holding::Parked);
    let of_parked = (excess as f64 * (parked as f64 / (parked + held).max(1) as f64)) as usize;
    let chosen = largest(holders, excess.saturating_sub(of_parked));
    let closed = chosen.len();
    let mut by_shard: HashMap<usize, Vec<ConnectionKey>> = HashMap::new();
    for (shard, key) in chosen {
        by_shard.entry(shard).or_default().push(key);
    }
    let share = of_parked.div_ceil(node.shards().len().max(1));
    for (index, shard) in node.shards().iter().enumerate() {
        let keys = by_shard.remove(&index).unwrap_or_default();
        shard.run(move |local| drop(tokio::task::spawn_local(close(local.clone(), keys, share))));
    }
    tracing::warn!(closed, excess, "limits.memory is reached: the largest holders are closed");
    closed
}

async fn close(local: Rc<LocalNode>, keys: Vec<ConnectionKey>, parked: usize) {
    local.shard.drop_parked(parked);
    for keys in keys.chunks(CLOSED_AT_ONCE) {
        keys.iter().for_each(|key| local.shard.close(*key, CloseReason::Memory));
        tokio::task::yield_now().await;
    }
}
