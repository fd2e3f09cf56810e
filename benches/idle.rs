//! Memory of the server for each idle connection: 15,000 real Socket.IO sessions over WebSocket, each in two rooms, its
//! own and one that it shares with four others.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::process::{Server, resident};
use common::report::{Table, grouped};
use common::swarm::{Protocol, Swarm};
use common::{setting, token, until};
use std::time::Duration;

const SHARED_BY: usize = 5;
/// Resident memory counts as settled when it has not moved by more than this for [`QUIET`] samples.
const STILL: usize = 64 << 10;
const QUIET: usize = 400;

const RULES: &str = "[[rooms]]\nmatch = \"user:{user}\"\njoin = \"auto\"\n";

fn main() {
    if !common::is_bench() {
        return;
    }
    // One process may have 20,000 files on the reference machine, and the clients are one process.
    let sessions = setting("SESSIONS", 15_000);
    let server = Server::start(None, RULES);
    let before = settled(server.pid());
    let mut swarm = Swarm::new();
    let token = |user: usize| token::sign(user, &[&format!("group:{}", user / SHARED_BY)]);
    swarm.connect(server.address, Protocol::SocketIo, 200, (0..sessions).map(token).collect());
    let after = settled(server.pid());

    let mut table = Table::new(&["resident memory", "before", "after", "bytes a session"]);
    for (name, before, after) in [("all", before.0, after.0), ("private", before.1, after.1)] {
        let each = (after - before) as f64 / sessions as f64;
        table.row(&[name.into(), grouped(before as f64), grouped(after as f64), grouped(each)]);
    }
    table.print(&format!("idle: {} Socket.IO sessions in two rooms each", grouped(sessions as f64)));
    println!("aim: at most 1,900 bytes a session");
}

/// Resident bytes, all and private, once they stand still for two seconds.
fn settled(pid: u32) -> (usize, usize) {
    let (mut last, mut quiet) = (resident(pid), 0);
    until("the resident memory to settle", Duration::from_secs(60), || {
        let now = resident(pid);
        quiet = if now.0.abs_diff(last.0) <= STILL { quiet + 1 } else { 0 };
        if quiet == 0 {
            last = now;
        }
        quiet >= QUIET
    });
    last
}
