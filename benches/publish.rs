//! Publishes a second over HTTP, on the embedded log and through Redis, and how long an event takes from the publisher
//! to subscribers of each kind.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::echo;
use common::http::{Poster, at_rate, event};
use common::process::{Redis, Server};
use common::report::{Table, grouped, median, nanos_each, percentile};
use common::swarm::{Protocol, Swarm};
use common::{json_string, setting, token};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PAYLOAD: usize = 128;
const MOST: Duration = Duration::from_secs(120);
/// Events of one NDJSON request; the contract allows 1,000.
const BATCH: usize = 100;

/// One subscriber takes all of it, more than clients are meant to: it must not be closed as a slow one.
const RULES: &str = "[socketio]\nping_interval = \"1h\"\n[limits]\noutbox_bytes = \"500MB\"\n[[rooms]]\nmatch = \"all\"\njoin = \"allow\"\n";

fn main() {
    if common::was_child() || !common::is_bench() {
        return;
    }
    throughput();
    latency();
}

/// How events are posted.
#[derive(Clone, Copy)]
enum BackendTransport {
    /// One event a request, so many requests on the way on each connection.
    Single(usize),
    Batches,
}

/// Who answers the requests.
#[derive(Clone, Copy)]
enum Kind {
    /// A server on hyper that answers each request with its body.
    Echo,
    Embedded,
    OnRedis,
}

const KINDS_OF_SERVERS: [(&str, Kind); 3] =
    [("bare hyper echo", Kind::Echo), ("embedded", Kind::Embedded), ("Redis", Kind::OnRedis)];
const WAYS: [BackendTransport; 3] =
    [BackendTransport::Single(1), BackendTransport::Single(8), BackendTransport::Batches];

/// What came of one run.
#[derive(Clone, Copy)]
struct Run {
    /// Publishes a second, until the subscriber has everything.
    rate: f64,
    /// CPU microseconds of the server, and of Redis, for each.
    server_us: f64,
    redis_us: f64,
}

fn throughput() {
    let (repeats, events) = (setting("REPEATS", 3), setting("EVENTS", 200_000));
    let heads = ["", "requests", "publishes/s (median)", "(best)", "server µs/publish", "× echo", "redis µs/publish"];
    let mut table = Table::new(&heads);
    for way in WAYS {
        let rounds: Vec<[Run; 3]> =
            (0..repeats).map(|_| KINDS_OF_SERVERS.map(|(_, kind)| publish(kind, way, events))).collect();
        for (index, (name, _)) in KINDS_OF_SERVERS.into_iter().enumerate() {
            let of = |number: &dyn Fn(&[Run; 3]) -> f64| rounds.iter().map(number).collect::<Vec<f64>>();
            let rates = of(&|round| round[index].rate);
            let best = rates.iter().copied().fold(0.0, f64::max);
            table.row(&[
                name.into(),
                match way {
                    BackendTransport::Single(depth) => format!("one event, pipelining {depth}"),
                    BackendTransport::Batches => format!("NDJSON of {BATCH}"),
                },
                grouped(median(rates)),
                grouped(best),
                format!("{:.1}", median(of(&|round| round[index].server_us))),
                format!("{:.2}", median(of(&|round| round[index].server_us / round[0].server_us))),
                format!("{:.1}", median(of(&|round| round[index].redis_us))),
            ]);
        }
    }
    let connections = connections();
    table.print(&format!("publish: {connections} keep-alive connections, {PAYLOAD} B, one subscriber, {repeats} runs"));
    println!("aims with one event a request: 1.4 × the echo embedded, 2.5 × on Redis");
}

/// How many connections post single events.
fn connections() -> usize {
    setting("CONNECTIONS", 64)
}

