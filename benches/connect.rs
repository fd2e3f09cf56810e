//! Connects a second: TCP, WebSocket upgrade, Engine.IO open, CONNECT with an HS256 token and one automatic room, and its
//! answer; beside a bare epoll server of the same run.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::floor;
use common::process::Server;
use common::report::{Table, grouped, median, nanos_each};
use common::swarm::{Protocol, Swarm};
use common::{setting, token};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const RULES: &str = "[[rooms]]\nmatch = \"user:{user}\"\njoin = \"auto\"\n";

fn main() {
    if common::was_child() || !common::is_bench() {
        return;
    }
    let (repeats, sessions) = (setting("REPEATS", 5), setting("SESSIONS", 10_000));
    let heads =
        ["client threads", "server", "connects/s (median)", "connects/s (best)", "server CPU µs/connect", "× floor"];
    let mut table = Table::new(&heads);
    for threads in [1, 2] {
        let runs: Vec<[Run; 2]> =
            (0..repeats).map(|_| [on_floor(sessions, threads), on_roomcast(sessions, threads)]).collect();
        for (index, name) in ["bare epoll floor", "roomcast, embedded"].into_iter().enumerate() {
            let of = |number: &dyn Fn(&[Run; 2]) -> f64| runs.iter().map(number).collect::<Vec<f64>>();
            let rates = of(&|run| run[index].rate);
            let best = rates.iter().copied().fold(0.0, f64::max);
            table.row(&[
                threads.to_string(),
                name.into(),
                grouped(median(rates)),
                grouped(best),
                format!("{:.1}", median(of(&|run| run[index].server_us))),
                format!("{:.2}", median(of(&|run| run[index].server_us / run[0].server_us))),
            ]);
        }
    }
    table.print(&format!("connect: {} sessions, 200 at once, {repeats} runs", grouped(sessions as f64)));
    println!("aim: at most 2.3 × the floor, which checks no token and knows no limits");
}

/// Connects a second, and the server's CPU microseconds for each.
struct Run {
    rate: f64,
    server_us: f64,
}

fn on_roomcast(sessions: usize, threads: usize) -> Run {
    let server = Server::start(None, RULES);
    connect(server.address, sessions, threads, |user| token::sign(user, &[]), &|| server.cpu())
}

fn on_floor(sessions: usize, threads: usize) -> Run {
    let floor = floor::start();
    connect(floor.address, sessions, threads, |user| format!("user:{user}"), &|| floor.cpu())
}

fn connect(
    address: SocketAddr,
    sessions: usize,
    threads: usize,
    token: impl Fn(usize) -> String,
    cpu: &dyn Fn() -> Duration,
) -> Run {
    let shares: Vec<Vec<String>> =
        (0..threads).map(|thread| (thread..sessions).step_by(threads).map(&token).collect()).collect();
    let (before, start) = (cpu(), Instant::now());
    let connected: Vec<Swarm> = std::thread::scope(|scope| {
        let connect = |tokens: Vec<String>| {
            let mut swarm = Swarm::new();
            swarm.connect(address, Protocol::SocketIo, 200 / threads, tokens);
            swarm
        };
        let running: Vec<_> = shares.into_iter().map(|tokens| scope.spawn(move || connect(tokens))).collect();
        running.into_iter().map(|thread| thread.join().expect("every client got in")).collect()
    });
    let (elapsed, used) = (start.elapsed(), cpu() - before);
    drop(connected);
    Run { rate: sessions as f64 / elapsed.as_secs_f64(), server_us: nanos_each(used, sessions) / 1e3 }
}
