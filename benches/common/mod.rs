//! What the benches share. The server under test is the release binary in a process of its own, so that its CPU time
//! and memory are measured alone; everything here is the outside: it speaks bytes and does not link roomcast.
#![allow(dead_code, reason = "every bench is a crate of its own and uses a part of this")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its results")]

pub(crate) mod bare;
pub(crate) mod child;
pub(crate) mod cluster;
pub(crate) mod echo;
pub(crate) mod floor;
pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod swarm;
pub(crate) mod token;
pub(crate) mod websocket;

use std::time::{Duration, Instant};

/// Whether `cargo bench` started this program; `cargo test --all-targets` starts it too and must not wait minutes.
pub(crate) fn is_bench() -> bool {
    let asked = std::env::args().any(|argument| argument == "--bench");
    if !asked {
        println!("not measured: run it by `cargo bench`, or give it `--bench`");
    }
    asked
}

/// Whether this program was started as one of the small servers beside which roomcast is measured; then it has served.
pub(crate) fn was_child() -> bool {
    bare::is_child() || echo::is_child() || floor::is_child()
}

/// A number from the environment, for shorter or longer runs.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Sleeps until `at`: to keep a rate, never to wait for something to happen.
pub(crate) fn pace(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// Asks until `condition` holds, every few milliseconds, at most so long.
pub(crate) fn until(what: &str, max: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + max;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {max:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A JSON string of exactly so many bytes with its quotes.
pub(crate) fn json_string(bytes: usize) -> String {
    format!("\"{}\"", "abcdefghijklmnopqrstuvwxyz".chars().cycle().take(bytes - 2).collect::<String>())
}