fn publish(kind: Kind, way: BackendTransport, events: usize) -> Run {
    if let Kind::Echo = kind {
        let echo = echo::start();
        let (before, start) = (echo.cpu(), Instant::now());
        post(echo.address, way, events);
        let (elapsed, used) = (start.elapsed(), echo.cpu() - before);
        return Run {
            rate: events as f64 / elapsed.as_secs_f64(),
            server_us: nanos_each(used, events) / 1e3,
            redis_us: 0.0,
        };
    }
    let redis = matches!(kind, Kind::OnRedis).then(Redis::start);
    let server = Server::start(redis.as_ref(), RULES);
    let mut swarm = Swarm::new();
    swarm.connect(server.address, Protocol::SocketIo, 1, vec![token::sign(1, &["all"])]);
    let cpu = || (server.cpu(), redis.as_ref().map_or(Duration::ZERO, Redis::cpu));
    let (before, start) = (cpu(), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| post(server.address, way, events));
        swarm.receive(events, MOST, |_, _| {});
    });
    let (elapsed, after) = (start.elapsed(), cpu());
    swarm.assert_each(events);
    let each = |before: Duration, after: Duration| nanos_each(after - before, events) / 1e3;
    Run {
        rate: events as f64 / elapsed.as_secs_f64(),
        server_us: each(before.0, after.0),
        redis_us: each(before.1, after.1),
    }
}

/// Posts the events and reads every answer.
fn post(address: SocketAddr, way: BackendTransport, events: usize) {
    let mut poster = match way {
        BackendTransport::Single(depth) => Poster::events(address, connections(), depth),
        BackendTransport::Batches => Poster::batches(address, 4),
    };
    let body = event("all", &json_string(PAYLOAD));
    match way {
        BackendTransport::Single(_) => (0..events).for_each(|_| poster.send(body.as_bytes())),
        BackendTransport::Batches => {
            let batch = format!("{body}\n").repeat(BATCH);
            (0..events / BATCH).for_each(|_| poster.send(batch.as_bytes()));
        }
    }
    poster.finish();
}

/// The three kinds of subscribers.
const KINDS: [(&str, Protocol); 3] =
    [("Socket.IO", Protocol::SocketIo), ("plain /ws", Protocol::Json), ("SSE", Protocol::Sse)];

fn latency() {
    let (rate, seconds) = (1_000, setting("SECONDS", 10));
    let mut table = Table::new(&["log", "subscriber", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "most µs"]);
    for on_redis in [false, true] {
        for ((name, _), mut micros) in KINDS.iter().zip(measure(on_redis, rate, rate * seconds)) {
            micros.sort_unstable();
            let log = if on_redis { "Redis" } else { "embedded" };
            let mut row = vec![log.to_owned(), (*name).to_owned()];
            row.extend([0.5, 0.9, 0.99, 0.999, 1.0].map(|share| percentile(&micros, share).to_string()));
            table.row(&row);
        }
    }
    table.print(&format!("publish to receive: one event a request, {rate}/s for {seconds} s"));
}

/// Microseconds from before the request is written to after the message is read, by kind of subscriber.
fn measure(on_redis: bool, rate: usize, events: usize) -> Vec<Vec<u64>> {
    let redis = on_redis.then(Redis::start);
    let server = Server::start(redis.as_ref(), RULES);
    let mut swarm = Swarm::new();
    for (_, protocol) in KINDS {
        let token = token::sign(1, &["all"]);
        let token = if protocol == Protocol::Sse { format!("/sse?room=all&token={token}") } else { token };
        swarm.connect(server.address, protocol, 1, vec![token]);
    }
    let start = Instant::now();
    let mut micros = vec![Vec::with_capacity(events); KINDS.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut poster = Poster::events(server.address, 8, 1);
            let padding = json_string(PAYLOAD - 32);
            at_rate(rate, events, |_| {
                let now = start.elapsed().as_nanos();
                poster.send(event("all", &format!("{{\"pad\":{padding},\"sent\":{now}}}")).as_bytes());
            });
            poster.finish();
        });
        swarm.receive(events * KINDS.len(), MOST, |client, message| {
            let passed = start.elapsed().as_nanos() as u64 - sent(message);
            micros[client].push(passed / 1_000);
        });
    });
    swarm.assert_each(events);
    micros
}

/// The time that the publisher wrote into the event.
fn sent(message: &[u8]) -> u64 {
    let at = memchr::memmem::find(message, b"\"sent\":").expect("every event says when it was sent") + 7;
    let digits = message[at..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}
