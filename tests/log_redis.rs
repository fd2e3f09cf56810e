//! The log on Redis: entries of others, outages, refusals, losses, TLS.
#![allow(clippy::unwrap_used)]

#[path = "common/log_node.rs"]
mod log_node;
#[path = "common/redis.rs"]
mod redis_server;

use log_node::{DEADLINE, LONG, Node, SHORT, draft, names};
use redis_server::RedisServer;
use roomcast::log::backfill::PastRange;
use roomcast::log::config::{Bounds, RecoveryConfig};
use roomcast::log::{AppendError, LogStatus};
use roomcast::model::draft::{Draft, Source};
use roomcast::model::event::Event;
use roomcast::model::id::Id;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test]
async fn entries_of_others_are_delivered_and_malformed_ones_become_dead_letters_once() {
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
        // By this machine's clock, which is that of Redis here.
        assert!(events[0].accepted_us.abs_diff(events[0].offset.position.ms * 1000) < 1_000_000);
        assert_eq!((events[2].draft.args.inner(), &*events[2].draft.namespace), ("1, 2", "/chat"));
        // Dead letters are written after the delivery, and before the next event is read.
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
    Node::redis(&server.url(), "roomcast").tail.wait_reset(1).await;
    assert_eq!(server.run::<usize>(&["XLEN", "roomcast:dead"]), 4, "a node that reads them again adds none");
}

/// A program whose writes Redis takes late, all at once, has added the same event several times.
#[tokio::test]
async fn a_repeated_id_of_another_program_counts_once_for_whoever_reads_the_stream_again() {
    let server = RedisServer::start();
    let node = Node::redis(&server.url(), "roomcast");
    let begun = node.tail.wait_reset(1).await;
    let before = node.stored(draft("before")).await;
    for _ in 0..4 {
        server.run::<String>(&["XADD", "roomcast:events", "*", "room", "r", "event", "once", "id", "same"]);
    }
    let last = node.stored(draft("last")).await;
    node.tail.wait_event("last").await;
    let past = |after| PastRange {
        line: begun.line,
        epoch: begun.epoch,
        after,
        up_to: last.position,
        rooms: Arc::default(),
        all: true,
        bounds: Bounds { bytes: 1 << 20, room_bytes: 1 << 20, tenant_segments: 0 },
        budget: None,
    };
    let read = node.log.read_past(past(before.position), LONG).await.unwrap();
    assert_eq!(names(&read.events), ["once", "last"]);
    let once = read.events[0].offset.position;
    let read = node.log.read_past(past(once), LONG).await.unwrap();
    assert_eq!(names(&read.events), ["last"], "the first one is before that part");
    let late = Node::redis(&server.url(), "roomcast");
    assert_eq!(names(&late.tail.wait_reset(1).await.history), ["before", "once", "last"]);
    let read = late.log.read_past(past(before.position), LONG).await.unwrap();
    assert_eq!(names(&read.events), ["once", "last"]);
}

