//! A log with partitions on a real Redis Cluster: every line on its master, one order in each room, and the faults of one
//! line that the others do not notice.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and tells how long it took")]

#[path = "common/load.rs"]
mod load;
#[path = "common/log_node.rs"]
mod log_node;
#[path = "common/redis_groups.rs"]
mod redis_groups;
#[path = "common/redis.rs"]
mod redis_server;

use load::Load;
use log_node::{LONG, Node, SHORT, draft_to, names};
use redis_groups::{Cluster, eventually};
use redis_server::RedisServer;
use roomcast::log::{AppendError, LogStatus};
use roomcast::model::args::Args;
use roomcast::model::draft::Draft;
use roomcast::model::id::Id;
use roomcast::model::offset::{Offset, Position};
use roomcast::model::partition::{Line, Partitions};
use roomcast::model::secret::Secret;
use roomcast::redis::config::RedisConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONTROL: &str = "roomcast:events";

/// Real groups of processes; one at a time, so that their failure detectors see failures only where we make them.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn partitions() -> Partitions {
    Partitions::new(8, 0)
}

fn config(url: &str, timeout: Duration) -> RedisConfig {
    RedisConfig { url: Some(Secret::new(url)), partitions: 8, timeout, ..RedisConfig::default() }
}

async fn ready(url: &str, timeout: Duration) -> Node {
    let node = Node::partitioned(&config(url, timeout));
    node.status(LogStatus::Ready).await;
    node
}

fn stream(line: Line) -> String {
    match line {
        Line::CONTROL => CONTROL.into(),
        partition => format!("{CONTROL}:{{{partition}}}"),
    }
}

/// A room of each partition.
fn rooms() -> Vec<String> {
    let of = |line: Line| (0..).map(|n| format!("room:{n}")).find(|room| partitions().of(room) == line).unwrap();
    partitions().lines().skip(1).map(of).collect()
}

fn xadd(server: &RedisServer, stream: &str, id: &str, fields: &[&str]) -> Position {
    let id: String = server.run(&[&["XADD", stream, id], fields].concat());
    Position::parse(&id).unwrap()
}

/// The fields of the newest entry of a stream.
fn newest(server: &RedisServer, stream: &str) -> BTreeMap<String, String> {
    let entries: Vec<(String, Vec<String>)> = server.run(&["XREVRANGE", stream, "+", "-", "COUNT", "1"]);
    entries[0].1.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

#[tokio::test]
async fn each_room_is_on_its_line_in_order_and_once() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start();
    let nodes = [ready(&cluster.url(), LONG).await, ready(&cluster.url(), LONG).await];
    let [node, other] = &nodes;
    let masters: BTreeSet<usize> = partitions().lines().map(|line| cluster.owner(&stream(line), 0)).collect();
    assert_eq!(masters.len(), 3, "the lines are spread");
    let rooms = rooms();

    // One request with events to all of them: answers in its order, each with the line of its room.
    let drafts = (0..400).map(|n| draft_to(&rooms[n % 8], &format!("e{n}"))).collect();
    let answers: Vec<Offset> = node.log.append(drafts).await.into_iter().map(|a| a.unwrap().offset.unwrap()).collect();
    for (n, offset) in answers.iter().enumerate() {
        assert_eq!(offset.line, partitions().of(&rooms[n % 8]));
    }
    for node in &nodes {
        let events = node.tail.wait_events(400).await;
        for (n, room) in rooms.iter().enumerate() {
            let came: Vec<_> = events.iter().filter(|event| *event.draft.rooms[0] == **room).collect();
            let offsets: Vec<Offset> = came.iter().map(|event| event.offset).collect();
            let expected: Vec<Offset> = answers.iter().skip(n).step_by(8).copied().collect();
            assert_eq!(offsets, expected, "{room}");
        }
    }

    // Several partitions, everybody and one session: once, on the control line.
    let session = Id::random_session().to_string();
    let both = Draft { rooms: vec![(&*rooms[0]).into(), (&*rooms[1]).into()], ..draft_to("x", "both") };
    for draft in [both, draft_to(&session, "own")] {
        assert_eq!(node.stored(draft).await.line, Line::CONTROL);
    }
    other.tail.wait_event("own").await;
    let seen = names(&other.tail.seen.lock().unwrap().events);
    assert_eq!(seen.iter().filter(|name| *name == "both").count(), 1);

    // Others add to any line; a room of another partition is a malformed entry there.
    let [first, second] = [&rooms[0], &rooms[1]].map(|room| (room, partitions().of(room)));
    let at = |line| &cluster.servers[cluster.owner(&stream(line), 0)];
    xadd(at(first.1), &stream(first.1), "*", &["room", first.0, "event", "direct"]);
    xadd(at(Line::CONTROL), CONTROL, "*", &["room", first.0, "event", "anywhere"]);
    xadd(at(second.1), &stream(second.1), "*", &["room", first.0, "event", "astray"]);
    for name in ["direct", "anywhere"] {
        other.tail.wait_event(name).await;
    }
    let dead = &cluster.servers[cluster.owner("roomcast:dead", 0)];
    eventually("the stray is a dead letter", || dead.try_run(&["XLEN", "roomcast:dead"]) == Ok(1)).await;
    assert_eq!(newest(dead, "roomcast:dead")["stream"], stream(second.1));

    // Idempotency ids, volatile events and probes are each line's.
    let with_id = || Draft { id: Some("once".into()), ..draft_to(first.0, "with an id") };
    assert_eq!(node.stored(with_id()).await, other.stored(with_id()).await);
    node.append_one(Draft { volatile: true, ..draft_to(second.0, "volatile") }).await.unwrap();
    assert_eq!(other.tail.wait_event("volatile").await.offset.line, second.1);
    let id = Id::random();
    node.log.probe(id).await.unwrap();
    let came = |seen: &log_node::Seen| seen.probes.iter().filter(|probe| **probe == id).count() == 9;
    other.tail.wait("the probe on every line", |seen| came(seen).then_some(())).await;
    assert!(!names(&other.tail.seen.lock().unwrap().events).contains(&"astray".to_owned()));
}

