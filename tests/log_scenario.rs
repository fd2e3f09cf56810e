//! What both logs promise, shown on both; and what only Redis can do to one.
#![allow(clippy::unwrap_used)]

#[path = "common/redis.rs"]
mod redis_server;

use redis_server::RedisServer;
use roomcast::draft::{Draft, DraftLimits, Source};
use roomcast::event::{Args, Batch, Event, Offset};
use roomcast::id::Id;
use roomcast::log::config::{RecoveryConfig, RedisConfig};
use roomcast::log::memory::{MemoryLimits, MemoryLog};
use roomcast::log::redis::RedisLog;
use roomcast::log::{AppendError, Appended, Beginning, EventLog, LogStatus, Pending, Sink};
use roomcast::metrics::Metrics;
use roomcast::secret::Secret;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// For what must come; generous, since tests run beside others.
const PATIENCE: Duration = Duration::from_secs(60);
/// `redis.timeout` where it is not the subject.
const LONG: Duration = Duration::from_secs(20);
/// `redis.timeout` where it is.
const SHORT: Duration = Duration::from_secs(1);
const LIMITS: DraftLimits = DraftLimits { max_event: 2 << 20, room_name_bytes: 200, rooms: 100 };

/// Keeps all that a tail brought.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Seen>,
    change: Notify,
}

#[derive(Default)]
struct Seen {
    beginnings: Vec<Beginning>,
    events: Vec<Arc<Event>>,
    probes: Vec<Id>,
    caught_up: usize,
}

impl Recorder {
    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.change.notify_one();
    }

    /// Waits until what was seen satisfies the condition.
    async fn wait<T>(&self, what: &str, done: impl Fn(&Seen) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(done) = done(&self.seen.lock().unwrap()) {
                return done;
            }
            let waited = tokio::time::timeout_at(deadline, self.change.notified()).await;
            assert!(waited.is_ok(), "still waiting for {what}; events: {:?}", names(&self.seen.lock().unwrap().events));
        }
    }

    async fn wait_events(&self, count: usize) -> Vec<Arc<Event>> {
        self.wait(&format!("{count} events"), |seen| (seen.events.len() >= count).then(|| seen.events.clone())).await
    }

    async fn wait_event(&self, name: &str) -> Arc<Event> {
        self.wait(name, |seen| seen.events.iter().find(|event| &*event.draft.event == name).cloned()).await
    }

    async fn wait_beginning(&self, count: usize) -> Beginning {
        self.wait("a beginning", |seen| seen.beginnings.get(count - 1).cloned()).await
    }
}

impl Sink for Recorder {
    fn begin(&self, beginning: Beginning) {
        self.change(|seen| seen.beginnings.push(beginning));
    }

    fn deliver(&self, batch: Batch) -> Pending<'_, ()> {
        self.change(|seen| {
            seen.events.extend(batch.events);
            seen.probes.extend(batch.probes);
        });
        Box::pin(std::future::ready(()))
    }

    fn caught_up(&self, _: roomcast::event::Position) {
        self.change(|seen| seen.caught_up += 1);
    }
}

/// A log that runs into a recorder.
struct Node {
    log: Arc<dyn EventLog>,
    tail: Arc<Recorder>,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    fn run(log: Arc<dyn EventLog>, metrics: Arc<Metrics>) -> Self {
        let tail = Arc::new(Recorder::default());
        let task = tokio::spawn(log.clone().run(tail.clone()));
        Self { log, tail, metrics, task }
    }

    fn redis(url: &str, prefix: &str) -> Self {
        Self::redis_with(url, prefix, RecoveryConfig::default(), LONG)
    }

    fn impatient(url: &str) -> Self {
        Self::redis_with(url, "roomcast", RecoveryConfig::default(), SHORT)
    }

    fn redis_with(url: &str, prefix: &str, recovery: RecoveryConfig, timeout: Duration) -> Self {
        let config = RedisConfig { url: Some(Secret::new(url)), prefix: prefix.into(), timeout };
        let metrics = Arc::new(Metrics::new("0").unwrap());
        Self::run(RedisLog::new(&config, &recovery, LIMITS, metrics.clone()).unwrap(), metrics)
    }

    async fn append_one(&self, draft: Draft) -> Appended {
        self.log.append(vec![draft]).await.remove(0)
    }

    async fn stored(&self, draft: Draft) -> Offset {
        self.append_one(draft).await.unwrap().expect("not volatile")
    }