#[tokio::test]
async fn two_nodes_read_the_same_events_and_a_late_node_reads_the_history() {
    let server = RedisServer::start();
    let (a, b) = (Node::redis(&server.url(), "roomcast"), Node::redis(&server.url(), "roomcast"));
    let other = Node::redis(&server.url(), "other");
    for node in [&a, &b, &other] {
        node.status(LogStatus::Ready).await;
    }
    let begun = a.tail.wait_reset(1).await;
    assert_eq!(begun.epoch, b.tail.wait_reset(1).await.epoch);
    let batch = |first: char| (0..300).map(|n| draft(&format!("{first}{n}"))).collect();
    let (of_a, of_b) = tokio::join!(a.log.append(batch('a')), b.log.append(batch('b')));
    assert!(of_a.iter().chain(&of_b).all(Result::is_ok));
    a.log.probe(Id::random()).await.unwrap();
    let (on_a, on_b) = (a.tail.wait_events(600).await, b.tail.wait_events(600).await);
    let offsets = |events: &[Arc<Event>]| events.iter().map(|event| event.offset).collect::<Vec<_>>();
    assert_eq!((names(&on_a), offsets(&on_a)), (names(&on_b), offsets(&on_b)));
    let late = Node::redis(&server.url(), "roomcast");
    let snapshot = late.tail.wait_reset(1).await;
    assert_eq!(snapshot.epoch, begun.epoch);
    assert_eq!((names(&snapshot.history), offsets(&snapshot.history)), (names(&on_a), offsets(&on_a)));
    assert!(snapshot.floor <= begun.head && snapshot.head >= on_a.last().unwrap().offset.position);
    assert!(late.tail.seen.lock().unwrap().events.is_empty());
    assert!(other.tail.seen.lock().unwrap().events.is_empty(), "two prefixes never meet");

    let size = on_a[0].size();
    let small = RecoveryConfig { window_bytes: size * 10, ..RecoveryConfig::default() };
    let small = Node::redis_with(&server.url(), "roomcast", small, LONG).tail.wait_reset(1).await;
    let kept = small.history.len();
    assert!((5..=10).contains(&kept), "{kept}");
    assert_eq!(small.floor, on_a[600 - kept - 1].offset.position, "the newest that is not kept");
    let off = RecoveryConfig { window: Duration::ZERO, ..RecoveryConfig::default() };
    let off = Node::redis_with(&server.url(), "roomcast", off, LONG).tail.wait_reset(1).await;
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
    let snapshot = node.tail.wait_reset(1).await;
    assert_eq!(snapshot.history.len(), 1000);
    assert_eq!(snapshot.floor.to_string(), format!("{}-999", now - 3_600_000));
    let deadline = Instant::now() + DEADLINE;
    while server.run::<usize>(&["XLEN", "roomcast:events"]) > 1100 {
        assert!(Instant::now() < deadline, "the tail does not trim");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    add(now - 3_000);
    for n in 0..20 {
        node.stored(draft(&n.to_string())).await;
    }
    let left: usize = server.run(&["XLEN", "roomcast:events"]);
    assert!((2020..2120).contains(&left), "{left}");
    let again = Node::redis(&server.url(), "roomcast").tail.wait_reset(1).await;
    assert_eq!(again.history.len(), 2020);
}

#[tokio::test]
async fn redis_may_start_after_the_node() {
    let mut server = RedisServer::stopped(&[]);
    let node = Node::with_short_timeout(&server.url());
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
async fn no_accepted_event_is_lost_in_a_crash() {
    let mut server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::with_short_timeout(&server.url());
    node.status(LogStatus::Ready).await;
    let appender = tokio::spawn({
        let log = node.log.clone();
        async move {
            let mut kept = Vec::new();
            let mut n = 0;
            let mut failed = false;
            // Until some time after the crash.
            while !failed || kept.len() < 400 {
                let answers = log.append((n..n + 5).map(|n| draft(&n.to_string())).collect()).await;
                for (n, answer) in (n..).zip(answers) {
                    match answer {
                        Ok(accepted) => kept.push((n.to_string(), accepted.offset.unwrap())),
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
    assert_eq!(seen.resets.len(), 1, "nothing was lost, so there is no reset");
    drop(seen);
    assert!(!node.metric("roomcast_redis_reconnects_total 0"));
}

#[tokio::test]
async fn appends_to_a_hanging_redis_fail_within_the_timeout() {
    let server = RedisServer::start();
    let node = Node::with_short_timeout(&server.url());
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
    assert_eq!(during, 0, "what was answered with an error is not stored later");
    assert_eq!(node.tail.seen.lock().unwrap().resets.len(), 1);
}

#[tokio::test]
async fn the_epoch_is_not_read_again_until_it_changes() {
    let server = RedisServer::start();
    let node = Node::redis(&server.url(), "roomcast");
    node.status(LogStatus::Ready).await;
    node.stored(draft("first")).await;
    node.tail.wait_event("first").await;
    let reads = || {
        let info = server.run::<String>(&["INFO", "commandstats"]);
        let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls=")).unwrap_or("0");
        line.split(',').next().unwrap().parse::<usize>().unwrap()
    };
    let before = reads();
    for n in 0..100 {
        node.stored(draft(&format!("e{n}"))).await;
        node.tail.wait_event(&format!("e{n}")).await;
    }
    // It is read by the checks of every second, too.
    assert!(reads() - before < 50, "{} reads of 100 events", reads() - before);
    // Somebody else saw a loss: this node hears of it with the next event.
    server.run::<()>(&["SET", "roomcast:{roomcast:events}:epoch", "abc"]);
    node.append_again("after").await;
    node.tail.wait_event("after").await;
    let offset = node.tail.seen.lock().unwrap().events.last().unwrap().offset;
    assert_eq!(offset.epoch.0, 0xabc);
}

#[tokio::test]
async fn the_documented_rights_are_sufficient() {
    let server = RedisServer::start();
    let document = include_str!("../docs/redis.md");
    for line in document.lines().filter(|line| line.starts_with("ACL SETUSER")) {
        let line = line.replace("PASSWORD", "p@ss");
        server.run::<()>(&line.split(' ').collect::<Vec<_>>());
    }
    server.run::<()>(&["CONFIG", "SET", "requirepass", "other"]);
    let url = |user: &str| format!("redis://{user}@127.0.0.1:{}", server.port());
    let node = Node::redis(&url("roomcast:p%40ss"), "roomcast");
    node.status(LogStatus::Ready).await;
    node.stored(draft("let in")).await;
    node.tail.wait_event("let in").await;
    node.append_one(Draft { volatile: true, ..draft("volatile") }).await.unwrap();
    node.append_one(Draft { id: Some("once".into()), ..draft("with an id") }).await.unwrap();
    let mut backend = redis::Client::open(url("backend:p%40ss")).unwrap().get_connection().unwrap();
    for event in [["event", "by the backend"], ["evnt", "malformed"]] {
        let mut add = redis::cmd("XADD");
        add.arg(&["roomcast:events", "*", "room", "r"]).arg(&event).query::<String>(&mut backend).unwrap();
    }
    assert!(redis::cmd("DEL").arg("roomcast:events").query::<()>(&mut backend).is_err());
    node.tail.wait_event("by the backend").await;
    node.tail.wait_event("volatile").await;
    let mut emitter = redis::Client::open(url("emitter:p%40ss")).unwrap().get_connection().unwrap();
    redis::cmd("PUBLISH").arg(&["socket.io#/#room#", "x"]).query::<()>(&mut emitter).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut owner = redis::Client::open(url(":other")).unwrap().get_connection().unwrap();
    while redis::cmd("XLEN").arg("roomcast:dead").query::<usize>(&mut owner).unwrap() == 0 {
        assert!(Instant::now() < deadline, "the malformed entry is not copied");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Trimming and everything else that happens only now and then is permitted too.
    let denied: Vec<redis::Value> = redis::cmd("ACL").arg("LOG").query(&mut owner).unwrap();
    assert!(format!("{denied:?}").contains("\"backend\""), "what is denied shows here: {denied:?}");
    assert!(!format!("{denied:?}").contains("\"roomcast\""), "{denied:?}");
    let by_password = Node::redis(&url(":other"), "roomcast");
    by_password.status(LogStatus::Ready).await;
    let elsewhere = Node::redis_with(&url("roomcast:p%40ss"), "elsewhere", RecoveryConfig::default(), SHORT);
    let refused = Node::with_short_timeout(&url("roomcast:wrong"));
    for node in [&elsewhere, &refused] {
        assert!(matches!(node.append_one(draft("x")).await, Err(AppendError::Unavailable(_))));
        assert_eq!(node.log.status(), LogStatus::Connecting);
    }
}

#[tokio::test]
async fn each_command_of_a_pipeline_gets_its_own_error() {
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
async fn a_lost_log_gets_one_new_epoch_on_all_nodes() {
    let server = RedisServer::start();
    let nodes = [Node::redis(&server.url(), "roomcast"), Node::redis(&server.url(), "roomcast")];
    for node in &nodes {
        node.status(LogStatus::Ready).await;
    }
    let mut epochs = vec![nodes[0].tail.wait_reset(1).await.epoch];
    let losses: [&[&str]; 4] = [
        &["FLUSHALL"],
        &["DEL", "roomcast:events"],
        &["SET", "roomcast:{roomcast:events}:epoch", "garbage"],
        &["DEL", "roomcast:{roomcast:events}:epoch", "roomcast:events"],
    ];
    for (n, loss) in losses.into_iter().enumerate() {
        let before = nodes[0].stored(draft(&format!("before{n}"))).await.position;
        for node in &nodes {
            node.tail.wait_event(&format!("before{n}")).await;
        }
        server.run::<()>(loss);
        // In the same millisecond a new stream would assign the same id again, which counts as history.
        while server.run::<(u64, u64)>(&["TIME"]).1 / 1000 == before.ms % 1000 {}
        nodes[1].append_again(&format!("meanwhile{n}")).await;
        let begun = nodes[0].tail.wait_reset(n + 2).await;
        assert_eq!(begun.epoch, nodes[1].tail.wait_reset(n + 2).await.epoch, "{loss:?}");
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
        assert_eq!(node.tail.seen.lock().unwrap().resets.len(), 5, "one reset for each loss");
    }
}

#[tokio::test]
async fn a_redis_that_returns_with_less_data_is_a_discontinuity() {
    let mut server = RedisServer::start();
    let node = Node::with_short_timeout(&server.url());
    node.status(LogStatus::Ready).await;
    let first = node.tail.wait_reset(1).await;
    node.stored(draft("one")).await;
    node.tail.wait_event("one").await;
    server.kill();
    server.resume_from_disk();
    let second = node.tail.wait_reset(2).await;
    assert_ne!(second.epoch, first.epoch);
    for name in ["two", "three"] {
        node.append_again(name).await;
    }
    let last = node.tail.wait_event("three").await.offset.position.to_string();

    // As after a failover to a replica that lacks the last entry but accepted a newer one.
    let mut failover = redis::pipe();
    failover.atomic().cmd("XADD").arg(&["roomcast:events", "*", "room", "r", "event", "four"]);
    failover.cmd("XDEL").arg(&["roomcast:events", &last]);
    failover.cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    failover.exec(&mut server.connection()).unwrap();
    let third = node.tail.wait_reset(3).await;
    assert_ne!(third.epoch, second.epoch);
    assert_eq!(names(&third.history), ["two"]);
    assert_eq!(node.tail.wait_event("four").await.offset.epoch, third.epoch);
}

#[tokio::test]
async fn entries_trimmed_before_a_node_read_them_are_a_discontinuity() {
    let server = RedisServer::start();
    let nodes = [Node::redis(&server.url(), "roomcast"), Node::redis(&server.url(), "roomcast")];
    for node in &nodes {
        node.status(LogStatus::Ready).await;
    }
    for name in ["one", "two"] {
        nodes[0].stored(draft(name)).await;
    }
    for node in &nodes {
        node.tail.wait_event("two").await;
    }
    let mut missed = redis::pipe();
    missed.atomic().cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    for name in ["a", "b", "c"] {
        missed.cmd("XADD").arg(&["roomcast:events", "*", "room", "r", "event", name]);
    }
    missed.cmd("XTRIM").arg(&["roomcast:events", "MAXLEN", "1"]);
    missed.exec(&mut server.connection()).unwrap();
    for node in &nodes {
        let (first, again) = (node.tail.wait_reset(1).await, node.tail.wait_reset(2).await);
        assert_eq!(first.epoch, again.epoch, "the log itself lost nothing");
        let event = node.tail.wait_event("c").await;
        assert_eq!(again.head, event.offset.position.predecessor());
        assert_eq!((again.floor, again.history.len()), (again.head, 0));
        assert_eq!(names(&node.tail.wait_events(3).await), ["one", "two", "c"]);
    }
}

/// Certificates come from SSL_CERT_FILE, which a process cannot set for itself, so the test runs its own binary again.
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
    let distrusting = Node::with_short_timeout(&url);
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
