//! What a publish costs on Redis: commands and CPU time of Redis, and CPU time of the node, beside a bare pipelined `XADD` of
//! the same entries to the same kind of server, with a reader that waits for them. Nobody is subscribed.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::http::{Poster, at_rate, event};
use common::process::{Redis, Server};
use common::report::{Table, median, nanos_each};
use common::{json_string, setting};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PAYLOAD: usize = 128;
/// Single publishes a second.
const RATE: usize = 2_000;
/// Events of one NDJSON request.
const BATCH: usize = 100;
const STREAM: &str = "roomcast:events";

fn main() {
    if !common::is_bench() {
        return;
    }
    let repeats = setting("REPEATS", 3);
    let mut table = Table::new(&[
        "publishes",
        "commands/publish",
        "redis µs/publish",
        "bare XADD µs",
        "× bare",
        "node µs/publish",
        "node µs / bare XADD µs",
    ]);
    for load in [Load::Paced(setting("SECONDS", 10) * RATE), Load::Batches(setting("EVENTS", 200_000))] {
        let runs: Vec<[f64; 4]> = (0..repeats).map(|_| measure(load)).collect();
        let of = |column: usize| median(runs.iter().map(|run| run[column]).collect());
        let ratio = |column: usize| median(runs.iter().map(|run| run[column] / run[2]).collect());
        table.row(&[
            match load {
                Load::Paced(_) => format!("one event, {RATE}/s"),
                Load::Batches(_) => format!("NDJSON of {BATCH}, as fast as possible"),
            },
            format!("{:.2}", of(0)),
            format!("{:.2}", of(1)),
            format!("{:.2}", of(2)),
            format!("{:.2}", ratio(1)),
            format!("{:.2}", of(3)),
            format!("{:.2}", ratio(3)),
        ]);
    }
    table.print(&format!("append: {PAYLOAD} B, one node, no subscriber, one waiting reader, median of {repeats}"));
}

#[derive(Clone, Copy)]
enum Load {
    Paced(usize),
    Batches(usize),
}

/// Commands and µs of Redis for a publish, µs of Redis for a bare `XADD`, µs of the node for a publish.
fn measure(load: Load) -> [f64; 4] {
    let [commands, redis, node] = through_the_node(load);
    [commands, redis, bare(load), node]
}

fn through_the_node(load: Load) -> [f64; 3] {
    let redis = Redis::start();
    let server = Server::start(Some(&redis), "");
    let data = json_string(PAYLOAD);
    let run = |load: Load| match load {
        Load::Paced(events) => {
            let mut poster = Poster::events(server.address, 32, 1);
            at_rate(RATE, events, |_| poster.send(event("room", &data).as_bytes()));
            poster.finish();
        }
        Load::Batches(events) => {
            let mut poster = Poster::batches(server.address, 4);
            let batch = format!("{}\n", event("room", &data)).repeat(BATCH);
            (0..events / BATCH).for_each(|_| poster.send(batch.as_bytes()));
            poster.finish();
        }
    };
    run(load.part());
    let commands = || redis.commands().values().sum::<u64>();
    let (commands_before, redis_before, node_before) = (commands(), redis.cpu(), server.cpu());
    run(load);
    let (used, by_node) = (redis.cpu() - redis_before, server.cpu() - node_before);
    let events = load.events();
    [
        (commands() - commands_before) as f64 / events as f64,
        nanos_each(used, events) / 1e3,
        nanos_each(by_node, events) / 1e3,
    ]
}

fn bare(load: Load) -> f64 {
    let redis = Redis::start();
    let client = redis::Client::open(redis.url()).expect("a URL");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| read(&client, &ended));
        let mut connection = client.get_connection().expect("Redis is up");
        let data = json_string(PAYLOAD);
        let add = |pipeline: &mut redis::Pipeline| {
            let fields = ["room", "room", "event", "message", "data", &data, "t", "1795225216959123"];
            pipeline.cmd("XADD").arg(STREAM).arg("*").arg(&fields).ignore();
        };
        let mut send = |count: usize| {
            let mut pipeline = redis::pipe();
            (0..count).for_each(|_| add(&mut pipeline));
            pipeline.query::<()>(&mut connection).expect("Redis takes entries");
        };
        let mut run = |load: Load| match load {
            Load::Paced(events) => at_rate(RATE, events, |_| send(1)),
            Load::Batches(events) => (0..events / BATCH).for_each(|_| send(BATCH)),
        };
        run(load.part());
        let before = redis.cpu();
        run(load);
        let used = redis.cpu() - before;
        ended.store(true, Ordering::Relaxed);
        nanos_each(used, load.events()) / 1e3
    })
}

/// A stream's name and entries.
type Stream = (String, Vec<(String, Vec<String>)>);

/// Reads the stream as it grows.
fn read(client: &redis::Client, ended: &AtomicBool) {
    let mut connection = client.get_connection().expect("Redis is up");
    let mut after = "0-0".to_owned();
    let started = Instant::now();
    while !ended.load(Ordering::Relaxed) && started.elapsed() < Duration::from_secs(600) {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(256).arg("BLOCK").arg(100).arg("STREAMS").arg(STREAM).arg(&after);
        let read: Option<Vec<Stream>> = command.query(&mut connection).expect("Redis answers");
        if let Some((last, _)) = read.iter().flatten().flat_map(|(_, entries)| entries).last() {
            after.clone_from(last);
        }
    }
}

impl Load {
    fn events(self) -> usize {
        match self {
            Self::Paced(events) | Self::Batches(events) => events,
        }
    }

    /// A tenth of it, as a warm-up.
    fn part(self) -> Self {
        match self {
            Self::Paced(events) => Self::Paced(events / 10),
            Self::Batches(events) => Self::Batches(events / 10),
        }
    }
}