    async fn status(&self, wanted: LogStatus) {
        let deadline = Instant::now() + PATIENCE;
        while self.log.status() != wanted {
            assert!(Instant::now() < deadline, "never {wanted:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Appends until it works again.
    async fn append_again(&self, name: &str) -> Offset {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.append_one(draft(name)).await {
                Ok(offset) => return offset.unwrap(),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.render().unwrap().lines().any(|is| is == line)
    }
}

/// Either twin.
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
        node.tail.wait_beginning(1).await;
        if let Self::Redis(server) = self {
            let deadline = Instant::now() + PATIENCE;
            while server.run::<(String, usize)>(&["PUBSUB", "NUMSUB", "roomcast:volatile"]).1 == 0 {
                assert!(Instant::now() < deadline, "nobody listens to volatile events");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        node
    }
}

fn draft(name: &str) -> Draft {
    Draft::new("room", name, Args::one("{\"id\":9}").unwrap(), Source::Http)
}

fn names(events: &[Arc<Event>]) -> Vec<String> {
    events.iter().map(|event| event.draft.event.to_string()).collect()
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
        let offsets: Vec<Offset> = answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
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
        assert!(events.iter().all(|event| now - event.accepted_us < 60_000_000));
    }
}

#[tokio::test]
async fn a_repeated_id_is_answered_with_the_first_offset() {
    for world in World::both() {
        let node = world.node().await;
        let with_id = |id: &str, name: &str| Draft { id: Some(id.into()), ..draft(name) };
        let first = node.stored(with_id("x{}", "first")).await;
        let batch = vec![with_id("x{}", "again"), draft("between"), with_id("y", "other"), with_id("y", "other again")];
        let answers: Vec<Offset> = node.log.append(batch).await.into_iter().map(|a| a.unwrap().unwrap()).collect();
        assert_eq!(answers[0], first);
        assert_eq!(answers[2], answers[3]);
        assert!(first.position < answers[1].position && answers[1].position < answers[2].position);
        let volatile = Draft { volatile: true, ..with_id("v", "volatile") };
        assert_eq!(node.append_one(volatile.clone()).await, Ok(None));
        assert_eq!(node.append_one(volatile).await, Ok(None));
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
async fn volatile_events_come_through_with_the_current_offset_and_are_not_stored() {
    for world in World::both() {
        let node = world.node().await;
        let stored = node.stored(draft("stored")).await;
        node.tail.wait_event("stored").await;
        let args = Args::list("[1, \"poison\"]").unwrap();
        let mut volatile = Draft { volatile: true, args, except: vec!["x".into()], ..draft("volatile") };
        volatile.source = Source::Client;
        assert_eq!(node.append_one(volatile.clone()).await, Ok(None));
        let event = node.tail.wait_event("volatile").await;
        assert_eq!((event.offset, &event.draft), (stored, &volatile));
        if let World::Redis(server) = &world {
            assert_eq!(server.run::<usize>(&["XLEN", "roomcast:events"]), 1);
            let history = world.node().await.tail.wait_beginning(1).await.history;
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
async fn what_waits_is_not_lost_when_nobody_reads_yet() {
    let log = MemoryLog::new(MemoryLimits::default());
    let early = log.append(vec![draft("early")]).await.remove(0).unwrap().unwrap();
    let node = Node::run(log, Arc::new(Metrics::new("0").unwrap()));
    let event = node.tail.wait_event("early").await;
    let beginning = node.tail.wait_beginning(1).await;
    assert_eq!(event.offset, early);
    assert!(beginning.head < early.position && beginning.epoch == early.epoch);
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
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let names = names(&events);
        for thread in 0..4 {
            let of_thread: Vec<_> = names.iter().filter(|name| name.starts_with(&format!("{thread}-"))).collect();
            assert!(of_thread.iter().enumerate().all(|(n, name)| **name == format!("{thread}-{n}")), "{of_thread:?}");
            assert_eq!(of_thread.len(), 200);
        }
    }
}

#[tokio::test]
async fn what_others_add_is_delivered_and_mistakes_go_to_the_dead_once() {
    let server = RedisServer::start();
    let nodes = [Node::redis(&server.url(), "roomcast"), Node::redis(&server.url(), "roomcast")];
    for node in &nodes {
        node.status(LogStatus::Ready).await;
    }
    let add = |fields: &[&str]| -> String { server.run(&[&["XADD", "roomcast:events", "*"], fields].concat()) };
    let first = add(&["room", "conversation:42", "event", "new_message", "data", "{\"id\":9}"]);
    let huge = format!("\"{}\"", "x".repeat(5 << 20));
    let bad = [
        add(&["room", "r", "event", "e", "data", "{oops"]),
        add(&["room", "r", "event", "e", "data", &huge]),
        add(&["room", "r", "evnt", "e"]),
        add(&["a", "b"]),
    ];
    add(&["room", "r", "event", "once", "id", "same"]);
    add(&["room", "r", "event", "twice", "id", "same"]);
    add(&["rooms", "[\"a\",\"b\"]", "event", "last", "args", "[1, 2]", "namespace", "/chat", "except", "[\"c\"]"]);
    for (n, node) in nodes.iter().enumerate() {
        let events = node.tail.wait_events(3).await;
        assert_eq!(names(&events[..3]), ["new_message", "once", "last"]);
        assert_eq!(events[0].offset.position.to_string(), first);
        assert_eq!(events[0].draft.source, Source::Stream);
        assert_eq!(events[0].accepted_us, events[0].offset.position.ms * 1000);
        assert_eq!((events[2].draft.args.inner(), &*events[2].draft.namespace), ("1, 2", "/chat"));
        // Burying follows delivering; the next event is read only after it.
        let after = format!("after{n}");
        add(&["room", "r", "event", &after]);
        node.tail.wait_event(&after).await;
    }
    let dead: Vec<(String, Vec<(String, String)>)> = server.run(&["XRANGE", "roomcast:dead", "-", "+"]);
    let ids: Vec<&str> = dead.iter().map(|(_, fields)| fields[0].1.as_str()).collect();
    assert_eq!(ids, bad);
    assert_eq!(dead[0].1[1].0, "error");
    assert_eq!(dead[0].1[4], ("data".into(), "{oops".into()));
    assert!(dead[1].1[1].1.contains("max_event"), "{}", dead[1].1[1].1);
    assert!(dead[1].1[4].1.len() < 10_000);
    let counted =
        |node: &Node| (0..=4).find(|n| node.metric(&format!("roomcast_drops_total{{reason=\"malformed\"}} {n}")));
    assert_eq!(counted(&nodes[0]).unwrap() + counted(&nodes[1]).unwrap(), 4);
    Node::redis(&server.url(), "roomcast").tail.wait_beginning(1).await;
    assert_eq!(server.run::<usize>(&["XLEN", "roomcast:dead"]), 4, "a node that reads them again adds none");
}

#[tokio::test]
async fn two_nodes_see_the_same_and_a_late_one_its_history() {
    let server = RedisServer::start();
    let (a, b) = (Node::redis(&server.url(), "roomcast"), Node::redis(&server.url(), "roomcast"));
    let other = Node::redis(&server.url(), "other");
    for node in [&a, &b, &other] {
        node.status(LogStatus::Ready).await;
    }
    let begun = a.tail.wait_beginning(1).await;
    assert_eq!(begun.epoch, b.tail.wait_beginning(1).await.epoch);
    let batch = |first: char| (0..300).map(|n| draft(&format!("{first}{n}"))).collect();
    let (of_a, of_b) = tokio::join!(a.log.append(batch('a')), b.log.append(batch('b')));
    assert!(of_a.iter().chain(&of_b).all(Result::is_ok));
    a.log.probe(Id::random()).await.unwrap();
    let (on_a, on_b) = (a.tail.wait_events(600).await, b.tail.wait_events(600).await);
    let offsets = |events: &[Arc<Event>]| events.iter().map(|event| event.offset).collect::<Vec<_>>();
    assert_eq!((names(&on_a), offsets(&on_a)), (names(&on_b), offsets(&on_b)));
    let late = Node::redis(&server.url(), "roomcast");
    let beginning = late.tail.wait_beginning(1).await;
    assert_eq!(beginning.epoch, begun.epoch);
    assert_eq!((names(&beginning.history), offsets(&beginning.history)), (names(&on_a), offsets(&on_a)));
    assert!(beginning.floor <= begun.head && beginning.head >= on_a.last().unwrap().offset.position);
    assert!(late.tail.seen.lock().unwrap().events.is_empty());
    assert!(other.tail.seen.lock().unwrap().events.is_empty(), "two prefixes never meet");

    let size = on_a[0].size();
    let small = RecoveryConfig { window_bytes: size * 10, ..RecoveryConfig::default() };
    let small = Node::redis_with(&server.url(), "roomcast", small, LONG).tail.wait_beginning(1).await;
    let kept = small.history.len();
    assert!((5..=10).contains(&kept), "{kept}");
    assert_eq!(small.floor, on_a[600 - kept - 1].offset.position, "the newest that is not kept");
    let off = RecoveryConfig { window: Duration::ZERO, ..RecoveryConfig::default() };
    let off = Node::redis_with(&server.url(), "roomcast", off, LONG).tail.wait_beginning(1).await;
    assert_eq!((off.history.len(), off.floor), (0, off.head));
}

#[tokio::test]
async fn the_stream_is_trimmed_but_not_within_the_window() {
    let server = RedisServer::start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut connection = server.connection();
    let mut add = |ms: u64| {
        let mut pipe = redis::pipe();
        for seq in 0..1000 {
            pipe.cmd("XADD").arg("roomcast:events").arg(format!("{ms}-{seq}"));
            pipe.arg(&["room", "r", "event", "e"]).ignore();
        }
        pipe.exec(&mut connection).unwrap();
    };
    add(now - 3_600_000);
    add(now - 115_000);
    let node = Node::redis(&server.url(), "roomcast");
    let beginning = node.tail.wait_beginning(1).await;
    assert_eq!(beginning.history.len(), 1000);
    assert_eq!(beginning.floor.to_string(), format!("{}-999", now - 3_600_000));
    for n in 0..20 {
        node.stored(draft(&n.to_string())).await;
    }
    let left: usize = server.run(&["XLEN", "roomcast:events"]);
    assert!((1020..1320).contains(&left), "{left}");
    let again = Node::redis(&server.url(), "roomcast").tail.wait_beginning(1).await;
    assert_eq!(again.history.len(), 1020);
}

#[tokio::test]
async fn redis_may_come_later() {
    let mut server = RedisServer::stopped(&[]);
    let node = Node::impatient(&server.url());
    assert_eq!(node.log.status(), LogStatus::Connecting);
    let started = Instant::now();
    let answers = node.log.append(vec![draft("too early"), draft("too early")]).await;
    assert!(matches!(answers[..], [Err(AppendError::Unavailable(_)), Err(AppendError::Unavailable(_))]), "{answers:?}");
    assert!((SHORT..SHORT * 2).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert!(node.metric("roomcast_redis_up 0"));
    server.resume_from_disk();
    node.status(LogStatus::Ready).await;
    node.stored(draft("on time")).await;
    node.tail.wait_event("on time").await;
    assert_eq!(server.run::<usize>(&["XLEN", "roomcast:events"]), 1, "what was refused is not stored");
    assert!(node.metric("roomcast_redis_up 1") && node.metric("roomcast_redis_reconnects_total 0"));
}

#[tokio::test]
async fn nothing_answered_ok_is_lost_over_a_crash() {
    let mut server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::impatient(&server.url());
    node.status(LogStatus::Ready).await;
    let appender = tokio::spawn({
        let log = node.log.clone();
        async move {
            let mut kept = Vec::new();
            let mut n = 0;
            let mut failed = false;
            // Through the crash and a while after it.
            while !failed || kept.len() < 400 {
                let answers = log.append((n..n + 5).map(|n| draft(&n.to_string())).collect()).await;
                for (n, answer) in (n..).zip(answers) {
                    match answer {
                        Ok(offset) => kept.push((n.to_string(), offset.unwrap())),
                        Err(_) => failed = true,
                    }
                }
                n += 5;
            }
            kept
        }
    });
    node.tail.wait_events(100).await;
    server.kill();
    node.status(LogStatus::Connecting).await;
    server.resume_from_disk();
    let kept = appender.await.unwrap();
    let (last, _) = kept.last().unwrap();
    node.tail.wait_event(last).await;
    let seen = node.tail.seen.lock().unwrap();
    for (name, offset) in &kept {
        let came = seen.events.iter().filter(|event| *event.draft.event == **name).collect::<Vec<_>>();
        assert_eq!(came.len(), 1, "{name}");
        assert_eq!(came[0].offset, *offset);
    }
    assert_eq!(seen.beginnings.len(), 1, "nothing was lost, so nothing begins anew");
    drop(seen);
    assert!(!node.metric("roomcast_redis_reconnects_total 0"));
}

#[tokio::test]
async fn a_redis_that_hangs_is_answered_for_within_the_timeout() {
    let server = RedisServer::start();
    let node = Node::impatient(&server.url());
    node.status(LogStatus::Ready).await;
    node.stored(draft("before")).await;
    server.freeze();
    for _ in 0..2 {
        let started = Instant::now();
        let answer = node.append_one(draft("during")).await;
        assert!(matches!(answer, Err(AppendError::Unavailable(_))), "{answer:?}");
        assert!(started.elapsed() < SHORT * 2, "{:?}", started.elapsed());
    }
    node.status(LogStatus::Connecting).await;
    server.thaw();
    node.append_again("after").await;
    node.tail.wait_event("after").await;
    node.status(LogStatus::Ready).await;
    let during = names(&node.tail.seen.lock().unwrap().events).iter().filter(|name| *name == "during").count();
    assert!(during <= 1, "only what was sent before the hang showed may be stored, not what waited: {during}");
    assert_eq!(node.tail.seen.lock().unwrap().beginnings.len(), 1);
}

#[tokio::test]
async fn an_acl_user_suffices() {
    let server = RedisServer::start();
    let rules =
        "on >p@ss ~roomcast:* &roomcast:* -@all +@read +@write +@stream +@pubsub +@connection +@scripting +xinfo";
    let words: Vec<&str> = ["ACL", "SETUSER", "roomcast"].into_iter().chain(rules.split(' ')).collect();
    server.run::<()>(&words);
    server.run::<()>(&["CONFIG", "SET", "requirepass", "other"]);
    let url = |user: &str| format!("redis://{user}@127.0.0.1:{}", server.port());
    let node = Node::redis(&url("roomcast:p%40ss"), "roomcast");
    node.status(LogStatus::Ready).await;
    node.stored(draft("let in")).await;
    node.tail.wait_event("let in").await;
    node.append_one(Draft { volatile: true, ..draft("volatile") }).await.unwrap();
    let by_password = Node::redis(&url(":other"), "roomcast");
    by_password.status(LogStatus::Ready).await;
    let elsewhere = Node::redis_with(&url("roomcast:p%40ss"), "elsewhere", RecoveryConfig::default(), SHORT);
    let refused = Node::impatient(&url("roomcast:wrong"));
    for node in [&elsewhere, &refused] {
        assert!(matches!(node.append_one(draft("x")).await, Err(AppendError::Unavailable(_))));
        assert_eq!(node.log.status(), LogStatus::Connecting);
    }
}

#[tokio::test]
async fn error_answers_are_told_one_by_one() {
    let server = RedisServer::start();
    let node = Node::redis(&server.url(), "roomcast");
    node.status(LogStatus::Ready).await;
    node.stored(Draft { id: Some("known".into()), ..draft("first") }).await;
    server.run::<()>(&["SCRIPT", "FLUSH"]);
    server.run::<()>(&["SET", "roomcast:{roomcast:events}:id:taken", "x"]);
    server.run::<()>(&["LPUSH", "roomcast:{roomcast:events}:id:list", "x"]);
    let with_id = |id: &str| Draft { id: Some(id.into()), ..draft(id) };
    let drafts = vec![draft("a"), with_id("list"), with_id("fresh"), draft("b"), with_id("known")];
    let answers = node.log.append(drafts).await;
    assert!(matches!(&answers[1], Err(AppendError::Refused(why)) if why.contains("WRONGTYPE")), "{:?}", answers[1]);
    assert!([0, 2, 3, 4].iter().all(|&n| answers[n].is_ok()), "{answers:?}");
    assert!(matches!(node.append_one(with_id("taken")).await, Err(AppendError::Unavailable(_))));
    node.tail.wait_event("fresh").await;
    node.tail.wait_event("b").await;

    server.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    for draft in [draft("full"), with_id("full")] {
        let answer = node.append_one(draft).await;
        assert!(matches!(&answer, Err(AppendError::Refused(why)) if why.contains("OOM")), "{answer:?}");
    }
    assert_eq!(node.log.status(), LogStatus::Ready);
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    node.stored(draft("again")).await;
    assert!(!names(&node.tail.wait_events(5).await).contains(&"full".into()));
}

#[tokio::test]
async fn a_lost_log_begins_anew_with_one_epoch_for_all() {
    let server = RedisServer::start();
    let nodes = [Node::redis(&server.url(), "roomcast"), Node::redis(&server.url(), "roomcast")];
    for node in &nodes {
        node.status(LogStatus::Ready).await;
    }
    let mut epochs = vec![nodes[0].tail.wait_beginning(1).await.epoch];
    let losses: [&[&str]; 4] = [
        &["FLUSHALL"],
        &["DEL", "roomcast:events"],
        &["SET", "roomcast:epoch", "garbage"],
        &["DEL", "roomcast:epoch", "roomcast:events"],
    ];
    for (n, loss) in losses.into_iter().enumerate() {
        nodes[0].stored(draft(&format!("before{n}"))).await;
        for node in &nodes {
            node.tail.wait_event(&format!("before{n}")).await;
        }
        server.run::<()>(loss);
        nodes[1].append_again(&format!("meanwhile{n}")).await;
        let begun = nodes[0].tail.wait_beginning(n + 2).await;
        assert_eq!(begun.epoch, nodes[1].tail.wait_beginning(n + 2).await.epoch, "{loss:?}");
        assert!(!epochs.contains(&begun.epoch), "{loss:?}");
        epochs.push(begun.epoch);
        let after = nodes[1].stored(draft(&format!("after{n}"))).await;
        assert_eq!(after.epoch, begun.epoch);
        for node in &nodes {
            let event = node.tail.wait_event(&format!("after{n}")).await;
            assert_eq!(event.offset, after);
            node.tail.wait_event(&format!("meanwhile{n}")).await;
        }
    }
    for node in &nodes {
        assert_eq!(node.tail.seen.lock().unwrap().beginnings.len(), 5, "nobody begins twice");
    }
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_or_short_is_noticed() {
    let mut server = RedisServer::start();
    let node = Node::impatient(&server.url());
    node.status(LogStatus::Ready).await;
    let first = node.tail.wait_beginning(1).await;
    node.stored(draft("one")).await;
    node.tail.wait_event("one").await;
    server.kill();
    server.resume_from_disk();
    let second = node.tail.wait_beginning(2).await;
    assert_ne!(second.epoch, first.epoch);
    for name in ["two", "three"] {
        node.append_again(name).await;
    }
    let last = node.tail.wait_event("three").await.offset.position.to_string();

    // As after a failover to a replica that lacks the last entry but has taken a newer one.
    let mut failover = redis::pipe();
    failover.atomic().cmd("XADD").arg(&["roomcast:events", "*", "room", "r", "event", "four"]);
    failover.cmd("XDEL").arg(&["roomcast:events", &last]);
    failover.cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    failover.exec(&mut server.connection()).unwrap();
    let third = node.tail.wait_beginning(3).await;
    assert_ne!(third.epoch, second.epoch);
    assert_eq!(names(&third.history), ["two"]);
    assert_eq!(node.tail.wait_event("four").await.offset.epoch, third.epoch);
}

/// Certificates come from SSL_CERT_FILE, which a process cannot set for itself; so this runs itself again.
#[tokio::test]
async fn tls_is_served_and_certificates_are_checked() {
    if let Ok(url) = std::env::var("ROOMCAST_TEST_TLS_URL") {
        let node = Node::redis(&url, "roomcast");
        node.status(LogStatus::Ready).await;
        node.stored(draft("over TLS")).await;
        node.tail.wait_event("over TLS").await;
        return;
    }
    let port = redis_server::free_port();
    let mut server = RedisServer::stopped(&[]);
    let file = |name: &str| server.dir().join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (file("key.pem"), file("cert.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &certificate])
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    server.add_args(&["--tls-port", &port.to_string(), "--tls-cert-file", &certificate, "--tls-key-file", &key]);
    server.add_args(&["--tls-auth-clients", "no", "--tls-ca-cert-file", &certificate]);
    server.resume_from_disk();
    let url = format!("rediss://localhost:{port}");
    let distrusting = Node::impatient(&url);
    assert!(matches!(distrusting.append_one(draft("x")).await, Err(AppendError::Unavailable(_))));
    assert_eq!(server.run::<usize>(&["XLEN", "roomcast:events"]), 0);
    let trusting = tokio::task::spawn_blocking(move || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls_is_served_and_certificates_are_checked", "--nocapture"])
            .env("SSL_CERT_FILE", certificate)
            .env("ROOMCAST_TEST_TLS_URL", url)
            .output()
            .unwrap()
    });
    let output = trusting.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
