//! Connects a second: TCP, WebSocket upgrade, Engine.IO open, CONNECT with an HS256 token, and its answer.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::process::Server;
use common::report::{Table, grouped, median, nanos_each};
use common::swarm::{Protocol, Swarm};
use common::{setting, token};
use std::time::Instant;

const RULES: &str = "[[rooms]]\nmatch = \"user:{user}\"\njoin = \"auto\"\n";

fn main() {
    if !common::is_bench() {
        return;
    }
    let (repeats, sessions) = (setting("REPEATS", 5), setting("SESSIONS", 10_000));
    let mut table =
        Table::new(&["client threads", "connects/s (median)", "connects/s (best)", "server CPU µs/connect"]);
    for threads in [1, 2] {
        let runs: Vec<(f64, f64)> = (0..repeats).map(|_| connect(sessions, threads)).collect();
        let rates: Vec<f64> = runs.iter().map(|run| run.0).collect();
        let best = rates.iter().copied().fold(0.0, f64::max);
        let cost = median(runs.iter().map(|run| run.1).collect());
        table.row(&[threads.to_string(), grouped(median(rates)), grouped(best), format!("{cost:.1}")]);
    }
    table.print(&format!("connect: {} sessions, 200 at once, {repeats} runs", grouped(sessions as f64)));
    println!(
        "aim: at least 20,000 connects/s, the clients on the same machine; nchan 32,000 without tokens, socket.io 4,000"
    );
}

/// Connects a second, and the server's CPU microseconds for each.
fn connect(sessions: usize, threads: usize) -> (f64, f64) {
    let server = Server::start(None, RULES);
    let shares: Vec<Vec<String>> = (0..threads)
        .map(|thread| (thread..sessions).step_by(threads).map(|user| token::sign(user, &[])).collect())
        .collect();
    let (before, start) = (server.cpu(), Instant::now());
    let connected: Vec<Swarm> = std::thread::scope(|scope| {
        let connect = |tokens: Vec<String>| {
            let mut swarm = Swarm::new();
            swarm.connect(server.address, Protocol::SocketIo, 200 / threads, tokens);
            swarm
        };
        let running: Vec<_> = shares.into_iter().map(|tokens| scope.spawn(move || connect(tokens))).collect();
        running.into_iter().map(|thread| thread.join().expect("every client got in")).collect()
    });
    let (elapsed, used) = (start.elapsed(), server.cpu() - before);
    drop(connected);
    (sessions as f64 / elapsed.as_secs_f64(), nanos_each(used, sessions) / 1e3)
}
