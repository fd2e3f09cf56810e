//! The log in a Redis stream, `{prefix}:events`. Needs Redis 6.2 (`XADD … MINID`), 7.0 to see every loss.
//!
//! One connection appends, one tails, one listens for volatile events (DESIGN 10); all live inside
//! [`EventLog::run`] on the control thread, and callers on other threads only put commands into a queue.

mod append;
mod append_batch;
mod append_queue;
mod dead_letters;
mod entry;
mod epoch;
pub mod generation;
mod history;
pub(crate) mod leased_append;
mod reply;
mod tail;
mod volatile;

pub use entry::{entry_fields, read_event};

use crate::log::config::RecoveryConfig;
use crate::log::{AppendError, Appended, EventLog, LogStatus, Pending, Sink};
use crate::metrics::Metrics;
use crate::model::command::SessionCommand;
use crate::model::draft::{Draft, DraftLimits};
use crate::model::id::Id;
use crate::model::offset::{Epoch, Position};
use crate::redis::config::RedisConfig;
use crate::redis::connection::Connector;
use crate::redis::url::RedisUrlError;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// The stream keeps at least this much, so that a tail that lags or reconnects finds what it has not read.
const LEAST_KEPT: Duration = Duration::from_secs(10);
/// Kept beyond the window: what is told old by one clock may be young by another.
const TRIM_SLACK: Duration = Duration::from_secs(30);

/// Connections whose last acknowledged entry waits to be looked for; the tail looks at least once a second.
const MAX_UNPROVEN: usize = 16;

/// How long the stream keeps its entries.
pub fn stream_kept(recovery: &RecoveryConfig) -> Duration {
    recovery.kept().max(LEAST_KEPT) + TRIM_SLACK
}

/// The Redis twin of the embedded log.
pub struct RedisLog {
    connector: Connector,
    keys: Keys,
    timeout: Duration,
    min_replicas: u32,
    recovery: RecoveryConfig,
    limits: DraftLimits,
    metrics: Arc<Metrics>,
    requests: append_batch::Requests,
    queue: append_queue::Queue,
    heard: volatile::PubSubBuffer,
    /// Known once the tail has begun.
    epoch: watch::Sender<Option<Epoch>>,
    /// Milliseconds of the newest id that was seen in the stream; trimming goes by it.
    newest_ms: AtomicU64,
    acknowledged: Acknowledged,
    appender: Up,
    tail: Up,
}

/// Whether a part has its connection.
#[derive(Default)]
struct Up {
    now: AtomicBool,
    before: AtomicBool,
}

/// The last entry that publishers were told of. The next master may lack it, though no tail has read it yet.
#[derive(Default)]
struct Acknowledged {
    positions: Mutex<Positions>,
}

#[derive(Default)]
struct Positions {
    /// On the connection there is.
    now: Option<Position>,
    /// On connections that are gone, until the tail has seen whether they are in the log. Each may have led to
    /// another master, so one does not speak for the others.
    unproven: Vec<Position>,
}

impl Acknowledged {
    fn note(&self, position: Position) {
        let mut positions = self.positions.lock();
        // A repeated idempotency id is answered with an old one.
        positions.now = positions.now.max(Some(position));
    }

    /// The connection is gone; the next one may lead elsewhere.
    fn disconnected(&self) {
        let mut positions = self.positions.lock();
        if let Some(last) = positions.now.take().filter(|_| positions.unproven.len() < MAX_UNPROVEN) {
            positions.unproven.push(last);
        }
    }

    fn unproven(&self) -> Vec<Position> {
        self.positions.lock().unproven.clone()
    }

    /// The tail has looked for the oldest so many.
    fn settle(&self, looked_for: usize) {
        self.positions.lock().unproven.drain(..looked_for);
    }

    /// The log is not the one it was, and that is told.
    fn forget(&self) {
        self.positions.lock().now = None;
    }
}

/// Keys and channels; all start with the prefix.
struct Keys {
    /// The stream.
    events: String,
    /// The log's life; in the stream's slot of a Cluster.
    epoch: String,
    /// Copies of malformed entries.
    dead: String,
    /// The channel of volatile events.
    volatile: String,
    /// What keys in the stream's slot of a Cluster begin with: what is in the first braces decides, and the stream's
    /// key without braces counts as a whole.
    beside: String,
}

impl Keys {
    fn new(prefix: &str) -> Self {
        let key = |name: &str| format!("{prefix}:{name}");
        let events = key("events");
        let beside = format!("{prefix}:{{{events}}}");
        Self { epoch: format!("{beside}:epoch"), dead: key("dead"), volatile: key("volatile"), events, beside }
    }

    /// The key of an idempotency id.
    fn id(&self, id: &str) -> String {
        format!("{}:id:{id}", self.beside)
    }

    /// The lease of the node that copies what emitters publish.
    fn copying(&self) -> String {
        format!("{}:emitters", self.beside)
    }

