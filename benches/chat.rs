//! CPU time of the server for each delivery of a chat: 5,000 Socket.IO sessions in 1,000 rooms of five, 2,000 events of
//! 256 bytes a second, each its own `POST /publish`; on the embedded log and on Redis.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::bare::Loop;
use common::http::{Poster, at_rate, event};
use common::process::{Redis, Server};
use common::report::{Table, grouped, median, nanos_each};
use common::swarm::{Protocol, Swarm};
use common::{json_string, setting, token};
use std::time::Duration;

const SESSIONS: usize = 5_000;
const ROOMS: usize = 1_000;
const EACH_ROOM: usize = SESSIONS / ROOMS;
const RATE: usize = 2_000;
const PAYLOAD: usize = 256;
/// Bytes of a frame on the wire: the payload, its packet, its offset.
const FRAME: usize = PAYLOAD + 46;
const MOST: Duration = Duration::from_secs(120);

fn main() {
    if common::bare::is_child() || !common::is_bench() {
        return;
    }
    let (repeats, seconds) = (setting("REPEATS", 3), setting("SECONDS", 15));
    let mut table = Table::new(&["log", "server µs/delivery", "server µs/publish", "redis µs/publish", "deliveries"]);
    for on_redis in [false, true] {
        let runs: Vec<Cost> = (0..repeats).map(|_| chat(on_redis, seconds * RATE)).collect();
        let of = |number: &dyn Fn(&Cost) -> f64| median(runs.iter().map(number).collect());
        let server = of(&|cost| cost.server_us);
        let redis = of(&|cost| cost.redis_us);
        table.row(&[
            if on_redis { "Redis" } else { "embedded" }.into(),
            format!("{server:.2}"),
            format!("{:.1}", server * EACH_ROOM as f64),
            if on_redis { format!("{redis:.1}") } else { "–".into() },
            grouped((seconds * RATE * EACH_ROOM) as f64),
        ]);
    }
    let bare = median((0..repeats).map(|_| bare(seconds * RATE)).collect());
    table.row(&["bare write(2) loop".into(), format!("{bare:.2}"), "–".into(), "–".into(), "–".into()]);
    table.print(&format!(
        "chat: {SESSIONS} sessions in {ROOMS} rooms, {RATE} publishes/s of {PAYLOAD} B for {seconds} s, median of {repeats}"
    ));
    println!("elsewhere: socketioxide 21, socket.io 37, socket.io with its streams adapter 95 µs/delivery");
}

/// CPU microseconds of a loop that only writes the frames, at the same rate, to as many sockets.
fn bare(publishes: usize) -> f64 {
    let mut writer = Loop::start(SESSIONS, FRAME);
    let mut swarm = Swarm::new();
    swarm.connect(writer.address, Protocol::Bare, 100, vec![String::new(); SESSIONS]);
    writer.write(&mut swarm, ROOMS, EACH_ROOM, RATE);
    writer.write(&mut swarm, publishes, EACH_ROOM, RATE) / 1e3
}

/// CPU time: of the server for a delivery, of Redis for a publish.
struct Cost {
    server_us: f64,
    redis_us: f64,
}

fn chat(on_redis: bool, publishes: usize) -> Cost {
    let redis = on_redis.then(Redis::start);
    let server = Server::start(redis.as_ref(), "[socketio]\nping_interval = \"1h\"\n");
    let mut swarm = Swarm::new();
    let token = |user: usize| token::sign(user, &[&room(user)]);
    swarm.connect(server.address, Protocol::SocketIo, 200, (0..SESSIONS).map(token).collect());
    // Every room once, as a warm-up.
    publish(&server, &mut swarm, ROOMS);
    let redis_cpu = || redis.as_ref().map_or(Duration::ZERO, Redis::cpu);
    let (before, redis_before) = (server.cpu(), redis_cpu());
    publish(&server, &mut swarm, publishes);
    let (used, redis_used) = (server.cpu() - before, redis_cpu() - redis_before);
    swarm.assert_each(1 + publishes / ROOMS);
    Cost { server_us: nanos_each(used, publishes * EACH_ROOM) / 1e3, redis_us: nanos_each(redis_used, publishes) / 1e3 }
}

/// Rooms in an order that jumps about; 7 and 1,000 share no factor, so each comes equally often.
fn room(number: usize) -> String {
    format!("chat:{}", number * 7 % ROOMS)
}

fn publish(server: &Server, swarm: &mut Swarm, publishes: usize) {
    let total = swarm.received() + publishes * EACH_ROOM;
    let data = json_string(PAYLOAD);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut poster = Poster::events(server.address, 32, 1);
            at_rate(RATE, publishes, |index| poster.send(event(&room(index), &data).as_bytes()));
            poster.finish();
        });
        swarm.receive(total, MOST, |_, _| {});
    });
}
