//! The sans-IO parts that recovery stands on, run by chance on a virtual clock: nodes that lag, die and start, a log
//! that trims, fails over and forgets, clients whose connections break. One invariant: every client gets each event it
//! is entitled to once, in order, or is told.
//!
//! `SIM_SEEDS=100000` runs more, `SIM_SEED=7` runs one and shows what came before its failure.
#![allow(clippy::unwrap_used, clippy::expect_used)]

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

use std::env;
use world::{Rules, World};

const SEEDS: u64 = 3_000;
const STEPS: usize = 500;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The first seed among so many that breaks the invariant, and how.
fn first_failure(seeds: impl Iterator<Item = u64>, rules: Rules) -> Option<(u64, String)> {
    for seed in seeds {
        let mut world = World::new(seed, rules, false);
        world.run(STEPS);
        if world.oracle.verdict.is_some() {
            let mut world = World::new(seed, rules, true);
            world.run(STEPS);
            let verdict = world.oracle.verdict.clone().expect("the same seed does the same");
            return Some((seed, format!("{}{verdict}", world.trace())));
        }
    }
    None
}

#[test]
fn every_client_gets_each_event_once_in_order_or_is_told() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    if let Some((seed, story)) = first_failure(seeds, Rules::default()) {
        panic!("\n{story}\nSIM_SEED={seed} cargo test --test simulation");
    }
}
