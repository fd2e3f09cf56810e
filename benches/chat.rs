//! CPU time of the server for each event of a chat: 5,000 Socket.IO sessions in 1,000 rooms of five, 2,000 events of 256
//! bytes a second, each its own `POST /publish` or sent by a client; on the embedded log and on Redis, beside a bare epoll
//! server of the same run.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::bare::Loop;
use common::floor;
use common::http::{Poster, at_rate, event};
use common::process::{Redis, Server};
use common::report::{Table, median, nanos_each};
use common::swarm::{Protocol, Swarm};
use common::{json_string, setting, token};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SESSIONS: usize = 5_000;
const ROOMS: usize = 1_000;
const EACH_ROOM: usize = SESSIONS / ROOMS;
const RATE: usize = 2_000;
const PAYLOAD: usize = 256;
/// Bytes of a frame on the wire: the payload, its packet, its offset.
const FRAME: usize = PAYLOAD + 46;
/// No heartbeats in the measured seconds, and a rule for what clients say.
const SETTINGS: &str = "[socketio]\nping_interval = \"1h\"\n[[on]]\nevent = \"say\"\n\
    emit = [{ room = \"chat:{0}\", event = \"message\", args = [\"{1}\"], include_caller = true }]\n";
const MOST: Duration = Duration::from_secs(120);

fn main() {
    if common::was_child() || !common::is_bench() {
        return;
    }
    let (repeats, seconds) = (setting("REPEATS", 3), setting("SECONDS", 15));
    for (title, way) in [("publishes", Way::Publish), ("client events", Way::ClientEvent)] {
        let rounds: Vec<[Cost; 3]> =
            (0..repeats).map(|_| SERVERS.map(|server| chat(server, way, seconds * RATE))).collect();
        let heads = ["", "server µs each", "µs/delivery", "× floor", "redis µs each", "× floor with redis"];
        let mut table = Table::new(&heads);
        for (index, name) in ["bare epoll floor", "embedded", "Redis"].into_iter().enumerate() {
            let of = |number: &dyn Fn(&[Cost; 3]) -> f64| median(rounds.iter().map(number).collect());
            let server = of(&|round| round[index].server_us);
            let with_redis = of(&|round| (round[index].server_us + round[index].redis_us) / round[0].server_us);
            table.row(&[
                name.into(),
                format!("{server:.1}"),
                format!("{:.2}", server / EACH_ROOM as f64),
                format!("{:.2}", of(&|round| round[index].server_us / round[0].server_us)),
                format!("{:.1}", of(&|round| round[index].redis_us)),
                format!("{with_redis:.2}"),
            ]);
        }
        table.print(&format!(
            "chat: {SESSIONS} sessions in {ROOMS} rooms, {RATE} {title}/s of {PAYLOAD} B for {seconds} s, median of {repeats}"
        ));
    }
    let bare = median((0..repeats).map(|_| bare(seconds * RATE)).collect());
    println!("a loop that only writes the frames: {bare:.2} µs/delivery");
    println!("aims for publishes: 1.5 × the floor embedded, 3 × on Redis, 4.5 × with Redis' own time");
}

/// CPU microseconds of a loop that only writes the frames, at the same rate, to as many sockets.
fn bare(publishes: usize) -> f64 {
    let mut writer = Loop::start(SESSIONS, FRAME);
    let mut swarm = Swarm::new();
    swarm.connect(writer.address, Protocol::Bare, 100, vec![String::new(); SESSIONS]);
    writer.write(&mut swarm, ROOMS, EACH_ROOM, RATE);
    writer.write(&mut swarm, publishes, EACH_ROOM, RATE) / 1e3
}

/// What is measured.
#[derive(Clone, Copy)]
enum Kind {
    Floor,
    Embedded,
    OnRedis,
}

const SERVERS: [Kind; 3] = [Kind::Floor, Kind::Embedded, Kind::OnRedis];

/// Who sends the events.
#[derive(Clone, Copy)]
enum Way {
    /// A backend, each with its own `POST /publish`.
    Publish,
    /// A member of the room, by a rule with `emit`.
    ClientEvent,
}

/// CPU microseconds for each event: of the server, and of Redis.
struct Cost {
    server_us: f64,
    redis_us: f64,
}

fn chat(kind: Kind, way: Way, events: usize) -> Cost {
    let mut swarm = Swarm::new();
    if let Kind::Floor = kind {
        let floor = floor::start();
        swarm.connect(floor.address, Protocol::SocketIo, 200, (0..SESSIONS).map(room).collect());
        let cpu = || (floor.cpu(), Duration::ZERO);
        return measure(&mut swarm, way, floor.address, events, &cpu);
    }
    let redis = matches!(kind, Kind::OnRedis).then(Redis::start);
    let server = Server::start(redis.as_ref(), SETTINGS);
    let token = |user: usize| token::sign(user, &[&room(user)]);
    swarm.connect(server.address, Protocol::SocketIo, 200, (0..SESSIONS).map(token).collect());
    let cpu = || (server.cpu(), redis.as_ref().map_or(Duration::ZERO, Redis::cpu));
    measure(&mut swarm, way, server.address, events, &cpu)
}

fn measure(
    swarm: &mut Swarm,
    way: Way,
    address: SocketAddr,
    events: usize,
    cpu: &dyn Fn() -> (Duration, Duration),
) -> Cost {
    let send = |swarm: &mut Swarm, count: usize| match way {
        Way::Publish => publish(address, swarm, count),
        Way::ClientEvent => say(swarm, count),
    };
    // Every room once, as a warm-up.
    send(swarm, ROOMS);
    let before = cpu();
    send(swarm, events);
    let after = cpu();
    swarm.assert_each(1 + events / ROOMS);
    let each = |before: Duration, after: Duration| nanos_each(after - before, events) / 1e3;
    Cost { server_us: each(before.0, after.0), redis_us: each(before.1, after.1) }
}

/// Rooms in an order that jumps about; 7 and 1,000 share no factor, so each comes equally often.
fn room(index: usize) -> String {
    format!("chat:{}", number(index))
}

fn number(index: usize) -> usize {
    index * 7 % ROOMS
}

fn publish(address: SocketAddr, swarm: &mut Swarm, publishes: usize) {
    let total = swarm.received() + publishes * EACH_ROOM;
    let data = json_string(PAYLOAD);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut poster = Poster::events(address, 32, 1);
            at_rate(RATE, publishes, |index| poster.send(event(&room(index), &data).as_bytes()));
            poster.finish();
        });
        swarm.receive(total, MOST, |_, _| {});
    });
}

/// The first member of each room says something to all of it, itself included.
fn say(swarm: &mut Swarm, events: usize) {
    let total = swarm.received() + events * EACH_ROOM;
    let data = json_string(PAYLOAD);
    let start = Instant::now();
    for index in 0..events {
        let at = start + Duration::from_nanos(index as u64 * 1_000_000_000 / RATE as u64);
        while Instant::now() < at {
            swarm.turn(at, &mut |_, _| {});
        }
        let client = index % ROOMS;
        swarm.send(client, format!("42[\"say\",\"{}\",{data}]", number(client)).as_bytes());
    }
    swarm.receive(total, MOST, |_, _| {});
}
