//! A Redis that is full, evicts, is demoted, hangs, crashes or trims, and replicas that lag.
#![allow(clippy::unwrap_used)]

#[path = "common/load.rs"]
mod load;
#[path = "common/log_node.rs"]
mod log_node;
#[path = "common/redis.rs"]
mod redis_server;

use load::Load;
use log_node::{DEADLINE, Node, SHORT, draft, names, until};
use redis_server::RedisServer;
use roomcast::log::config::RecoveryConfig;
use roomcast::log::{AppendError, LogStatus};
use roomcast::model::draft::Draft;
use roomcast::model::secret::Secret;
use roomcast::redis::config::RedisConfig;
use std::time::Instant;

async fn ready(url: &str) -> Node {
    let node = Node::with_short_timeout(url);
    node.status(LogStatus::Ready).await;
    node
}

#[tokio::test]
async fn a_full_redis_refuses_appends_until_there_is_room() {
    let server = RedisServer::start();
    let node = ready(&server.url()).await;
    node.stored(draft("before")).await;
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let answers = node.log.append(vec![draft("full"), draft("full")]).await;
    let full = |error: &AppendError| matches!(error, AppendError::Refused(why) if why.contains("OOM"));
    assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(full)), "{answers:?}");
    // Reading needs no memory: the tail reconnects while Redis is full.
    server.run::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    until("a reconnection", || !node.metric("roomcast_redis_reconnects_total 0")).await;
    node.status(LogStatus::Ready).await;
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    node.append_again("after").await;
    node.tail.wait_event("after").await;
    assert_eq!(names(&node.tail.seen.lock().unwrap().events), ["before", "after"]);
    assert_eq!(node.tail.seen.lock().unwrap().resets.len(), 1);
}

#[tokio::test]
async fn an_evicted_log_is_a_discontinuity() {
    let server = RedisServer::start();
    let node = ready(&server.url()).await;
    let begun = node.tail.wait_reset(1).await;
    node.stored(draft("before")).await;
    node.tail.wait_event("before").await;
    server.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let deadline = Instant::now() + DEADLINE;
    while server.run::<usize>(&["DBSIZE"]) > 0 {
        assert!(Instant::now() < deadline, "nothing is evicted");
        let _ = server.try_run::<()>(&["SET", "x", "y"]);
    }
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    let again = node.tail.wait_reset(2).await;
    assert_ne!(again.epoch, begun.epoch);
    node.append_again("after").await;
    assert_eq!(node.tail.wait_event("after").await.offset.epoch, again.epoch);
}

#[tokio::test]
async fn a_replica_is_not_used_until_it_is_a_master() {
    let master = RedisServer::start();
    let server = RedisServer::with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let node = Node::with_short_timeout(&server.url());
    let answer = node.append_one(draft("early")).await;
    assert!(matches!(answer, Err(AppendError::Unavailable(_))), "{answer:?}");
    assert_eq!(node.log.status(), LogStatus::Connecting);
    server.run::<()>(&["REPLICAOF", "NO", "ONE"]);
    node.append_again("promoted").await;
    node.tail.wait_event("promoted").await;
    node.status(LogStatus::Ready).await;
    // Demoted while in use; it keeps its data, since its master is a closed port.
    let begun = node.tail.wait_reset(1).await;
    let nobody = redis_server::free_port().to_string();
    server.run::<()>(&["REPLICAOF", "127.0.0.1", &nobody]);
    let answer = node.append_one(draft("demoted")).await;
    assert!(matches!(answer, Err(AppendError::Unavailable(_))), "not for good, so not refused: {answer:?}");
    node.status(LogStatus::Connecting).await;
    server.run::<()>(&["REPLICAOF", "NO", "ONE"]);
    node.append_again("again").await;
    assert_eq!(node.tail.wait_event("again").await.offset.epoch, begun.epoch, "nothing was lost");
}

