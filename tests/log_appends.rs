//! Appending over the connection of a shard: in order, many at once, and never later than the publisher's answer says.
#![allow(clippy::unwrap_used)]

#[path = "common/log_node.rs"]
mod log_node;
#[path = "common/redis.rs"]
mod redis_server;

use log_node::{Node, SHORT, draft, names, until};
use redis_server::RedisServer;
use roomcast::log::{AppendError, LogStatus};
use roomcast::model::draft::Draft;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

const EVENTS: &str = "roomcast:events";
type Entry = (String, Vec<String>);

/// Entries with this event, whether they count or not.
fn entries(server: &RedisServer, event: &str) -> Vec<Entry> {
    let all: Vec<Entry> = server.run(&["XRANGE", EVENTS, "-", "+"]);
    all.into_iter().filter(|(_, fields)| fields.windows(2).any(|pair| pair == ["event", event])).collect()
}

fn value<'a>((_, fields): &'a Entry, name: &str) -> Option<&'a str> {
    fields.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str())
}

fn milliseconds((id, _): &Entry) -> u64 {
    id.split('-').next().unwrap().parse().unwrap()
}

/// How often Redis has carried out a command.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let info = server.info("commandstats");
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

fn with_id(name: &str) -> Draft {
    Draft { id: Some(format!("id of {name}")), ..draft(name) }
}

fn volatile(name: &str) -> Draft {
    Draft { volatile: true, ..draft(name) }
}

#[tokio::test]
async fn appends_of_many_callers_need_one_command_each_and_keep_their_order() {
    let server = RedisServer::start();
    let node = Node::redis(&server.url(), "roomcast");
    node.status(LogStatus::Ready).await;
    node.stored(draft("first")).await;
    let before = ["xadd", "multi", "watch"].map(|command| calls(&server, command));
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..200 {
        let log = node.log.clone();
        callers.spawn(async move {
            let appended = log.append(vec![draft(&format!("{caller}a")), draft(&format!("{caller}b"))]).await;
            (caller, appended.into_iter().map(|one| one.unwrap().offset.unwrap().position).collect::<Vec<_>>())
        });
    }
    let mut positions = vec![Vec::new(); 200];
    while let Some(appended) = callers.join_next().await {
        let (caller, of_caller) = appended.unwrap();
        positions[caller] = of_caller;
    }
    let positions = positions.concat();
    assert!(positions.windows(2).all(|pair| pair[0] < pair[1]), "in the order of the calls");
    let events = node.tail.wait_events(401).await;
    let expected: Vec<String> = (0..200).flat_map(|n| [format!("{n}a"), format!("{n}b")]).collect();
    assert_eq!(names(&events[1..]), expected);
    // The node's own probes are transactions, some each second.
    let own = 10 * (1 + begun.elapsed().as_secs());
    let added = calls(&server, "xadd") - before[0];
    assert!((400..400 + own).contains(&added), "{added}");
    for (command, before) in [("multi", before[1]), ("watch", before[2])] {
        let more = calls(&server, command) - before;
        assert!(more < own, "{more} × {command}");
    }
}

#[tokio::test]
async fn what_a_hanging_redis_takes_too_late_is_void_for_every_reader() {
    let server = RedisServer::start();
    let node = Node::with_short_timeout(&server.url());
    node.status(LogStatus::Ready).await;
    node.stored(draft("before")).await;
    server.freeze();
    let late = vec![draft("late"), with_id("late with an id"), volatile("late volatile"), draft("late too")];
    let started = Instant::now();
    for answer in node.log.append(late).await {
        assert!(matches!(answer, Err(AppendError::Unavailable(_))), "{answer:?}");
    }
    assert!(started.elapsed() < SHORT * 2, "{:?}", started.elapsed());
    server.thaw();
    until("late entries that Redis took", || entries(&server, "late too").len() == 1).await;
    for entry in [entries(&server, "late"), entries(&server, "late too")].concat() {
        let until: u64 = value(&entry, "until").unwrap().parse().unwrap();
        assert!(milliseconds(&entry) > until, "{entry:?}");
    }
    assert!(entries(&server, "late with an id").is_empty(), "its script compares the deadline");
    node.append_again("after").await;
    node.tail.wait_event("after").await;
    // The id is free: the publisher repeats what was answered with an error.
    node.stored_again(with_id("late with an id")).await;
    node.tail.wait_event("late with an id").await;
    // The volatile one comes to nobody where the subscription was broken meanwhile.
    let counted = |n| node.metric(&format!("roomcast_drops_total{{reason=\"late\"}} {n}"));
    until("counted", || counted(2) || counted(3)).await;
    assert_eq!(names(&node.tail.seen.lock().unwrap().events), ["before", "after", "late with an id"]);
    let newcomer = Node::redis(&server.url(), "roomcast");
    let history = newcomer.tail.wait_reset(1).await.history;
    assert_eq!(names(&history), ["before", "after", "late with an id"]);
}

