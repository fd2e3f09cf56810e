//! Redis Sentinel and Redis Cluster with real servers that are killed, cut off and moved: every accepted event is
//! delivered, or the tail reports a discontinuity.
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
use log_node::{Node, draft, names};
use redis_groups::{Cluster, Watched, eventually};
use roomcast::log::LogStatus;
use roomcast::model::draft::Draft;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Without a restart, in seconds: Sentinels and Clusters here take one to see that a master is gone.
const RECOVERY: Duration = Duration::from_secs(50);

/// Real groups of processes; one at a time, so that their failure detectors see failures only where we make them.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn check(url: &str) -> String {
    let command = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(["check", "--redis-url", url])
        .env("JWT_SECRET", "a secret of at least 32 bytes, for tests")
        .current_dir(std::env::temp_dir())
        .output();
    String::from_utf8(command.unwrap().stderr).unwrap()
}

#[tokio::test]
async fn a_sentinel_failover_is_followed() {
    let _alone = ALONE.lock().await;
    let mut watched = Watched::start();
    let said = check(&watched.url());
    let first = format!("redis: ready at 127.0.0.1:{} (mymaster of the Sentinels at ", watched.servers[0].port());
    assert!(said.contains(&first), "{said}");
    let node = Node::with_short_timeout(&watched.url());
    node.status(LogStatus::Ready).await;
    let load = Load::start(&node.log);
    node.tail.wait_events(100).await;
    let before = load.count();
    watched.servers[0].kill();
    let pause = load.recovered(before).await;
    assert!(pause < RECOVERY, "{pause:?}");
    load.more(100).await;
    node.status(LogStatus::Ready).await;
    // The old master comes back as a replica; a Sentinel that is gone is not missed.
    watched.sentinels[0].kill();
    watched.servers[0].resume_from_disk();
    eventually("the old master is a replica", || watched.servers[0].info("replication").contains("role:slave")).await;
    load.more(100).await;
    let (came, lost) = load.check(&node).await;
    println!("failover: none taken for {pause:?}, {came} arrived, {lost} lost with a reset");
    assert!(check(&watched.url()).contains("redis: ready at"));
}

/// A master that hangs takes what it has not got to with it, and is a replica when it goes on.
#[tokio::test]
async fn a_hanging_master_is_replaced() {
    let _alone = ALONE.lock().await;
    let watched = Watched::start();
    let node = Node::with_short_timeout(&watched.url());
    node.status(LogStatus::Ready).await;
    let load = Load::start(&node.log);
    node.tail.wait_events(100).await;
    let before = load.count();
    watched.servers[0].freeze();
    let pause = load.recovered(before).await;
    assert!(pause < RECOVERY, "{pause:?}");
    load.more(100).await;
    watched.servers[0].thaw();
    eventually("the old master is a replica", || watched.servers[0].info("replication").contains("role:slave")).await;
    load.more(100).await;
    let (came, lost) = load.check(&node).await;
    println!("hang: none taken for {pause:?}, {came} arrived, {lost} lost with a reset");
}

/// Sentinels and servers with users of their own.
#[tokio::test]
async fn a_planned_failover_loses_nothing() {
    let _alone = ALONE.lock().await;
    let watched = Watched::start();
    for server in &watched.servers {
        server.run::<()>(&["CONFIG", "SET", "masterauth", "data"]);
    }
    for sentinel in &watched.sentinels {
        sentinel.run::<()>(&["SENTINEL", "SET", "mymaster", "auth-pass", "data"]);
    }
    for server in &watched.servers {
        server.run::<()>(&["CONFIG", "SET", "requirepass", "data"]);
    }
    let may = ["-@all", "+sentinel|get-master-addr-by-name"];
    for sentinel in &watched.sentinels {
        sentinel.run::<()>(&[&["ACL", "SETUSER", "watcher", "on", ">look"], &may[..]].concat());
    }
    let data = watched.url().replace("sentinel://", "sentinel://:data@");
    let url = format!("{data}?sentinel_username=watcher&sentinel_password=look");
    let said = check(&url.replace("=look", "=guess"));
    assert!(
        said.contains("no Sentinel named a master for \"mymaster\"") && said.contains("authentication failed"),
        "{said}"
    );
    let node = Node::with_short_timeout(&url);
    node.status(LogStatus::Ready).await;
    let load = Load::start(&node.log);
    node.tail.wait_events(100).await;
    eventually("Sentinels see good replicas", || {
        watched.sentinels[0].try_run::<()>(&["SENTINEL", "FAILOVER", "mymaster"]).is_ok()
    })
    .await;
    let moved = |node: &Node| !node.metric("roomcast_redis_reconnects_total 0");
    eventually("the node reconnects", || moved(&node)).await;
    load.more(200).await;
    let (came, lost) = load.check(&node).await;
    println!("planned failover: {came} arrived, {lost} lost with a reset");
    let wrong = Node::with_short_timeout(&watched.url());
    assert!(wrong.append_one(draft("x")).await.is_err(), "without the password");
}