#[tokio::test]
async fn an_entry_waits_for_what_it_comes_after_on_another_line() {
    let _alone = ALONE.lock().await;
    let server = RedisServer::start();
    let node = ready(&server.url(), LONG).await;
    let rooms = rooms();
    let line = partitions().of(&rooms[0]);

    // A node names what it acknowledged.
    let first = node.stored(draft_to(&rooms[0], "first")).await;
    let both = Draft { rooms: vec![(&*rooms[0]).into(), (&*rooms[1]).into()], ..draft_to("x", "second") };
    let second = node.stored(both).await;
    assert_eq!(newest(&server, CONTROL)["after"], format!("{line}:{}@{:x}", first.position, first.epoch.0));
    node.stored(draft_to(&rooms[0], "third")).await;
    assert_eq!(newest(&server, &stream(line))["after"], format!("0:{}@{:x}", second.position, second.epoch.0));
    node.stored(draft_to(&rooms[2], "apart")).await;
    assert!(!newest(&server, &stream(partitions().of(&rooms[2]))).contains_key("after"));

    // Readers wait for it, for a second: where this machine stops for as long, it is tried again.
    let held = |name: &str, after: &str| {
        xadd(&server, CONTROL, "*", &["room", &rooms[1], "event", name, "t", "1", "after", after]);
    };
    node.tail.wait_event("third").await;
    let mut rounds = 1..=5;
    loop {
        let round = rounds.next().expect("a reader that waits");
        let [before, awaited, behind] = ["held", "awaited", "behind"].map(|name| format!("{name} {round}"));
        let there = format!("{}-0", second.position.ms + 5_000 * round);
        held(&before, &format!("{line}:{there}"));
        xadd(&server, CONTROL, "*", &["room", &rooms[1], "event", &behind]);
        xadd(&server, &stream(line), &there, &["room", &rooms[0], "event", &awaited]);
        for name in [&awaited, &behind] {
            node.tail.wait_event(name).await;
        }
        let mut order = names(&node.tail.seen.lock().unwrap().events);
        order.retain(|name| name.ends_with(&format!(" {round}")));
        if order == [awaited, before, behind] {
            break;
        }
    }
    let out_of_order =
        |more| (0..5).any(|tried| node.metric(&format!("roomcast_log_out_of_order_total {}", tried + more)));
    assert!(out_of_order(0));

    // But not for ever, and once.
    let begun = Instant::now();
    for name in ["in vain", "in vain too"] {
        held(name, &format!("{line}:{}-0", second.position.ms + 60_000));
    }
    node.tail.wait_event("in vain too").await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(out_of_order(2));
}

