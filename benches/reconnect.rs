//! A node dies with thousands of Socket.IO sessions, and all of them come to another at once: how long until each has its
//! session and what it missed, what that costs, and what the records of sessions cost while nothing happens.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod common;

use common::http::{Poster, event};
use common::process::{Redis, Server};
use common::report::{Table, grouped, nanos_each};
use common::swarm::{Session, Swarm};
use common::{setting, token};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const RULES: &str = "[[rooms]]\nmatch = \"user:{user}\"\njoin = \"auto\"\n";
/// Events to each room before the node dies, and while nobody is there.
const BEFORE: usize = 3;
const MISSED: usize = 5;
const MOST: Duration = Duration::from_secs(60);
const THREADS: usize = 2;

fn main() {
    if !common::is_bench() {
        return;
    }
    let (sessions, at_once) = (setting("SESSIONS", 10_000), setting("AT_ONCE", 10_000));
    let seconds = setting("SECONDS", 25);
    // Members of each of the rooms.
    let each_room = setting("EACH_ROOM", 100);
    let redis = Redis::start();
    let (dying, staying) = (Server::start(Some(&redis), RULES), Server::start(Some(&redis), RULES));
    let rooms = sessions.div_ceil(each_room);

    let quiet = watch(&redis, || std::thread::sleep(Duration::from_secs(10)));
    let mut clients = Clients::new(sessions, each_room);
    let fresh = measure(&dying, &redis, || clients.enter(&dying, at_once));
    publish(&dying, rooms, 0..BEFORE);
    clients.receive(BEFORE);
    // The records of what has just happened are written first.
    clients.hold(Duration::from_secs(1));
    let steady = watch(&redis, || clients.hold(Duration::from_secs(seconds as u64)));

    drop(dying);
    publish(&staying, rooms, BEFORE..BEFORE + MISSED);
    let before = clients.take_sessions();
    let resumed = measure(&staying, &redis, || clients.enter(&staying, at_once));
    clients.assert_recovered(&before);

    let mut table = Table::new(&["", "seconds", "server CPU µs/client", "redis CPU µs/client", "commands of Redis"]);
    for (name, cost) in [("fresh, without pid", &fresh), ("resumed after kill -9", &resumed)] {
        table.row(&[
            name.into(),
            format!("{:.2}", cost.elapsed.as_secs_f64()),
            format!("{:.1}", nanos_each(cost.server, sessions) / 1e3),
            format!("{:.1}", nanos_each(cost.redis, sessions) / 1e3),
            named(&cost.commands, 1.0),
        ]);
    }
    table.row(&[
        "resumed / fresh".into(),
        format!("{:.2}", resumed.elapsed.as_secs_f64() / fresh.elapsed.as_secs_f64()),
        format!("{:.2}", resumed.server.as_secs_f64() / fresh.server.as_secs_f64()),
        format!("{:.2}", resumed.redis.as_secs_f64() / fresh.redis.as_secs_f64()),
        String::new(),
    ]);
    let title = format!(
        "reconnect: {} sessions, {at_once} at once, {MISSED} events missed by each, all recovered",
        grouped(sessions as f64)
    );
    table.print(&title);

    let mut table = Table::new(&["records of sessions", "redis CPU ms/s", "commands/s of Redis"]);
    for (name, cost) in [("two nodes, nobody there", &quiet), ("with the idle sessions", &steady)] {
        let seconds = cost.elapsed.as_secs_f64();
        let cpu = cost.redis.as_secs_f64() * 1e3 / seconds;
        table.row(&[name.into(), format!("{cpu:.2}"), named(&cost.commands, seconds)]);
    }
    table.print(&format!("records: {} idle sessions, {seconds} s", grouped(sessions as f64)));
    let asked = resumed.commands.get("eval").copied().unwrap_or(0);
    let read = resumed.commands.get("xrevrange").copied().unwrap_or(0);
    println!(
        "aim: all recovered, and fewer reads of Redis than clients: {asked} scripts and {read} pages of the log for \
         {sessions} of them in {rooms} rooms"
    );
    assert!(asked < sessions as u64 / 10, "{asked} scripts for {sessions} clients: one read a client, or nearly");
}

/// What something cost.
struct Cost {
    elapsed: Duration,
    server: Duration,
    redis: Duration,
    commands: BTreeMap<String, u64>,
}