    /// How far that node has read their stream.
    fn copied_to(&self, stream: &str) -> String {
        format!("{}:emitters:{stream}", self.beside)
    }

    /// The key that says which node reports a malformed entry.
    fn claim(&self, position: Position) -> String {
        format!("{}:dead:{position}", self.beside)
    }
}

impl RedisLog {
    /// Checks the URL. Connects in [`EventLog::run`], so Redis may be down as yet.
    ///
    /// # Errors
    /// When the URL is missing or not served.
    pub fn new(
        config: &RedisConfig,
        recovery: &RecoveryConfig,
        limits: DraftLimits,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, RedisUrlError> {
        let keys = Keys::new(&config.prefix);
        Ok(Arc::new(Self {
            connector: Connector::new(config)?,
            timeout: config.timeout,
            min_replicas: config.min_replicas,
            recovery: recovery.clone(),
            limits,
            metrics,
            requests: append_batch::Requests::new(&keys),
            keys,
            queue: append_queue::Queue::default(),
            heard: volatile::PubSubBuffer::default(),
            epoch: watch::Sender::new(None),
            newest_ms: AtomicU64::new(0),
            acknowledged: Acknowledged::default(),
            appender: Up::default(),
            tail: Up::default(),
        }))
    }

    fn epoch(&self) -> Option<Epoch> {
        *self.epoch.borrow()
    }

    async fn epoch_known(&self) {
        // The sender is ours, so waiting for it cannot fail.
        let _ = self.epoch.subscribe().wait_for(Option::is_some).await;
    }

    fn note_snapshot(&self, epoch: Epoch, head: Position) {
        self.newest_ms.store(head.ms, Ordering::Relaxed);
        self.epoch.send_replace(Some(epoch));
    }

    fn note_newest(&self, ms: u64) {
        self.newest_ms.fetch_max(ms, Ordering::Relaxed);
    }

    fn note_appender(&self, up: bool) {
        self.note(&self.appender, up);
    }

    fn note_tail(&self, up: bool) {
        self.note(&self.tail, up);
    }

    fn note(&self, part: &Up, up: bool) {
        part.now.store(up, Ordering::Relaxed);
        if up && part.before.swap(true, Ordering::Relaxed) {
            self.metrics.redis_reconnects.inc();
        }
        self.metrics.redis_up.set(i64::from(self.is_up()));
    }

    fn is_up(&self) -> bool {
        [&self.appender, &self.tail].iter().all(|part| part.now.load(Ordering::Relaxed))
    }

    /// Entries with older ids may be trimmed; 0 while that is not known. An id from the future, which anybody may
    /// add, must not sweep the stream, so this node's clock has a say too.
    fn trim_before_ms(&self, now_ms: u64) -> u64 {
        let newest_ms = self.newest_ms.load(Ordering::Relaxed).min(now_ms);
        newest_ms.saturating_sub(stream_kept(&self.recovery).as_millis() as u64)
    }
}

impl EventLog for RedisLog {
    fn append(&self, drafts: Vec<Draft>) -> Pending<'_, Vec<Appended>> {
        Box::pin(append::append(self, drafts))
    }

    fn order(&self, order: Arc<SessionCommand>) -> Pending<'_, Result<(), AppendError>> {
        Box::pin(async move { append::order(self, &order).await })
    }

    fn probe(&self, id: Id) -> Pending<'_, Result<(), AppendError>> {
        Box::pin(append::probe(self, id))
    }

    fn run(self: Arc<Self>, sink: Arc<dyn Sink>) -> Pending<'static, ()> {
        Box::pin(async move {
            tokio::join!(append::run(&self), tail::run(&self, &*sink), volatile::listen(&self));
        })
    }

    fn status(&self) -> LogStatus {
        match self.is_up() {
            true => LogStatus::Ready,
            false => LogStatus::Connecting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;

    #[test]
    fn trimming_never_cuts_into_the_window() {
        let recovery = RecoveryConfig { window: Duration::from_secs(120), ..RecoveryConfig::default() };
        let config = RedisConfig { url: Some(Secret::new("redis://127.0.0.1")), ..RedisConfig::default() };
        let limits = DraftLimits { max_event: 1, room_name_bytes: 1, rooms: 1 };
        let metrics = Arc::new(Metrics::new("0").unwrap());
        let log = RedisLog::new(&config, &recovery, limits, metrics).unwrap();
        assert_eq!(log.trim_before_ms(u64::MAX), 0, "nothing is known yet");
        log.note_newest(1_000_000);
        assert_eq!(log.trim_before_ms(u64::MAX), 820_000);
        log.note_newest(u64::MAX);
        assert_eq!(log.trim_before_ms(1_000_000), 820_000, "an id from the future");
    }

    #[test]
    fn the_id_key_is_in_the_slot_of_the_stream() {
        assert_eq!(Keys::new("roomcast").id("x"), "roomcast:{roomcast:events}:id:x");
    }
}