/// Where the new master's ids begin: `ahead` is what the old master's clock is ahead.
async fn promote_a_lagging_replica(ahead: Option<u64>) {
    let _alone = ALONE.lock().await;
    let mut watched = Watched::start();
    let node = Node::with_short_timeout(&watched.url());
    node.status(LogStatus::Ready).await;
    let begun = node.tail.wait_reset(1).await;
    let kept = node.stored(draft("kept")).await;
    node.tail.wait_event("kept").await;
    watched.wait_for_replicas("roomcast:events", 1).await;
    let mut old_master = watched.servers[0].connection();
    watched.cut_replicas_off(0);
    let id = ahead.map_or("*".into(), |ahead| format!("{}-0", kept.position.ms + ahead));
    let entry = ["roomcast:events", &id, "room", "r", "event", "doomed"];
    let _: String = redis::cmd("XADD").arg(&entry).query(&mut old_master).unwrap();
    node.tail.wait_event("doomed").await;
    watched.servers[0].kill();
    let new = watched.master(Some(0)).await;
    // Newer ids may exist on the new master before the node has come back to it.
    watched.servers[new].run::<String>(&["XADD", "roomcast:events", "*", "room", "r", "event", "newer"]);
    let again = node.tail.wait_reset(2).await;
    assert_ne!(again.epoch, begun.epoch, "a new epoch");
    node.append_again("after").await;
    assert_eq!(node.tail.wait_event("after").await.offset.epoch, again.epoch);
    let seen = node.tail.seen.lock().unwrap();
    assert_eq!(seen.resets.len(), 2, "one reset");
    let came = names(&again.history).into_iter().chain(names(&seen.events)).filter(|name| name == "newer").count();
    assert_eq!(came, 1, "{:?} {:?}", names(&again.history), names(&seen.events));
}

#[tokio::test]
async fn the_promotion_of_a_lagging_replica_is_a_discontinuity() {
    promote_a_lagging_replica(None).await;
}

#[tokio::test]
async fn the_promotion_of_a_lagging_replica_with_a_slow_clock_is_a_discontinuity() {
    promote_a_lagging_replica(Some(3_600_000)).await;
}

/// The tail has not read what was acknowledged, so only the publishers' side knows that it is gone.
#[tokio::test]
async fn a_lost_event_that_was_acknowledged_and_not_read_is_a_discontinuity() {
    let _alone = ALONE.lock().await;
    let mut watched = Watched::start();
    let node = Node::with_short_timeout(&watched.url());
    node.status(LogStatus::Ready).await;
    let begun = node.tail.wait_reset(1).await;
    node.stored(draft("kept")).await;
    node.tail.wait_event("kept").await;
    let full = node.tail.gate.lock().await;
    node.stored(draft("held")).await;
    node.tail.wait("the tail to stand still", |seen| (seen.waiting > 0).then_some(())).await;
    watched.wait_for_replicas("roomcast:events", 2).await;
    watched.cut_replicas_off(0);
    node.stored(draft("acknowledged")).await;
    watched.servers[0].kill();
    let new = watched.master(Some(0)).await;
    node.status(LogStatus::Connecting).await;
    watched.servers[new].run::<String>(&["XADD", "roomcast:events", "*", "room", "r", "event", "newer"]);
    drop(full);
    let again = node.tail.wait_reset(2).await;
    assert_ne!(again.epoch, begun.epoch, "a new epoch");
}

#[tokio::test]
async fn a_cluster_is_followed_through_failover_and_migration() {
    const KEY: &str = "roomcast:events";
    let _alone = ALONE.lock().await;
    let mut cluster = Arc::new(Cluster::start());
    assert!(check(&cluster.url()).contains("(the Cluster at "));
    let nodes = [Node::with_short_timeout(&cluster.url()), Node::with_short_timeout(&cluster.url())];
    for node in &nodes {
        node.status(LogStatus::Ready).await;
    }
    let [node, other] = &nodes;
    let load = Load::start(&node.log);
    node.tail.wait_events(100).await;

    let owner = cluster.owner(KEY, 0);
    let to = cluster.masters().into_iter().find(|&at| at != owner).unwrap();
    let before = load.count();
    let moving = cluster.clone();
    tokio::task::spawn_blocking(move || moving.migrate(KEY, to)).await.unwrap();
    let pause = load.recovered(before).await;
    println!("migration: none taken for {pause:?}");
    assert!(pause < RECOVERY, "{pause:?}");
    load.more(100).await;
    for node in &nodes {
        node.status(LogStatus::Ready).await;
        assert_eq!(node.tail.seen.lock().unwrap().resets.len(), 1, "a migration loses nothing");
    }

    // Malformed entries, volatile events and repeated ids take their ways over several nodes.
    let owner = cluster.owner(KEY, to);
    cluster.servers[owner].run::<String>(&["XADD", KEY, "*", "room", "r", "evnt", "e"]);
    let dead = cluster.owner("roomcast:dead", owner);
    assert_ne!(dead, owner, "the test wants them apart");
    eventually("the malformed entry is copied", || cluster.servers[dead].try_run(&["XLEN", "roomcast:dead"]) == Ok(1))
        .await;
    let with_id = || Draft { id: Some("once".into()), ..draft("with an id") };
    assert_eq!(node.stored_again(with_id()).await, other.stored_again(with_id()).await);
    node.append_one(Draft { volatile: true, ..draft("volatile") }).await.unwrap();
    other.tail.wait_event("volatile").await;

    // A stream with the largest id is renewed within its slot.
    let largest = format!("{0}-{0}", u64::MAX);
    cluster.servers[owner].run::<String>(&["XADD", KEY, &largest, "room", "r", "event", "poison"]);
    for node in &nodes {
        node.tail.wait("a renewal", |seen| seen.renewals.first().cloned()).await;
        assert_eq!(node.tail.seen.lock().unwrap().resets.len(), 1, "nobody missed anything");
    }
    load.more(100).await;

    let before = load.count();
    Arc::get_mut(&mut cluster).unwrap().servers[owner].kill();
    let pause = load.recovered(before).await;
    assert!(pause < RECOVERY, "{pause:?}");
    load.more(100).await;
    node.status(LogStatus::Ready).await;
    let (came, lost) = load.check(node).await;
    println!("failover: none taken for {pause:?}, {came} arrived, {lost} lost with a reset");
}