#[tokio::test]
async fn a_batch_keeps_its_order_where_redis_knows_no_scripts_yet() {
    let server = RedisServer::start();
    let node = Node::redis(&server.url(), "roomcast");
    node.status(LogStatus::Ready).await;
    let answers = node.log.append(vec![draft("a"), with_id("b"), draft("c"), with_id("d")]).await;
    assert!(answers.iter().all(|answer| answer.is_ok()), "{answers:?}");
    assert_eq!(names(&node.tail.wait_events(4).await), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_short_hang_has_one_answer_for_publishers_and_readers() {
    const PACE: Duration = Duration::from_millis(50);
    let server = RedisServer::start();
    let node = Node::with_short_timeout(&server.url());
    node.status(LogStatus::Ready).await;
    node.stored(draft("before")).await;
    server.freeze();
    let mut first = std::pin::pin!(node.log.append(vec![draft("first")]));
    let mut later = JoinSet::new();
    let answer = loop {
        // Redis goes on when the first one is answered, before the time of these is over.
        let started = Instant::now();
        if let Ok(answer) = tokio::time::timeout(PACE, &mut first).await {
            break answer;
        }
        let (log, name) = (node.log.clone(), format!("{}", later.len()));
        later.spawn(async move {
            let appended = log.append(vec![draft(&name)]).await.pop().unwrap();
            (name, appended.is_ok(), started)
        });
    };
    server.thaw();
    assert!(matches!(answer[0], Err(AppendError::Unavailable(_))), "{answer:?}");
    let goes_on = Instant::now();
    let mut accepted = Vec::new();
    let mut refused = Vec::new();
    while let Some(answered) = later.join_next().await {
        let (name, is_accepted, started) = answered.unwrap();
        // The reply to what was sent at the beginning may come too late.
        if goes_on - started < SHORT / 2 {
            if is_accepted { accepted.push(name) } else { refused.push(name) }
        }
    }
    node.append_again("after").await;
    node.tail.wait_event("after").await;
    let delivered = names(&node.tail.seen.lock().unwrap().events);
    assert!(accepted.iter().all(|name| delivered.contains(name)), "{accepted:?} {delivered:?}");
    assert!(!refused.iter().any(|name| delivered.contains(name)), "{refused:?} {delivered:?}");
    assert!(accepted.len() > 2, "{accepted:?} {refused:?}");
}

#[tokio::test]
async fn ids_ahead_of_the_clock_do_not_keep_publishers_from_the_log() {
    let server = RedisServer::start();
    let node = Node::redis(&server.url(), "roomcast");
    node.status(LogStatus::Ready).await;
    node.stored(draft("before")).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let ahead = format!("{}-0", now + 200_000);
    server.run::<String>(&["XADD", EVENTS, &ahead, "room", "r", "event", "ahead"]);
    // The first may be sent before the node has read that.
    let mixed = vec![draft("a"), with_id("b"), draft("c")];
    let answers = node.log.append(mixed).await;
    assert!(answers.iter().all(|answer| answer.is_ok()), "{answers:?}");
    for name in ["a", "b", "c"] {
        node.tail.wait_event(name).await;
    }
    for n in 0..20 {
        node.stored(draft(&format!("{n}"))).await;
    }
    node.tail.wait_event("19").await;
    let events = names(&node.tail.seen.lock().unwrap().events);
    assert_eq!(events.len(), 2 + 3 + 20, "each once: {events:?}");
    let added: u64 = server.run(&["XLEN", EVENTS]);
    assert!(added <= 25 + 2, "{added} entries: void ones only until the node knew");
    let repeated = node.append_one(with_id("b")).await.unwrap().offset;
    assert_eq!(repeated.unwrap().position, answers[1].as_ref().unwrap().offset.unwrap().position);
}

#[tokio::test]
async fn broken_connections_lose_nothing_that_was_acknowledged() {
    let server = RedisServer::start();
    let node = Node::redis(&server.url(), "roomcast");
    node.status(LogStatus::Ready).await;
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for n in 0..300 {
        if n % 30 == 15 {
            server.run::<u64>(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
        match node.append_one(draft(&format!("{n}"))).await {
            Ok(_) => acknowledged.push(format!("{n}")),
            Err(AppendError::Unavailable(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused < 100, "{refused} of 300");
    node.append_again("last").await;
    node.tail.wait_event("last").await;
    let delivered = names(&node.tail.seen.lock().unwrap().events);
    let missing: Vec<&String> = acknowledged.iter().filter(|name| !delivered.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    node.status(LogStatus::Ready).await;
    assert_eq!(node.tail.seen.lock().unwrap().resets.len(), 1);
}
