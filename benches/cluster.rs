//! What the log costs a node and a Redis master for each event: N nodes and K partitions on a real Redis Cluster of M
//! masters, with nodes that have clients in all, a quarter or a twentieth of the rooms. Events are written by pipelined
//! `XADD`s, as many at once as the nodes can follow. CPU time, not wall time: everything shares this machine.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::cluster::{Cluster, Writer};
use common::process::Server;
use common::report::{Table, grouped, median, nanos_each};
use common::swarm::{Protocol, Swarm};
use common::{json_string, setting, token};
use std::time::Duration;

const ROOMS: usize = 100;
const PAYLOAD: usize = 128;
/// Events that are written before the nodes have those of the round before: well below what an outbox takes.
const ROUND: usize = 2_000;
const MOST: Duration = Duration::from_secs(120);
/// Room for a client that gets all rooms.
const SETTINGS: &str = "[socketio]\nping_interval = \"1h\"\n[limits]\noutbox_bytes = \"100MB\"\n";

/// One row of the table.
#[derive(Clone, Copy)]
struct Setup {
    masters: usize,
    nodes: usize,
    partitions: usize,
    /// Percent of the rooms in which each node has a client.
    interest: usize,
}

/// CPU microseconds for each event.
struct Cost {
    /// Of one node, on average.
    node: f64,
    /// Of the thread that has the most to do, of all nodes.
    thread: f64,
    /// Of the busiest master, and of all masters together.
    busiest: f64,
    masters: f64,
}

fn main() {
    if common::was_child() || !common::is_bench() {
        return;
    }
    let (repeats, events) = (setting("REPEATS", 1), setting("EVENTS", 60_000));
    let heads =
        ["masters", "nodes", "K", "interest %", "µs/event a node", "busiest thread", "busiest master", "all masters"];
    let mut table = Table::new(&heads);
    for setup in setups() {
        let runs: Vec<Cost> = (0..repeats).map(|_| run(setup, events)).collect();
        let of = |number: &dyn Fn(&Cost) -> f64| format!("{:.2}", median(runs.iter().map(number).collect()));
        table.row(&[
            setup.masters.to_string(),
            setup.nodes.to_string(),
            setup.partitions.to_string(),
            setup.interest.to_string(),
            of(&|cost| cost.node),
            of(&|cost| cost.thread),
            of(&|cost| cost.busiest),
            of(&|cost| cost.masters),
        ]);
    }
    table.print(&format!(
        "cluster: {} events of {PAYLOAD} B to {ROOMS} rooms, median of {repeats}",
        grouped(events as f64)
    ));
    println!(
        "the ceiling: 1,000,000 / (µs of the busiest thread) events/s on a node with as many cores as threads, and the same for the masters"
    );
}

/// Some combinations, or those that the environment names. All that are of interest are `MASTERS=3,6 NODES=1,2,4,8
/// PARTITIONS=1,4,16 INTEREST=100,25,5`, in many minutes.
fn setups() -> Vec<Setup> {
    let list = |name: &str, default: &str| -> Vec<usize> {
        let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
        text.split(',').map(|number| number.trim().parse().unwrap_or_else(|_| panic!("{name}: numbers"))).collect()
    };
    let mut setups = Vec::new();
    for &masters in &list("MASTERS", "3") {
        for &nodes in &list("NODES", "1,4") {
            for &partitions in &list("PARTITIONS", "1,4") {
                for &interest in &list("INTEREST", "100,5") {
                    setups.push(Setup { masters, nodes, partitions, interest });
                }
            }
        }
    }
    setups
}

fn run(setup: Setup, events: usize) -> Cost {
    let Setup { masters, nodes, partitions, interest } = setup;
    let cluster = Cluster::start(masters);
    // A release without partitions refuses the key.
    let partitioned = if partitions > 1 { format!("partitions = {partitions}\n") } else { String::new() };
    let servers: Vec<Server> =
        (0..nodes).map(|_| Server::start_at(Some(&cluster.url()), &partitioned, SETTINGS)).collect();
    let mut swarms: Vec<Swarm> = servers
        .iter()
        .enumerate()
        .map(|(node, server)| {
            let mut swarm = Swarm::new();
            let rooms: Vec<String> = (0..ROOMS * interest / 100).map(|at| room(node + at)).collect();
            let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
            swarm.connect(server.address, Protocol::SocketIo, 1, vec![token::sign(node, &rooms)]);
            swarm
        })
        .collect();
    let mut writer = Writer::new(&cluster, partitions);
    let mut rounds = |rounds: usize| {
        for _ in 0..rounds {
            writer.write((0..ROUND).map(|at| (room(at), json_string(PAYLOAD))));
            for swarm in &mut swarms {
                swarm.receive(swarm.received() + ROUND * interest / 100, MOST, |_, _| {});
            }
        }
    };
    rounds(2);
    let before: Vec<_> = servers.iter().map(Server::threads).collect();
    let masters_before = cluster.cpus();
    let count = events.div_ceil(ROUND);
    rounds(count);
    let events = count * ROUND;
    let threads = servers.iter().zip(before).flat_map(|(server, before)| {
        server.threads().into_iter().map(move |(thread, now)| now - before.get(&thread).copied().unwrap_or_default())
    });
    let threads: Vec<Duration> = threads.collect();
    let used: Vec<Duration> =
        cluster.cpus().into_iter().zip(masters_before).map(|(now, before)| now - before).collect();
    let micros = |time: Duration| nanos_each(time, events) / 1e3;
    Cost {
        node: micros(threads.iter().sum()) / nodes as f64,
        thread: micros(threads.into_iter().max().unwrap_or_default()),
        busiest: micros(used.iter().copied().max().unwrap_or_default()),
        masters: micros(used.iter().sum()),
    }
}

/// The rooms in a circle.
fn room(number: usize) -> String {
    format!("room:{}", number % ROOMS)
}