#[tokio::test]
async fn an_append_that_timed_out_is_not_delivered_later() {
    let server = RedisServer::start();
    let node = ready(&server.url()).await;
    node.stored(draft("before")).await;
    let with_id = |name: &str| Draft { id: Some(name.into()), ..draft(name) };
    let volatile = Draft { volatile: true, ..draft("volatile") };
    server.freeze();
    let drafts = vec![draft("late"), with_id("late with an id"), volatile];
    // The first is sent at once and waits in the socket of the frozen server; the second waits in the queue.
    let (first, second) = tokio::join!(node.log.append(drafts), node.append_one(draft("late too")));
    for answer in first.iter().chain([&second]) {
        assert!(matches!(answer, Err(AppendError::Unavailable(_))), "{answer:?}");
    }
    server.thaw();
    node.append_again("after").await;
    node.stored_again(with_id("late with an id")).await;
    node.tail.wait_event("late with an id").await;
    assert_eq!(names(&node.tail.seen.lock().unwrap().events), ["before", "after", "late with an id"]);
    // What came too late is void (`log_appends`).
    assert!((3..=5).contains(&server.run::<usize>(&["XLEN", "roomcast:events"])));
    // A pause shorter than the timeout only delays.
    node.status(LogStatus::Ready).await;
    server.freeze();
    let waiting = node.log.append(vec![draft("delayed")]);
    let thaw = async {
        tokio::task::yield_now().await;
        server.thaw();
    };
    let (answers, ()) = tokio::join!(waiting, thaw);
    assert!(answers[0].is_ok(), "{answers:?}");
}

#[tokio::test]
async fn a_crash_with_appendfsync_everysec_loses_nothing_without_a_discontinuity() {
    let mut server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let node = ready(&server.url()).await;
    let load = Load::start(&node.log);
    for _ in 0..3 {
        load.more(100).await;
        let before = load.count();
        server.kill();
        server.resume_from_disk();
        load.recovered(before).await;
    }
    load.more(100).await;
    load.check(&node).await;
}

#[tokio::test]
async fn ids_of_the_near_future_and_trimming_of_read_entries_change_nothing() {
    let server = RedisServer::start();
    let node = ready(&server.url()).await;
    let first = node.stored(draft("first")).await;
    let future = format!("{}-7", first.position.ms + 120_000);
    server.run::<String>(&["XADD", "roomcast:events", &future, "room", "r", "event", "future"]);
    let next = node.stored(draft("next")).await;
    assert_eq!(next.position.ms, first.position.ms + 120_000, "ids only rise");
    node.tail.wait_event("next").await;
    server.run::<usize>(&["XTRIM", "roomcast:events", "MAXLEN", "1"]);
    server.run::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    node.append_again("after").await;
    node.tail.wait_event("after").await;
    server.run::<usize>(&["XTRIM", "roomcast:events", "MAXLEN", "0"]);
    server.run::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    node.append_again("emptied").await;
    node.tail.wait_event("emptied").await;
    let seen = node.tail.seen.lock().unwrap();
    assert_eq!(names(&seen.events), ["first", "future", "next", "after", "emptied"]);
    assert_eq!(seen.resets.len(), 1, "nobody missed anything");
}

#[tokio::test]
async fn an_append_waits_for_min_replicas() {
    let master = RedisServer::start();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let url = Some(Secret::new(master.url()));
    let config = RedisConfig { url, min_replicas: 1, timeout: SHORT, ..RedisConfig::default() };
    let node = Node::configured(&config, &RecoveryConfig::default());
    node.status(LogStatus::Ready).await;
    let with_id = |name: &str| Draft { id: Some(name.into()), ..draft(name) };
    let replicated = |name: &'static str| {
        let deadline = Instant::now() + DEADLINE;
        let node = &node;
        async move {
            loop {
                match node.append_one(with_id(name)).await {
                    Ok(accepted) => return accepted,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
            }
        }
    };
    // The replica must be in sync first.
    assert_eq!(replicated("replicated").await.replicas, Some(1));
    let volatile = Draft { volatile: true, ..draft("volatile") };
    assert_eq!(node.append_one(volatile).await.unwrap().replicas, None);

    replica.freeze();
    let missing = AppendError::NotReplicated { have: 0, wanted: 1 };
    assert!(missing.to_string().contains("a retry with the same `id` is safe"));
    let missing = Err(missing);
    assert_eq!(node.append_one(with_id("alone")).await, missing);
    assert_eq!(node.append_one(with_id("alone")).await, missing, "a repeat has to be replicated as well");
    assert_eq!(node.append_one(draft("alone too")).await, missing);
    replica.thaw();
    let again = replicated("alone").await;
    assert_eq!(again.replicas, Some(1));
    let alone = node.tail.wait_event("alone").await;
    assert_eq!(Some(alone.offset), again.offset, "stored the first time");
    node.stored(draft("last")).await;
    node.tail.wait_event("last").await;
    let came = names(&node.tail.seen.lock().unwrap().events);
    assert_eq!(came.iter().filter(|name| *name != "volatile").count(), 4, "{came:?}");
}
