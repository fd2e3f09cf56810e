//! CPU time of the server for each delivered frame: one room of 1,000 subscribers, 128 bytes of payload, at 50 events
//! a second and as fast as it goes, beside a bare `write(2)` loop that sends frames of the same size.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::bare::Loop;
use common::http::{Poster, at_rate, event};
use common::process::Server;
use common::report::{Table, grouped, median, nanos_each};
use common::swarm::{Protocol, Swarm};
use common::{json_string, setting, token};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

const SUBSCRIBERS: usize = 1_000;
const PAYLOAD: usize = 128;
const RATE: usize = 50;
/// Events in one NDJSON request at saturation.
const BATCH: usize = 100;
/// Events at saturation that may be published and not received: enough for the server never to wait for the publisher,
/// and few enough for a subscriber's outbox (`limits.outbox_bytes`, 1 MB).
const WINDOW: usize = 2_000;
const MOST: Duration = Duration::from_secs(120);

fn main() {
    if common::was_child() || !common::is_bench() {
        return;
    }
    let repeats = setting("REPEATS", 3);
    let (idle, saturated) = (setting("SECONDS", 10) * RATE, setting("EVENTS", 10_000));
    let mut runs: Vec<[Cost; 3]> = Vec::new();
    for _ in 0..repeats {
        let socketio = server(Protocol::SocketIo, idle, saturated);
        let json = server(Protocol::Json, idle, saturated);
        // The loop is slower: a tenth of the events is two million frames by default, and some ten seconds.
        let bare = bare(socketio.frame_bytes, idle, (saturated / 5).max(1));
        runs.push([bare, socketio, json]);
    }
    print(&runs);
}

/// CPU nanoseconds for each frame.
#[derive(Clone, Copy, Debug)]
struct Cost {
    idle: f64,
    saturated: f64,
    /// Frames a second by the clock, at saturation.
    rate: f64,
    frame_bytes: usize,
}

fn print(runs: &[[Cost; 3]]) {
    let heads =
        ["", "bytes", "idle ns/frame", "× loop", "saturated ns/frame", "frames / CPU s", "× loop", "frames / s"];
    let mut table = Table::new(&heads);
    for (index, name) in ["bare write(2) loop", "Socket.IO", "plain /ws"].into_iter().enumerate() {
        let of = |number: &dyn Fn(&[Cost; 3]) -> f64| median(runs.iter().map(number).collect());
        let saturated = of(&|run| run[index].saturated);
        table.row(&[
            name.into(),
            runs[0][index].frame_bytes.to_string(),
            grouped(of(&|run| run[index].idle)),
            format!("{:.2}", of(&|run| run[index].idle / run[0].idle)),
            grouped(saturated),
            grouped(1e9 / saturated),
            format!("{:.1}", of(&|run| run[0].saturated / run[index].saturated)),
            grouped(of(&|run| run[index].rate)),
        ]);
    }
    table.print(&format!("fanout: {SUBSCRIBERS} subscribers, {PAYLOAD} B, median of {}", runs.len()));
    println!("aims: idle at most 1.25 × the loop's time; saturated at least 10 × the loop's frames per CPU second");
}

/// What a frame costs the server.
fn server(protocol: Protocol, idle: usize, saturated: usize) -> Cost {
    // One heartbeat in the measured seconds would be one frame of 500; none is simpler.
    let server = Server::start(None, "[socketio]\nping_interval = \"1h\"\n");
    let mut swarm = Swarm::new();
    let tokens = (0..SUBSCRIBERS).map(|user| token::sign(user, &["all"])).collect();
    swarm.connect(server.address, protocol, 100, tokens);
    let body = event("all", &json_string(PAYLOAD));

    publish_idle(&server, &mut swarm, &body, RATE);
    let before = server.cpu();
    publish_idle(&server, &mut swarm, &body, idle);
    let idle_cost = nanos_each(server.cpu() - before, idle * SUBSCRIBERS);

    publish_saturated(&server, &mut swarm, &body, WINDOW);
    let (before, start) = (server.cpu(), Instant::now());
    publish_saturated(&server, &mut swarm, &body, saturated);
    let frames = saturated * SUBSCRIBERS;
    let saturated_cost = nanos_each(server.cpu() - before, frames);
    let rate = frames as f64 / start.elapsed().as_secs_f64();
    swarm.assert_each(RATE + idle + WINDOW + saturated);
    Cost { idle: idle_cost, saturated: saturated_cost, rate, frame_bytes: swarm.frame_bytes }
}

fn publish_idle(server: &Server, swarm: &mut Swarm, body: &str, events: usize) {
    let total = swarm.received() + events * SUBSCRIBERS;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut poster = Poster::events(server.address, 4, 1);
            at_rate(RATE, events, |_| poster.send(body.as_bytes()));
            poster.finish();
        });
        swarm.receive(total, MOST, |_, _| {});
    });
}

fn publish_saturated(server: &Server, swarm: &mut Swarm, body: &str, events: usize) {
    let begun = swarm.received();
    let gate = Gate::default();
    let batch = format!("{body}\n").repeat(BATCH);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut poster = Poster::batches(server.address, 4);
            for sent in (0..events).step_by(BATCH) {
                gate.wait_for((sent + BATCH).saturating_sub(WINDOW) * SUBSCRIBERS);
                poster.send(batch.as_bytes());
            }
            poster.finish();
        });
        let mut step = begun;
        while step < begun + events * SUBSCRIBERS {
            step += BATCH * SUBSCRIBERS;
            swarm.receive(step, MOST, |_, _| {});
            gate.open_to(swarm.received() - begun);
        }
    });
}

/// How far the subscribers are; the publisher waits for it.
#[derive(Default)]
struct Gate {
    received: Mutex<usize>,
    moved: Condvar,
}

impl Gate {
    fn open_to(&self, received: usize) {
        *self.received.lock().expect("no thread panicked") = received;
        self.moved.notify_one();
    }

    fn wait_for(&self, needed: usize) {
        let received = self.received.lock().expect("no thread panicked");
        let (received, wait) =
            self.moved.wait_timeout_while(received, MOST, |received| *received < needed).expect("no thread panicked");
        assert!(!wait.timed_out(), "the subscribers got {received} frames and no more");
    }
}

/// What a frame costs a loop around `write(2)`.
fn bare(frame_bytes: usize, idle: usize, saturated: usize) -> Cost {
    let mut writer = Loop::start(SUBSCRIBERS, frame_bytes);
    let mut swarm = Swarm::new();
    swarm.connect(writer.address, Protocol::Bare, 100, vec![String::new(); SUBSCRIBERS]);
    let mut write = |rounds, rate| {
        let start = Instant::now();
        let cost = writer.write(&mut swarm, rounds, SUBSCRIBERS, rate);
        (cost, (rounds * SUBSCRIBERS) as f64 / start.elapsed().as_secs_f64())
    };
    write(RATE, RATE);
    let (idle_cost, _) = write(idle, RATE);
    let (saturated_cost, rate) = write(saturated, 0);
    swarm.assert_each(RATE + idle + saturated);
    Cost { idle: idle_cost, saturated: saturated_cost, rate, frame_bytes: swarm.frame_bytes }
}