fn watch(redis: &Redis, work: impl FnOnce()) -> Cost {
    let (before, cpu, start) = (redis.commands(), redis.cpu(), Instant::now());
    work();
    let (elapsed, redis_cpu) = (start.elapsed(), redis.cpu() - cpu);
    let mut commands = redis.commands();
    for (name, count) in before {
        commands.entry(name).and_modify(|after| *after -= count);
    }
    commands.retain(|name, count| *count > 0 && name != "info");
    Cost { elapsed, server: Duration::ZERO, redis: redis_cpu, commands }
}

fn measure(server: &Server, redis: &Redis, work: impl FnOnce()) -> Cost {
    let cpu = server.cpu();
    let cost = watch(redis, work);
    Cost { server: server.cpu() - cpu, ..cost }
}

/// The commands and their counts, most called first, divided.
fn named(commands: &BTreeMap<String, u64>, by: f64) -> String {
    let mut all: Vec<_> = commands.iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let each = all.into_iter().map(|(name, count)| match by == 1.0 {
        true => format!("{name} {}", grouped(*count as f64)),
        false => format!("{name} {:.1}", *count as f64 / by),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn publish(server: &Server, rooms: usize, numbers: std::ops::Range<usize>) {
    let mut poster = Poster::events(server.address, 4, 8);
    for number in numbers {
        (0..rooms).for_each(|room| poster.send(event(&format!("room:{room}"), &number.to_string()).as_bytes()));
    }
    poster.finish();
}

/// All clients, on a few threads.
struct Clients {
    swarms: Vec<(Swarm, Vec<Session>)>,
}

impl Clients {
    /// Clients that were never connected.
    fn new(sessions: usize, each_room: usize) -> Self {
        let of_thread = |thread: usize| {
            let users = (thread..sessions).step_by(THREADS);
            let token = |user: usize| token::sign(user, &[&format!("room:{}", user / each_room)]);
            (Swarm::new(), users.map(|user| Session { token: token(user), ..Session::default() }).collect())
        };
        Self { swarms: (0..THREADS).map(of_thread).collect() }
    }

    fn each(&mut self, work: impl Fn(&mut Swarm, &mut Vec<Session>) + Sync) {
        std::thread::scope(|scope| {
            for (swarm, sessions) in &mut self.swarms {
                let work = &work;
                scope.spawn(move || work(swarm, sessions));
            }
        });
    }

    /// Connects all, until each is in and has what it missed.
    fn enter(&mut self, server: &Server, at_once: usize) {
        let address = server.address;
        self.each(|swarm, sessions| {
            let had = sessions.iter().any(|session| !session.pid.is_empty());
            let total = if had { sessions.len() * MISSED } else { 0 };
            let mut next = vec![BEFORE; sessions.len()];
            let mut check = |client: usize, payload: &[u8]| {
                let number = next[client];
                let expected = format!("42[\"message\",{number},");
                let text = String::from_utf8_lossy(payload);
                assert!(text.starts_with(&expected), "client {client} got {text} instead of number {number}");
                next[client] += 1;
            };
            swarm.resume(address, at_once / THREADS, std::mem::take(sessions), &mut check);
            swarm.receive(total, MOST, &mut check);
        });
    }

    fn receive(&mut self, count: usize) {
        self.each(|swarm, _| {
            let clients = swarm.sessions().len();
            swarm.receive(clients * count, MOST, |_, _| {});
            swarm.assert_each(count);
        });
    }

    fn hold(&mut self, time: Duration) {
        self.each(|swarm, _| swarm.hold(time));
    }

    /// What the clients know of their sessions; their connections are dropped.
    fn take_sessions(&mut self) -> Vec<Vec<Session>> {
        let take = |(swarm, sessions): &mut (Swarm, Vec<Session>)| {
            *sessions = std::mem::replace(swarm, Swarm::new()).sessions();
            sessions.clone()
        };
        self.swarms.iter_mut().map(take).collect()
    }

    /// Every client has its session again, and exactly what it missed.
    fn assert_recovered(&self, before: &[Vec<Session>]) {
        for ((swarm, _), before) in self.swarms.iter().zip(before) {
            swarm.assert_each(MISSED);
            let lost = swarm
                .sessions()
                .iter()
                .zip(before)
                .filter(|(now, was)| (&now.sid, &now.pid) != (&was.sid, &was.pid))
                .count();
            assert!(lost == 0, "{lost} of {} clients of a thread got a new session", before.len());
        }
    }
}
