//! CPU time of the server for each delivered frame: one room of 1,000 subscribers, 128 bytes of payload, at 50 events
//! a second and as fast as it goes, beside a bare `write(2)` loop that sends frames of the same size.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::http::{Poster, at_rate, event};
use common::process::{Server, cpu};
use common::report::{Table, grouped, median, nanos_each};
use common::swarm::{Protocol, Swarm};
use common::{json_string, setting, token, websocket};
use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
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
    if std::env::args().any(|argument| argument == "--write-loop") {
        return write_loop();
    }
    if !common::is_bench() {
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
    let mut writer = Loop::start();
    let mut swarm = Swarm::new();
    swarm.connect(writer.address, Protocol::Bare, 100, vec![String::new(); SUBSCRIBERS]);
    writer.write(&mut swarm, frame_bytes, RATE, RATE);
    let (idle_cost, _) = writer.write(&mut swarm, frame_bytes, idle, RATE);
    let (saturated_cost, rate) = writer.write(&mut swarm, frame_bytes, saturated, 0);
    swarm.assert_each(RATE + idle + saturated);
    Cost { idle: idle_cost, saturated: saturated_cost, rate, frame_bytes: swarm.frame_bytes }
}

/// The write loop's process.
struct Loop {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Loop {
    fn start() -> Self {
        let program = std::env::current_exe().expect("this program has a file");
        let mut child = Command::new(program)
            .arg("--write-loop")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        let input = child.stdin.take().expect("its input is a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let address = line(&mut output).parse().expect("it says its address first");
        Self { child, input, output, address }
    }

    /// So many rounds, at a rate or (0) at full speed: CPU nanoseconds a frame, and frames a second.
    fn write(&mut self, swarm: &mut Swarm, frame_bytes: usize, rounds: usize, rate: usize) -> (f64, f64) {
        let frames = rounds * SUBSCRIBERS;
        let (before, start) = (cpu(self.child.id()), Instant::now());
        writeln!(self.input, "{frame_bytes} {rounds} {rate}").expect("the loop reads");
        swarm.receive(swarm.received() + frames, MOST, |_, _| {});
        let elapsed = start.elapsed().as_secs_f64();
        assert_eq!(line(&mut self.output), "done");
        (nanos_each(cpu(self.child.id()) - before, frames), frames as f64 / elapsed)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(input: &mut impl BufRead) -> String {
    let mut text = String::new();
    input.read_line(&mut text).expect("a pipe can be read");
    text.trim().to_owned()
}

/// The child: accepts the subscribers, then does what it is told, one `write(2)` for each frame.
fn write_loop() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the system has free ports");
    println!("{}", listener.local_addr().expect("a bound socket has an address"));
    let accept = |_| {
        let (stream, _) = listener.accept().expect("the parent connects");
        stream.set_nodelay(true).expect("a TCP socket");
        // The standard library sends on sockets with send(2); a file is written with write(2).
        File::from(OwnedFd::from(stream))
    };
    let mut subscribers: Vec<File> = (0..SUBSCRIBERS).map(accept).collect();
    let mut input = BufReader::new(std::io::stdin());
    loop {
        let order = line(&mut input);
        let mut numbers = order.split(' ').map_while(|number| number.parse::<usize>().ok());
        let (Some(frame_bytes), Some(rounds), Some(rate)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return;
        };
        let frame = websocket::server_frame(&vec![b'x'; frame_bytes - if frame_bytes < 128 { 2 } else { 4 }]);
        let mut round = |_| subscribers.iter_mut().for_each(|file| file.write_all(&frame).expect("the parent reads"));
        match rate {
            0 => (0..rounds).for_each(&mut round),
            rate => at_rate(rate, rounds, round),
        }
        println!("done");
    }
}