#[tokio::test]
async fn one_lines_failover_and_migration_leave_the_others_alone() {
    let _alone = ALONE.lock().await;
    let mut cluster = Arc::new(Cluster::start());
    for server in &cluster.servers {
        // Otherwise all masters refuse while one is gone.
        server.run::<()>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let node = ready(&cluster.url(), SHORT).await;
    let rooms = rooms();
    let control = cluster.owner(CONTROL, 0);
    let owner_of = |room: &String| cluster.owner(&stream(partitions().of(room)), 0);
    let moved = rooms.iter().find(|room| owner_of(room) != control).unwrap();
    let owner = owner_of(moved);
    let still = rooms.iter().find(|room| owner_of(room) != owner).unwrap();
    let line = partitions().of(moved);
    let (load, calm) = (Load::to(&node.log, moved, partitions()), Load::to(&node.log, still, partitions()));
    load.more(100).await;

    let (before, calm_before) = (load.count(), calm.count());
    let (moving, key) = (cluster.clone(), stream(line));
    tokio::task::spawn_blocking(move || moving.migrate(&key, control)).await.unwrap();
    let pause = load.recovered(before).await;
    println!("migration: none taken for {pause:?}");
    load.more(100).await;
    node.status(LogStatus::Ready).await;
    assert_eq!(node.tail.seen.lock().unwrap().resets.len(), 9, "a migration loses nothing");
    assert!(calm.is_uninterrupted(calm_before), "the other line goes on");

    // The former owner has other lines, but not this one any more.
    let lost = rooms.iter().find(|room| owner_of(room) == owner && *room != moved).cloned();
    let (before, calm_before) = (calm.count(), load.count());
    Arc::get_mut(&mut cluster).unwrap().servers[owner].kill();
    if let Some(room) = &lost {
        let hit = Load::to(&node.log, room, partitions());
        hit.recovered(0).await;
        hit.more(50).await;
        let (came, lost) = hit.check(&node).await;
        println!("failover: {came} arrived, {lost} lost with a reset of their line");
    }
    node.status(LogStatus::Ready).await;
    assert!(calm.is_uninterrupted(before) && load.is_uninterrupted(calm_before), "only the lines of that master stop");
    for (load, room) in [(load, moved), (calm, still)] {
        let (came, lost) = load.check(&node).await;
        assert_eq!(lost, 0, "{room}");
        assert!(came > 100);
    }
    let resets = |line| node.tail.seen.lock().unwrap().resets.iter().filter(|snapshot| snapshot.line == line).count();
    assert_eq!((resets(line), resets(partitions().of(still))), (1, 1));
}

#[tokio::test]
async fn a_line_that_hangs_is_alone_in_it() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start();
    let node = ready(&cluster.url(), Duration::from_secs(2)).await;
    let rooms = rooms();
    let owner_of = |room: &String| cluster.owner(&stream(partitions().of(room)), 0);
    let control = cluster.owner(CONTROL, 0);
    let hangs = rooms.iter().find(|room| owner_of(room) != control).unwrap();
    let works = rooms.iter().find(|room| owner_of(room) != owner_of(hangs)).unwrap();
    cluster.servers[owner_of(hangs)].run::<()>(&["CLIENT", "PAUSE", "8000", "ALL"]);
    // Twice the timeout, with time to spare.
    let begun = Instant::now();
    let (hung, worked) =
        tokio::join!(node.append_one(draft_to(hangs, "late")), node.append_one(draft_to(works, "now")));
    assert!(matches!(hung, Err(AppendError::Unavailable(_))), "{hung:?}");
    worked.unwrap();
    // In one request too: only what is on that line is refused.
    let both = node.log.append(vec![draft_to(works, "and now"), draft_to(hangs, "late too")]).await;
    assert!(both[0].is_ok() && both[1].is_err(), "{both:?}");
    node.tail.wait_event("and now").await;
    println!("the other line worked {:?} after the first hung", begun.elapsed());
    node.stored_again(draft_to(hangs, "after")).await;
    node.tail.wait_event("after").await;
    node.status(LogStatus::Ready).await;
    let seen = node.tail.seen.lock().unwrap();
    assert!(!names(&seen.events).iter().any(|name| name.starts_with("late")), "what was refused is not stored");
    assert_eq!(seen.resets.len(), 9);
}

/// A new number of partitions begins a new generation of every line, and a node with another does not work.
#[tokio::test]
async fn a_log_has_one_layout() {
    let _alone = ALONE.lock().await;
    let server = RedisServer::start();
    let one = Node::partitioned(&RedisConfig { partitions: 1, ..config(&server.url(), LONG) });
    one.status(LogStatus::Ready).await;
    let args = Args::one("1").unwrap();
    let before = one.stored(Draft { args, ..draft_to("room", "of one") }).await;
    assert!(server.run::<Option<String>>(&["GET", "roomcast:{roomcast:events}:partitions"]).is_none());

    // It is live, as its heartbeats say.
    let (nodes, live) = ("roomcast:{roomcast:events}:nodes", "00000000000000000000000000000001");
    let mut listener = server.connection();
    let mut listening = listener.as_pubsub();
    listening.subscribe(format!("roomcast:node:{live}")).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() + 60_000;
    server.run::<()>(&["ZADD", nodes, &now.to_string(), live]);
    let eight = Node::partitioned(&config(&server.url(), LONG));
    eventually("the other says why it waits", || {
        eight.log.problem().is_some_and(|why| why.contains("has 1/0") && why.contains("a live node has another"))
    })
    .await;
    let refused = eight.append_one(draft_to("room", "refused")).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(why)) if why.contains("partitions")));
    assert!(eight.tail.seen.lock().unwrap().resets.is_empty());

    // Now it is a node with the new one.
    server.run::<()>(&["HSET", "roomcast:{roomcast:events}:features", live, "1 8/0"]);
    eight.status(LogStatus::Ready).await;
    assert_eq!(server.run::<String>(&["GET", "roomcast:{roomcast:events}:partitions"]), "8/0");
    // The one that went on without a heartbeat hears of it, tells its clients, and refuses.
    let told = one.tail.wait_reset(2).await;
    assert_ne!(told.epoch, before.epoch);
    eventually("it says why", || one.log.problem().is_some_and(|why| why.contains("has 8/0"))).await;
    let seen = eight.tail.seen.lock().unwrap();
    assert!(seen.resets.iter().all(|snapshot| snapshot.epoch != before.epoch), "no offset of before counts");
    assert_eq!(seen.resets.len(), 9);
}
