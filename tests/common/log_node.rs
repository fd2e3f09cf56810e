//! A log that delivers to a recorder, like a node without connections.

// Each test binary uses a part.
#![allow(dead_code, clippy::unwrap_used)]

use roomcast::log::config::RecoveryConfig;
use roomcast::log::redis::RedisLog;
use roomcast::log::redis::partitioned::PartitionedLog;
use roomcast::log::{Appended, BoxFuture, EventLog, LogStatus, Sink, Snapshot};
use roomcast::metrics::Metrics;
use roomcast::model::args::Args;
use roomcast::model::draft::{Draft, DraftLimits, Source};
use roomcast::model::event::{Batch, Event};
use roomcast::model::id::Id;
use roomcast::model::offset::{Offset, Position};
use roomcast::model::partition::Line;
use roomcast::model::secret::Secret;
use roomcast::redis::config::RedisConfig;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How long a test waits for a condition; generous, since tests run side by side.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// `redis.timeout` where a test is not about it.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// `redis.timeout` where a test is about it: longer than a busy machine may stop for a moment.
pub(crate) const SHORT: Duration = Duration::from_secs(3);
pub(crate) const LIMITS: DraftLimits = DraftLimits { max_event: 2 << 20, room_name_bytes: 200, rooms: 100 };

/// Records everything that a tail delivers.
#[derive(Default)]
pub(crate) struct Recorder {
    pub seen: Mutex<Seen>,
    pub change: Notify,
    /// While it is locked, nothing is delivered.
    pub gate: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub resets: Vec<Snapshot>,
    pub renewals: Vec<Snapshot>,
    pub events: Vec<Arc<Event>>,
    pub probes: Vec<Id>,
    pub advanced_to: usize,
    /// Deliveries that wait for the gate.
    pub waiting: usize,
}

impl Recorder {
    pub(crate) fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.change.notify_one();
    }

    /// Waits until the recorded state satisfies the condition.
    pub(crate) async fn wait<T>(&self, what: &str, done: impl Fn(&Seen) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some(done) = done(&self.seen.lock().unwrap()) {
                return done;
            }
            let waited = tokio::time::timeout_at(deadline, self.change.notified()).await;
            assert!(waited.is_ok(), "still waiting for {what}; events: {:?}", names(&self.seen.lock().unwrap().events));
        }
    }

    pub(crate) async fn wait_events(&self, count: usize) -> Vec<Arc<Event>> {
        self.wait(&format!("{count} events"), |seen| (seen.events.len() >= count).then(|| seen.events.clone())).await
    }

    pub(crate) async fn wait_event(&self, name: &str) -> Arc<Event> {
        self.wait(name, |seen| seen.events.iter().find(|event| &*event.draft.event == name).cloned()).await
    }

    pub(crate) async fn wait_reset(&self, count: usize) -> Snapshot {
        self.wait("a snapshot", |seen| seen.resets.get(count - 1).cloned()).await
    }
}

impl Seen {
    fn add(&mut self, batch: Batch) {
        self.events.extend(batch.events);
        self.probes.extend(batch.probes);
    }
}

impl Sink for Recorder {
    fn reset(&self, snapshot: Snapshot) {
        self.change(|seen| seen.resets.push(snapshot));
    }

    fn renewed(&self, snapshot: Snapshot) {
        self.change(|seen| seen.renewals.push(snapshot));
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, ()> {
        // While there is room, delivery completes at once.
        if self.gate.try_lock().is_ok() {
            self.change(|seen| seen.add(batch));
            return Box::pin(std::future::ready(()));
        }
        self.change(|seen| seen.waiting += 1);
        Box::pin(async move {
            drop(self.gate.lock().await);
            self.change(|seen| {
                seen.waiting -= 1;
                seen.add(batch);
            });
        })
    }

    fn try_deliver(&self, batch: Batch) -> Result<(), Batch> {
        if self.gate.try_lock().is_err() {
            return Err(batch);
        }
        self.change(|seen| seen.add(batch));
        Ok(())
    }

    fn advanced_to(&self, _: Line, _: Position) {
        self.change(|seen| seen.advanced_to += 1);
    }
}

/// A log and its recorder.
pub(crate) struct Node {
    pub log: Arc<dyn EventLog>,
    pub tail: Arc<Recorder>,
    pub metrics: Arc<Metrics>,
    pub task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    pub(crate) fn run(log: Arc<dyn EventLog>, metrics: Arc<Metrics>) -> Self {
        let tail = Arc::new(Recorder::default());
        let (running, appender) = (log.clone().run(tail.clone()), log.clone().run_appender(0));
        let task = tokio::spawn(async move {
            tokio::join!(running, appender);
        });
        Self { log, tail, metrics, task }
    }

    pub(crate) fn redis(url: &str, prefix: &str) -> Self {
        Self::redis_with(url, prefix, RecoveryConfig::default(), LONG)
    }

    pub(crate) fn with_short_timeout(url: &str) -> Self {
        Self::redis_with(url, "roomcast", RecoveryConfig::default(), SHORT)
    }

    pub(crate) fn redis_with(url: &str, prefix: &str, recovery: RecoveryConfig, timeout: Duration) -> Self {
        let config =
            RedisConfig { url: Some(Secret::new(url)), prefix: prefix.into(), timeout, ..RedisConfig::default() };
        Self::configured(&config, &recovery)
    }

    pub(crate) fn configured(config: &RedisConfig, recovery: &RecoveryConfig) -> Self {
        let metrics = Arc::new(Metrics::new("0").unwrap());
        Self::run(RedisLog::new(config, recovery, LIMITS, metrics.clone(), 1).unwrap(), metrics)
    }

    /// A node of a log with partitions.
    pub(crate) fn partitioned(config: &RedisConfig) -> Self {
        let metrics = Arc::new(Metrics::new("0").unwrap());
        let log = PartitionedLog::new(config, &RecoveryConfig::default(), LIMITS, &metrics, 1).unwrap();
        Self::run(log, metrics)
    }

    pub(crate) async fn append_one(&self, draft: Draft) -> Appended {
        self.log.append(vec![draft]).await.remove(0)
    }

    pub(crate) async fn stored(&self, draft: Draft) -> Offset {
        self.append_one(draft).await.unwrap().offset.expect("not volatile")
    }

    pub(crate) async fn status(&self, wanted: LogStatus) {
        let deadline = Instant::now() + DEADLINE;
        while self.log.status() != wanted {
            assert!(Instant::now() < deadline, "never {wanted:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Appends until it succeeds.
    pub(crate) async fn append_again(&self, name: &str) -> Offset {
        self.stored_again(draft(name)).await
    }

    /// The same with any draft that is not volatile.
    pub(crate) async fn stored_again(&self, draft: Draft) -> Offset {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.append_one(draft.clone()).await {
                Ok(accepted) => return accepted.offset.unwrap(),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    pub(crate) fn metric(&self, line: &str) -> bool {
        self.metrics.render().unwrap().lines().any(|is| is == line)
    }
}

/// A plain draft whose event has this name.
pub(crate) fn draft(name: &str) -> Draft {
    draft_to("room", name)
}

/// The same to another room.
pub(crate) fn draft_to(room: &str, name: &str) -> Draft {
    Draft::new(room, name, Args::one("{\"id\":9}").unwrap(), Source::Http)
}

/// The events' names.
pub(crate) fn names(events: &[Arc<Event>]) -> Vec<String> {
    events.iter().map(|event| event.draft.event.to_string()).collect()
}

/// Waits until this holds, for things that only Redis or a metric shows.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
