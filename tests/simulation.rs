//! The sans-IO parts of recovery, run at random on a virtual clock: nodes that lag, die and start, a log that is trimmed,
//! fails over and loses entries, clients whose connections break. One invariant: every client gets each event that it is
//! entitled to once and in order, or is notified of a gap.
//!
//! `SIM_SEEDS=100000` runs more seeds, `SIM_SEED=7` runs one and prints the steps before its failure.
//! `SIM_RULE=floor` leaves out only the rules with this word in their names.
//! `SIM_RATE=2000` counts how many of so many seeds show each broken rule.
//! `SIM_MESSAGES_LOST=100` loses 100 of 1000 messages between nodes.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/habits.rs"]
mod habits;
#[path = "simulation/judged.rs"]
mod judged;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/node.rs"]
mod node;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/publisher.rs"]
mod publisher;
#[path = "simulation/records.rs"]
mod records;
#[path = "simulation/resume.rs"]
mod resume;
#[path = "simulation/rules.rs"]
mod rules;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/shard.rs"]
mod shard;
#[path = "simulation/wire.rs"]
mod wire;
#[path = "simulation/world.rs"]
mod world;

use habits::Act;
use rules::Rules;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, thread};
use world::World;

const SEEDS: u64 = 2_000;
const STEPS: usize = 500;
/// The oracle must notice a broken rule within this many seeds. All take fewer than a thousand; `SIM_RATE` tells how likely each
/// is, which says more than the first seed.
const CAUGHT_WITHIN: u64 = 5_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The violation of the invariant with this seed, if any.
fn failure(seed: u64, rules: Rules) -> Option<String> {
    let run = |traced| {
        let mut world = World::new(seed, rules, traced);
        // With several lines to read it takes longer until clients are where they can miss something.
        world.run(if rules.partitions { 2 * STEPS } else { STEPS });
        world
    };
    run(false).oracle.verdict?;
    let again = run(true);
    let verdict = again.oracle.verdict.clone().expect("the same seed does the same");
    Some(format!("{}{verdict}\nSIM_SEED={seed} cargo test --test simulation every", again.trace()))
}

/// Runs these seeds with all cores, until one is `over`.
fn run_all(seeds: Range<u64>, rules: Rules, over: impl Fn(u64, String) -> bool + Sync) {
    let (next, end) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end.load(Ordering::Relaxed) {
                return;
            }
            if failure(seed, rules).is_some_and(|story| over(seed, story)) {
                end.fetch_min(seed, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}

/// The first seed that violates the invariant.
fn first_failure(seeds: Range<u64>, rules: Rules) -> Option<(u64, String)> {
    let found = Mutex::new(BTreeMap::new());
    run_all(seeds, rules, |seed, story| found.lock().unwrap().insert(seed, story).is_none());
    found.into_inner().unwrap().pop_first()
}

/// How many seeds violate it.
fn count_failures(seeds: Range<u64>, rules: Rules) -> u64 {
    let count = AtomicU64::new(0);
    run_all(seeds, rules, |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        false
    });
    count.into_inner()
}

#[test]
fn every_client_gets_each_event_once_in_order_or_is_notified_of_a_gap() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    if let Some((_, story)) = first_failure(
        seeds,
        Rules { messages_lost: number("SIM_MESSAGES_LOST").unwrap_or(0) as u32, ..Rules::default() },
    ) {
        panic!("\n{story}");
    }
}

/// Each line of the log lags, fails and is reset by itself.
#[test]
fn the_invariant_holds_over_partitions() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    if let Some((_, story)) = first_failure(seeds, Rules { partitions: true, ..Rules::default() }) {
        panic!("\n{story}");
    }
}

#[test]
fn the_invariant_holds_when_lagging_replicas_of_the_store_are_promoted() {
    if let Some((_, story)) = first_failure(0..SEEDS / 2, Rules { failovers: 30, ..Rules::default() }) {
        panic!("\n{story}");
    }
}

/// The oracle notices each of these broken rules, so each is there for a reason.
#[test]
fn the_oracle_notices_every_broken_rule() {
    let right = Rules::default();
    let lines = Rules { partitions: true, ..right };
    for (name, rules) in [
        ("the window's floor", Rules { ignore_floor: true, ..right }),
        ("an offset ahead of the node", Rules { ignore_future: true, ..right }),
        (
            "the position of a session when the log starts anew",
            Rules { park_after_reset: true, trimmed_short: true, ..right },
        ),
        (
            "a join is answered when its record is written",
            Rules { answer_before_record: true, records_late: 600, ..right },
        ),
        (
            "records of an old replica are not used",
            Rules {
                trust_old_records: true,
                fails_together: true,
                failovers: 8,
                often: Some(Act::WriteRecords),
                ..right
            },
        ),
        ("live events wait for the cursor", Rules { live_overtakes: true, ..right }),
        ("a session that is behind is parked as such", Rules { parks_ahead: true, long_replays: true, ..right }),
        ("rooms of a join command are wanted from its position on", Rules { foresees_nothing: true, ..right }),
        ("a session joins behind what was left out of the room", Rules { joins_early: true, ..right }),
        (
            "a session goes live behind what was read again",
            Rules { lives_early: true, often: Some(Act::Tail), ..right },
        ),
        ("a pass over the log that breaks off is not complete", Rules { trusts_partial: true, ..right }),
        ("what a pass over the log has read is kept", Rules { fills_blindly: true, ..right }),
        (
            "who leaves a room gets nothing more of it",
            Rules { leaves_softly: true, long_replays: true, calm: true, often: Some(Act::Publish), ..right },
        ),
        ("packets before the CONNECT reply are dropped with their connection", Rules { stock_buffer: true, ..right }),
        ("a change is noted on the line of its room", Rules { changes_on_control_only: true, ..lines }),
        ("a place names all lines of the session", Rules { places_of_one_line: true, ..lines }),
        ("sessions on a line are notified that it lost entries", Rules { tells_nobody_of_partitions: true, ..lines }),
        (
            "commands say where they were issued",
            Rules { commands_from_nowhere: true, often: Some(Act::Command), long_replays: true, ..lines },
        ),
        ("a line that a session has left is still named", Rules { forgets_left_lines: true, calm: true, ..lines }),
        (
            "a line begins behind what its history comes after",
            Rules { begins_early: true, calm: true, often: Some(Act::NodeFate), ..lines },
        ),
        ("a tail waits for what an entry comes after", Rules { tails_never_wait: true, ..lines }),
        ("a replay waits for what an event comes after", Rules { replays_never_wait: true, ..lines }),
        ("what is far apart is replayed as it was accepted", Rules { replays_have_no_clock: true, ..lines }),
        ("the offset of a publish says where other lines were before it", Rules { late_answers: true, ..lines }),
        ("rooms that an event excepts are on its line", Rules { excepts_anywhere: true, ..lines }),
    ] {
        if env::var("SIM_RULE").is_ok_and(|word| !name.contains(&word)) {
            continue;
        }
        if let Some(seeds) = number("SIM_RATE") {
            println!("{name}: {} of {seeds} seeds", count_failures(0..seeds, rules));
            continue;
        }
        let (seed, story) =
            first_failure(0..CAUGHT_WITHIN, rules).unwrap_or_else(|| panic!("the oracle does not notice: {name}"));
        println!("{name}: seed {seed}, {}", story.lines().rev().nth(1).unwrap_or_default());
    }
}
