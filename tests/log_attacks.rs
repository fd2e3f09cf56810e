//! A writer of the stream who chooses ids, floods it, or changes its type.
#![allow(clippy::unwrap_used)]

#[path = "common/log_node.rs"]
mod log_node;
#[path = "common/redis.rs"]
mod redis_server;

use log_node::{Node, SHORT, draft, names, until};
use redis_server::RedisServer;
use roomcast::log::LogStatus;
use roomcast::log::config::RecoveryConfig;
use roomcast::model::draft::Draft;
use roomcast::model::secret::Secret;
use roomcast::redis::config::RedisConfig;
use std::time::Duration;

const LARGEST: &str = "18446744073709551615-18446744073709551615";
const STREAM: &str = "roomcast:events";

async fn ready(url: &str) -> Node {
    let node = Node::with_short_timeout(url);
    node.status(LogStatus::Ready).await;
    node.tail.wait_reset(1).await;
    node
}

fn tomorrow() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}-5", (now + Duration::from_secs(86_400)).as_millis())
}

fn add(server: &RedisServer, id: &str, event: &str) {
    server.run::<String>(&["XADD", STREAM, id, "room", "r", "event", event]);
}

fn renewals(nodes: &[&Node]) -> usize {
    let of = |node: &Node| (0..100).find(|n| node.metric(&format!("roomcast_log_renewals_total {n}"))).unwrap();
    nodes.iter().map(|node| of(node)).sum()
}

#[tokio::test]
async fn after_an_id_far_in_the_future_the_log_goes_on_and_nobody_misses_anything() {
    for id in [LARGEST, &tomorrow()] {
        let server = RedisServer::start();
        let nodes = [ready(&server.url()).await, ready(&server.url()).await];
        let first = nodes[0].stored(draft("before")).await;
        add(&server, id, "poison");
        if id != LARGEST {
            // Until then, entries are added after it.
            nodes[0].tail.wait("a renewal", |seen| seen.renewals.first().cloned()).await;
        }
        let after = nodes[1].stored(draft("after")).await;
        // It is there for a few seconds.
        let keys: Vec<String> = server.run(&["KEYS", "*retired*"]);
        assert_eq!(keys.len(), 1);
        assert!((1..=5_000).contains(&server.run::<i64>(&["PTTL", &keys[0]])));
        assert_eq!(server.run::<String>(&["TYPE", &keys[0]]), "stream");
        nodes[0].stored(draft("again")).await;
        add(&server, "*", "of a stranger");
        for node in &nodes {
            node.tail.wait_event("of a stranger").await;
            let seen = node.tail.seen.lock().unwrap();
            assert_eq!(names(&seen.events), ["before", "poison", "after", "again", "of a stranger"], "{id}");
            assert_eq!((seen.resets.len(), seen.renewals.len()), (1, 1), "nobody missed anything");
            let last = seen.events.last().unwrap().offset;
            assert!(last.epoch != first.epoch && last.position.ms < first.position.ms + 60_000);
            assert!(seen.renewals[0].head >= first.position && seen.renewals[0].history.is_empty());
        }
        assert!(after.position.ms < first.position.ms + 60_000);
        assert_eq!(renewals(&[&nodes[0], &nodes[1]]), 1);
    }
}

#[tokio::test]
async fn a_node_that_is_behind_reads_the_rest_of_each_renewed_stream_first() {
    let server = RedisServer::start();
    let nodes = [ready(&server.url()).await, ready(&server.url()).await];
    let [ahead, behind] = &nodes;
    let gate = behind.tail.gate.lock().await;
    ahead.stored(draft("1")).await;
    behind.tail.wait("a delivery that waits", |seen| (seen.waiting > 0).then_some(())).await;
    for (n, renewed) in [("2", 1), ("4", 2)] {
        ahead.stored(draft(n)).await;
        add(&server, LARGEST, &(n.parse::<u32>().unwrap() + 1).to_string());
        ahead.tail.wait("a renewal", |seen| (seen.renewals.len() == renewed).then_some(())).await;
    }
    ahead.stored(draft("6")).await;
    drop(gate);
    for node in &nodes {
        node.tail.wait_event("6").await;
        let seen = node.tail.seen.lock().unwrap();
        assert_eq!(names(&seen.events), ["1", "2", "3", "4", "5", "6"]);
        assert_eq!(seen.resets.len(), 1, "nobody missed anything");
    }
    // One that was behind for longer than old streams are kept has a gap.
    let gate = behind.tail.gate.lock().await;
    ahead.stored(draft("7")).await;
    behind.tail.wait("a delivery that waits", |seen| (seen.waiting > 0).then_some(())).await;
    add(&server, LARGEST, "poison");
    ahead.tail.wait("a renewal", |seen| (seen.renewals.len() == 3).then_some(())).await;
    until("no old stream", || server.run::<Vec<String>>(&["KEYS", "*retired*"]).is_empty()).await;
    drop(gate);
    behind.tail.wait_reset(2).await;
    ahead.stored(draft("8")).await;
    behind.tail.wait_event("8").await;
}

