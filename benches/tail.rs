//! What a node pays for each event of the log, whether or not anybody here is in its room: other programs fill the stream
//! with `XADD`, pipelined or one at a time at a steady rate, and the node's CPU time is read until its tail has all of it.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::process::{Redis, Server};
use common::report::{Table, median};
use common::swarm::{Protocol, Swarm};
use common::{json_string, pace, setting, token, until};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const PAYLOAD: usize = 128;
const ROOMS: usize = 100;
/// Commands that are sent before their answers are read.
const PIPELINE: usize = 500;
/// Single commands a second: so few that each wakes the node.
const RATE: u64 = 2_000;
const MOST: Duration = Duration::from_secs(120);

/// One subscriber takes everything, so it must not be closed as a slow one.
const RULES: &str = "[socketio]\nping_interval = \"1h\"\n[limits]\noutbox_bytes = \"500MB\"\n";

fn main() {
    if !common::is_bench() {
        return;
    }
    let (repeats, events) = (setting("REPEATS", 3), setting("EVENTS", 300_000));
    let mut table = Table::new(&["rooms of the events", "XADDs at once", "node CPU µs/event", "Redis CPU µs/event"]);
    for (at_once, events) in [(PIPELINE, events), (1, events / 30)] {
        for wanted in [0, ROOMS / 20, ROOMS] {
            let runs: Vec<(f64, f64)> = (0..repeats).map(|_| read(wanted, at_once, events)).collect();
            table.row(&[
                format!("{} % with a member here", wanted * 100 / ROOMS),
                at_once.to_string(),
                format!("{:.2}", median(runs.iter().map(|run| run.0).collect())),
                format!("{:.2}", median(runs.iter().map(|run| run.1).collect())),
            ]);
        }
    }
    table.print(&format!("tail: {events} events of {PAYLOAD} B in {ROOMS} rooms, {repeats} runs"));
    println!("aim: at most 1 µs of the node for an event that nobody here wants");
}

/// CPU microseconds of the node and of Redis for each event, where somebody is in so many of the rooms.
fn read(wanted: usize, at_once: usize, events: usize) -> (f64, f64) {
    let redis = Redis::start();
    let server = Server::start(Some(&redis), RULES);
    let mut swarm = Swarm::new();
    if wanted > 0 {
        let rooms: Vec<String> = (0..wanted).map(|room| format!("room:{room}")).collect();
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        swarm.connect(server.address, Protocol::SocketIo, 1, vec![token::sign(1, &rooms)]);
    }
    let mut writer = Writer::connect(redis.address());
    // Caches and tables are warm, and the page size has found its place.
    let warm = ROOMS * 20;
    writer.add(warm, at_once);
    until("the first events", MOST, || read_so_far(server.address) >= warm);
    let (before, redis_before) = (server.cpu(), redis.cpu());
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| writer.add(events, at_once));
        if wanted > 0 {
            swarm.receive((events + warm) * wanted / ROOMS, MOST, |_, _| {});
        }
        writing.join().expect("Redis takes what is added");
    });
    until("the node to read everything", MOST, || read_so_far(server.address) >= events + warm);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
    (each(server.cpu() - before), each(redis.cpu() - redis_before))
}

/// Events of other programs that the node has read.
fn read_so_far(address: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(address).expect("the node listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("the node reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("metrics are text");
    let line = page.lines().find_map(|line| line.strip_prefix("roomcast_events_total{source=\"stream\"} "));
    line.and_then(|count| count.parse().ok()).expect("a documented metric")
}

/// Another program that adds events to the stream.
struct Writer {
    stream: TcpStream,
    next: usize,
}

impl Writer {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("redis-server listens");
        stream.set_nodelay(true).expect("an option of every socket");
        Self { stream, next: 0 }
    }

    fn add(&mut self, events: usize, at_once: usize) {
        let data = json_string(PAYLOAD);
        let (mut commands, mut answers) = (Vec::new(), vec![0; 64 << 10]);
        let start = Instant::now();
        for done in (0..events).step_by(at_once) {
            let batch = at_once.min(events - done);
            if at_once == 1 {
                pace(start + Duration::from_nanos(done as u64 * 1_000_000_000 / RATE));
            }
            commands.clear();
            for _ in 0..batch {
                let room = format!("room:{}", self.next % ROOMS);
                self.next += 1;
                let words = ["XADD", "roomcast:events", "*", "room", &room, "event", "new_message", "data", &data];
                write!(commands, "*{}\r\n", words.len()).expect("memory takes bytes");
                for word in words {
                    write!(commands, "${}\r\n{word}\r\n", word.len()).expect("memory takes bytes");
                }
            }
            self.stream.write_all(&commands).expect("redis-server reads");
            // Each answer is two lines.
            let mut lines = 2 * batch;
            while lines > 0 {
                let bytes = self.stream.read(&mut answers).expect("redis-server answers");
                assert!(bytes > 0 && answers[0] != b'-', "{}", String::from_utf8_lossy(&answers[..bytes]));
                lines -= answers[..bytes].iter().filter(|byte| **byte == b'\n').count();
            }
        }
    }
}
