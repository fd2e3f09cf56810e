//! The sans-IO parts that recovery stands on, run by chance on a virtual clock: nodes that lag, die and start, a log
//! that trims, fails over and forgets, clients whose connections break. One invariant: every client gets each event it
//! is entitled to once, in order, or is told.
//!
//! `SIM_SEEDS=100000` runs more, `SIM_SEED=7` runs one and shows what came before its failure. `SIM_LETTERS=100` loses
//! so many of a thousand letters between nodes.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/node.rs"]
mod node;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/wire.rs"]
mod wire;
#[path = "simulation/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, thread};
use world::{Rules, World};

const SEEDS: u64 = 2_000;
const STEPS: usize = 500;
/// A rule that is left out must be missed within so many seeds.
const CAUGHT_WITHIN: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// How the seed breaks the invariant, if it does.
fn failure(seed: u64, rules: Rules) -> Option<String> {
    let run = |traced| {
        let mut world = World::new(seed, rules, traced);
        world.run(STEPS);
        world
    };
    run(false).oracle.verdict?;
    let again = run(true);
    let verdict = again.oracle.verdict.clone().expect("the same seed does the same");
    Some(format!("{}{verdict}\nSIM_SEED={seed} cargo test --test simulation every", again.trace()))
}

/// The first seed that breaks the invariant; every core takes some of them.
fn first_failure(seeds: Range<u64>, rules: Rules) -> Option<(u64, String)> {
    let (next, best) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let found = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end.min(best.load(Ordering::Relaxed)) {
                return;
            }
            if let Some(story) = failure(seed, rules) {
                best.fetch_min(seed, Ordering::Relaxed);
                found.lock().unwrap().insert(seed, story);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap().pop_first()
}

#[test]
fn every_client_gets_each_event_once_in_order_or_is_told() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    if let Some((_, story)) =
        first_failure(seeds, Rules { letters_lost: number("SIM_LETTERS").unwrap_or(0) as u32, ..Rules::default() })
    {
        panic!("\n{story}");
    }
}

#[test]
fn also_where_lagging_replicas_take_the_place_of_the_store() {
    if let Some((_, story)) = first_failure(0..SEEDS / 2, Rules { failovers: 30, ..Rules::default() }) {
        panic!("\n{story}");
    }
}

/// The oracle is worth something: each of these rules is there for a reason, and left out it is missed.
#[test]
fn a_rule_that_is_left_out_is_missed() {
    let right = Rules::default();
    for (name, rules) in [
        ("the window's floor", Rules { ignore_floor: true, ..right }),
        ("an offset ahead of the node", Rules { ignore_future: true, ..right }),
        (
            "where a session stood when the log began anew",
            Rules { park_after_begin: true, trimmed_short: true, ..right },
        ),
        (
            "a join is answered once it is in the record",
            Rules { answer_before_record: true, records_late: 900, ..right },
        ),
        ("records that an old replica has are not taken", Rules { trust_old_records: true, failovers: 30, ..right }),
        ("what came before the CONNECT reply is forgotten with its connection", Rules { stock_buffer: true, ..right }),
    ] {
        let (seed, story) = first_failure(0..CAUGHT_WITHIN, rules).unwrap_or_else(|| panic!("nobody misses: {name}"));
        println!("{name}: seed {seed}, {}", story.lines().rev().nth(1).unwrap_or_default());
    }
}