#[tokio::test]
async fn an_exhausted_stream_without_an_entry_takes_appends_at_once_and_the_trim_is_noticed() {
    let server = RedisServer::start();
    let nodes = [ready(&server.url()).await, ready(&server.url()).await];
    nodes[0].stored(draft("before")).await;
    for node in &nodes {
        node.tail.wait_event("before").await;
    }
    server.run::<String>(&["XADD", STREAM, "MAXLEN", "0", LARGEST, "room", "r", "event", "unseen"]);
    let with_id = Draft { id: Some("once".into()), ..draft("with an id") };
    let answers = nodes[0].log.append(vec![draft("after"), with_id.clone()]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    for node in &nodes {
        node.tail.wait_reset(2).await;
        node.tail.wait_event("with an id").await;
        let seen = node.tail.seen.lock().unwrap();
        assert_eq!(names(&seen.events), ["before", "after", "with an id"]);
    }
    assert_eq!(
        nodes[1].append_one(with_id).await.unwrap().offset.unwrap().position,
        answers[1].as_ref().unwrap().offset.unwrap().position
    );
}

#[tokio::test]
async fn a_node_that_starts_on_an_exhausted_stream_begins_a_new_one() {
    let server = RedisServer::start();
    add(&server, "*", "old");
    add(&server, LARGEST, "poison");
    let node = ready(&server.url()).await;
    node.append_again("after").await;
    node.tail.wait_event("after").await;
    assert_eq!(renewals(&[&node]), 1);
    assert_eq!(node.tail.seen.lock().unwrap().resets.len(), 1);
}

#[tokio::test]
async fn without_the_right_to_rename_the_log_goes_on_too() {
    let server = RedisServer::start();
    server.run::<()>(&["ACL", "SETUSER", "roomcast", "on", ">x", "~*", "&*", "+@all", "-rename"]);
    let nodes = [
        ready(&format!("redis://roomcast:x@127.0.0.1:{}", server.port())).await,
        ready(&format!("redis://roomcast:x@127.0.0.1:{}", server.port())).await,
    ];
    add(&server, LARGEST, "poison");
    for (n, node) in nodes.iter().enumerate() {
        node.stored(draft(&format!("after {n}"))).await;
    }
    for node in &nodes {
        node.tail.wait_event("after 1").await;
    }
    assert_eq!(renewals(&[&nodes[0], &nodes[1]]), 1);
    assert!(server.run::<Vec<String>>(&["KEYS", "*retired*"]).is_empty());
}

#[tokio::test]
async fn old_entries_are_trimmed_although_others_are_of_the_near_future() {
    let server = RedisServer::start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let (mut connection, mut pipe) = (server.connection(), redis::pipe());
    for seq in 0..1000 {
        pipe.cmd("XADD")
            .arg(STREAM)
            .arg(format!("{}-{seq}", now - 3_600_000))
            .arg(&["room", "r", "event", "e"])
            .ignore();
    }
    pipe.exec(&mut connection).unwrap();
    // Skew that a failover may leave.
    add(&server, &format!("{}-0", now + 120_000), "near future");
    let node = ready(&server.url()).await;
    node.stored(draft("after")).await;
    node.tail.wait_event("after").await;
    until("a trimmed stream", || server.run::<usize>(&["XLEN", STREAM]) < 110).await;
    assert_eq!(renewals(&[&node]), 0);
}

async fn node_with_max(url: &str, max_stream_bytes: usize) -> Node {
    let config =
        RedisConfig { url: Some(Secret::new(url)), timeout: SHORT, max_stream_bytes, ..RedisConfig::default() };
    let node = Node::configured(&config, &RecoveryConfig::default());
    node.status(LogStatus::Ready).await;
    node.tail.wait_reset(1).await;
    node
}

fn flood(server: &RedisServer, entries: usize, bytes: usize) {
    let (mut connection, data) = (server.connection(), format!("\"{}\"", "x".repeat(bytes)));
    for _ in 0..entries.div_ceil(100) {
        let mut pipe = redis::pipe();
        for _ in 0..entries.min(100) {
            pipe.cmd("XADD").arg(STREAM).arg("*").arg(&["room", "r", "event", "flood", "data", &data]).ignore();
        }
        pipe.exec(&mut connection).unwrap();
    }
}

fn stream_bytes(server: &RedisServer) -> usize {
    server.run::<Option<usize>>(&["MEMORY", "USAGE", STREAM, "SAMPLES", "0"]).unwrap_or(0)
}

#[tokio::test]
async fn a_flood_fills_redis_to_the_maximum_and_is_delivered() {
    const MAX: usize = 4_000_000;
    for (entries, bytes) in [(400, 100_000), (40_000, 400)] {
        let server = RedisServer::start();
        let node = node_with_max(&server.url(), MAX).await;
        flood(&server, entries, bytes);
        node.stored(draft("after")).await;
        node.tail.wait_event("after").await;
        until("a stream below the maximum", || stream_bytes(&server) < MAX * 5 / 4).await;
        assert!(!node.metric("roomcast_stream_trimmed_bytes_total 0"));
        let all = |seen: &log_node::Seen| seen.events.len() == entries + 1 || seen.resets.len() > 1;
        node.tail.wait("every event, or a reset", |seen| all(seen).then_some(())).await;
    }
}

#[tokio::test]
async fn what_was_added_while_no_node_was_up_is_cut_too() {
    const MAX: usize = 2_000_000;
    let server = RedisServer::start();
    server.run::<()>(&["ACL", "SETUSER", "roomcast", "on", ">x", "~*", "&*", "+@all", "-memory"]);
    let limited = format!("redis://roomcast:x@127.0.0.1:{}", server.port());
    for url in [server.url(), limited] {
        flood(&server, 100, 100_000);
        let node = node_with_max(&url, MAX).await;
        flood(&server, 10, 100_000);
        until("a stream below the maximum", || stream_bytes(&server) < MAX * 5 / 4).await;
        node.stored(draft("after")).await;
        node.tail.wait_event("after").await;
    }
}

/// An entry far larger than a node may read as a whole.
fn add_huge(server: &RedisServer, id: &str) {
    let data = "x".repeat(60_000_000);
    let mut command = redis::cmd("XADD");
    command.arg(STREAM).arg(id).arg(&["room", "r", "event", "huge", "data", &data]);
    command.query::<String>(&mut server.connection()).unwrap();
}

#[tokio::test]
async fn an_entry_that_is_too_large_to_be_read_is_a_dead_letter_wherever_it_is() {
    let server = RedisServer::start();
    let node = ready(&server.url()).await;
    node.stored(draft("before")).await;
    add_huge(&server, "*");
    node.append_again("between").await;
    node.tail.wait_event("between").await;
    let late = ready(&server.url()).await;
    assert_eq!(names(&late.tail.wait_reset(1).await.history), ["before", "between"]);
    // The largest id: nothing comes after it, and the rest of the stream is read after it was renewed.
    add_huge(&server, LARGEST);
    node.append_again("after").await;
    for node in [&node, &late] {
        node.tail.wait_event("after").await;
    }
    until("two dead letters", || server.run::<usize>(&["XLEN", "roomcast:dead"]) == 2).await;
    let dead: Vec<(String, Vec<(String, String)>)> = server.run(&["XRANGE", "roomcast:dead", "-", "+"]);
    assert!(dead.iter().all(|(_, fields)| fields[1].1.contains("600000") && fields.len() == 5), "{dead:?}");
}

#[tokio::test]
async fn appends_that_are_refused_for_good_are_a_problem_until_they_work_again() {
    let server = RedisServer::start();
    let node = ready(&server.url()).await;
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(node.append_one(draft("full")).await.is_err());
    until("the problem", || node.log.problem().is_some_and(|why| why.contains("OOM"))).await;
    assert_eq!(node.log.status(), LogStatus::Connecting);
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    node.status(LogStatus::Ready).await;
    assert_eq!(node.log.problem(), None);
    server.run::<()>(&["DEL", STREAM]);
    server.run::<()>(&["LPUSH", STREAM, "x"]);
    until("the problem", || node.log.problem().is_some_and(|why| why.contains("WRONGTYPE"))).await;
    assert_eq!(node.log.status(), LogStatus::Connecting);
    server.run::<()>(&["DEL", STREAM]);
    node.status(LogStatus::Ready).await;
    node.append_again("again").await;
    node.tail.wait_event("again").await;
    assert_eq!(node.log.problem(), None);
}
