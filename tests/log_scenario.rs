//! What every log must do, tested on the embedded log and on Redis.
#![allow(clippy::unwrap_used)]

#[path = "common/log_node.rs"]
mod log_node;
#[path = "common/redis.rs"]
mod redis_server;

use log_node::{DEADLINE, Node, draft, names};
use redis_server::RedisServer;
use roomcast::log::memory::{MemoryLimits, MemoryLog};
use roomcast::log::{Accepted, EventLog};
use roomcast::metrics::Metrics;
use roomcast::model::args::Args;
use roomcast::model::draft::{Draft, Source};
use roomcast::model::id::Id;
use roomcast::model::offset::Offset;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One of the two logs.
enum World {
    Memory,
    Redis(RedisServer),
}

impl World {
    fn both() -> [Self; 2] {
        [Self::Memory, Self::Redis(RedisServer::start())]
    }

    async fn node(&self) -> Node {
        let node = match self {
            Self::Memory => {
                let log: Arc<dyn EventLog> = MemoryLog::new(MemoryLimits::default());
                Node::run(log, Arc::new(Metrics::new("0").unwrap()))
            }
            Self::Redis(server) => Node::redis(&server.url(), "roomcast"),
        };
        node.tail.wait_reset(1).await;
        if let Self::Redis(server) = self {
            let deadline = Instant::now() + DEADLINE;
            while server.run::<(String, usize)>(&["PUBSUB", "NUMSUB", "roomcast:volatile"]).1 == 0 {
                assert!(Instant::now() < deadline, "nobody listens to volatile events");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        node
    }
}

#[tokio::test]
async fn answers_and_events_are_in_order() {
    for world in World::both() {
        let node = world.node().await;
        let drafts = (0..500).map(|n| draft(&format!("e{n}"))).collect();
        let (answers, others) = tokio::join!(node.log.append(drafts), async {
            let mut offsets = Vec::new();
            for n in 0..50 {
                offsets.push(node.stored(draft(&format!("o{n}"))).await);
            }
            offsets
        });
        let offsets: Vec<Offset> = answers.into_iter().map(|answer| answer.unwrap().offset.unwrap()).collect();
        assert!(offsets.is_sorted_by_key(|offset| offset.position) && others.is_sorted_by_key(|o| o.position));
        let events = node.tail.wait_events(550).await;
        assert!(events.windows(2).all(|pair| pair[0].offset.position < pair[1].offset.position));
        let came = |first: &str| -> Vec<Offset> {
            events.iter().filter(|event| event.draft.event.starts_with(first)).map(|event| event.offset).collect()
        };
        assert_eq!((came("e"), came("o")), (offsets.clone(), others));
        for offset in &offsets {
            assert_eq!(Offset::parse(&offset.to_string()), Some(*offset));
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
        // It went over the clock of Redis and back, each way an estimate.
        assert!(events.iter().all(|event| now.abs_diff(event.accepted_us) < 60_000_000));
    }
}

#[tokio::test]
async fn a_repeated_id_is_answered_with_the_first_offset() {
    for world in World::both() {
        let node = world.node().await;
        let with_id = |id: &str, name: &str| Draft { id: Some(id.into()), ..draft(name) };
        let first = node.stored(with_id("x{}", "first")).await;
        let batch = vec![with_id("x{}", "again"), draft("between"), with_id("y", "other"), with_id("y", "other again")];
        let answers: Vec<Offset> =
            node.log.append(batch).await.into_iter().map(|a| a.unwrap().offset.unwrap()).collect();
        assert_eq!(answers[0], first);
        assert_eq!(answers[2], answers[3]);
        assert!(first.position < answers[1].position && answers[1].position < answers[2].position);
        let volatile = Draft { volatile: true, ..with_id("v", "volatile") };
        assert_eq!(node.append_one(volatile.clone()).await, Ok(Accepted::volatile()));
        assert_eq!(node.append_one(volatile).await, Ok(Accepted::volatile()));
        node.tail.wait_event("volatile").await;
        node.stored(draft("last")).await;
        node.tail.wait_event("last").await;
        let seen = node.tail.wait_events(5).await;
        let mut seen = names(&seen);
        seen.sort();
        assert_eq!(seen, ["between", "first", "last", "other", "volatile"]);
    }
}

#[tokio::test]
async fn volatile_events_arrive_with_the_current_offset_and_are_not_stored() {
    for world in World::both() {
        let node = world.node().await;
        let stored = node.stored(draft("stored")).await;
        node.tail.wait_event("stored").await;
        let args = Args::list("[1, \"poison\"]").unwrap();
        let mut volatile = Draft { volatile: true, args, except: vec!["x".into()], ..draft("volatile") };
        volatile.source = Source::Client;
        assert_eq!(node.append_one(volatile.clone()).await, Ok(Accepted::volatile()));
        let event = node.tail.wait_event("volatile").await;
        assert_eq!((event.offset, &event.draft), (stored, &volatile));
        if let World::Redis(server) = &world {
            assert_eq!(server.run::<usize>(&["XLEN", "roomcast:events"]), 1);
            let history = world.node().await.tail.wait_reset(1).await.history;
            assert_eq!(names(&history), ["stored"]);
        }
    }
}

#[tokio::test]
async fn a_probe_comes_out_of_the_tail() {
    for world in World::both() {
        let node = world.node().await;
        let id = Id::random();
        node.log.probe(id).await.unwrap();
        node.tail.wait("the probe", |seen| seen.probes.contains(&id).then_some(())).await;
        assert!(node.tail.seen.lock().unwrap().events.is_empty());
    }
}

#[tokio::test]
async fn everything_of_a_draft_arrives_byte_for_byte() {
    for world in World::both() {
        let node = world.node().await;
        let megabyte = format!("[\"{}\", {{\"n\":9007199254740993,\"f\":3.10}}]", "é\\u0000".repeat(125_000));
        let deep = format!("[{}1{}]", "[".repeat(127), "]".repeat(127));
        for (n, json) in [megabyte.as_str(), &deep, "[]", "[null]", "[{\"$binary\":\"AA==\"} , \"\\ud83d\\ude00\"]"]
            .into_iter()
            .enumerate()
        {
            let sent = Draft {
                namespace: "/chat".into(),
                rooms: vec!["a b".into(), "\"ö\"".into()],
                except: vec!["c,d".into()],
                args: Args::list(json).unwrap(),
                source: Source::Backend,
                ..draft(&format!("e{n}"))
            };
            node.stored(sent.clone()).await;
            let got = &node.tail.wait_event(&format!("e{n}")).await.draft;
            assert_eq!(got.args.inner(), sent.args.inner());
            assert_eq!(Draft { args: Args::none(), ..got.clone() }, Draft { args: Args::none(), ..sent });
        }
    }
}

#[tokio::test]
async fn events_are_kept_until_the_tail_is_read() {
    let log = MemoryLog::new(MemoryLimits::default());
    let early = log.append(vec![draft("early")]).await.remove(0).unwrap().offset.unwrap();
    let node = Node::run(log, Arc::new(Metrics::new("0").unwrap()));
    let event = node.tail.wait_event("early").await;
    let snapshot = node.tail.wait_reset(1).await;
    assert_eq!(event.offset, early);
    assert!(snapshot.head < early.position && snapshot.epoch == early.epoch);
}

#[tokio::test]
async fn appends_from_many_threads_all_arrive_once() {
    for world in World::both() {
        let node = world.node().await;
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let log = node.log.clone();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        for n in 0..200 {
                            log.append(vec![draft(&format!("{thread}-{n}"))]).await.remove(0).unwrap();
                        }
                    });
                })
            })
            .collect();
        let events = node.tail.wait_events(800).await;
        // The last answers come on this thread, so it must not block.
        let joined = tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| thread.join().unwrap()));
        joined.await.unwrap();
        let names = names(&events);
        for thread in 0..4 {
            let of_thread: Vec<_> = names.iter().filter(|name| name.starts_with(&format!("{thread}-"))).collect();
            assert!(of_thread.iter().enumerate().all(|(n, name)| **name == format!("{thread}-{n}")), "{of_thread:?}");
            assert_eq!(of_thread.len(), 200);
        }
    }
}
