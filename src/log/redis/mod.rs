//! The log in a Redis stream, `{prefix}:events`. Needs Redis 6.2 (`XADD … MINID`), 7.0 to see every loss.
//!
//! Each shard appends over a connection of its own ([`shard_append`]). One connection appends everything else, one tails, one
//! receives volatile events (docs/decisions/13-one-redis-connection-per-job.md). These belong to [`EventLog::run`] on the
//! control thread; callers on other threads only put commands into a queue.

mod acknowledged;
mod add_command;
mod append;
mod append_error;
mod append_queue;
mod backfill;
mod backlog;
mod careful_read;
mod clock_offset;
mod dead_letters;
mod deadline;
mod entry;
mod epoch;
mod foreign_ids;
pub mod generation;
mod history;
mod keys;
pub(crate) mod layout;
pub(crate) mod leased_append;
mod line_threads;
mod lines;
mod losses;
mod partition_set;
pub mod partitioned;
mod refused_appends;
mod renewal;
mod reply;
pub(crate) mod rights;
mod shard_append;
mod stream_size;
mod tail;
mod transaction;
mod volatile;

pub use entry::{entry_fields, read_event, read_wanted};

pub use shard_append::partition_appenders;

use crate::log::backfill::{Past, PastRange, PastUnavailable};
use crate::log::config::RecoveryConfig;
use crate::log::{Accepted, AppendError, Appended, BoxFuture, EventLog, LogStatus, Sink};
use crate::metrics::Metrics;
use crate::model::after::After;
use crate::model::clock::unix_us;
use crate::model::command::SessionCommand;
use crate::model::draft::{Draft, DraftError, DraftLimits};
use crate::model::id::Id;
use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::{Line, Partitions};
use crate::redis::config::RedisConfig;
use crate::redis::connection::Connector;
use crate::redis::error::RedisError;
use crate::redis::url::{Address, RedisUrlError};
use keys::Keys;
use layout::Layout;
use lines::Lines;
use parking_lot::Mutex;
use shard_append::LineAppenders;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The stream keeps at least this much, so that a tail that lags or reconnects finds what it has not read.
const MIN_KEPT: Duration = Duration::from_secs(10);
/// The stream keeps entries longer than the window, because clocks differ.
const TRIM_SLACK: Duration = Duration::from_secs(30);

/// How often the rights are tried, and how often while one is missing or Redis does not answer.
const RIGHTS_INTERVAL: Duration = Duration::from_secs(10);
/// The same for partitions, of which there are many and whose rights are mostly those of the control line.
const PARTITION_RIGHTS_INTERVAL: Duration = Duration::from_secs(60);
const MISSING_RIGHTS_INTERVAL: Duration = Duration::from_millis(500);

/// How long the stream keeps its entries.
pub fn stream_kept(recovery: &RecoveryConfig) -> Duration {
    recovery.kept().max(MIN_KEPT) + TRIM_SLACK
}

/// The log in a Redis stream.
pub struct RedisLog {
    line: Line,
    lines: Arc<Lines>,
    /// On the control line of a log whose partitions are agreed on.
    layout: Option<Arc<Layout>>,
    connector: Connector,
    keys: Keys,
    timeout: Duration,
    min_replicas: u32,
    recovery: RecoveryConfig,
    limits: DraftLimits,
    metrics: Arc<Metrics>,
    transactions: transaction::Transactions,
    backlog: Arc<backlog::Backlog>,
    queue: append_queue::Queue,
    appenders: LineAppenders,
    /// The server of the control thread's connection, while there is one.
    server: watch::Sender<Option<Address>>,
    pubsub_buffer: volatile::PubSubBuffer,
    /// The newest entry that volatile events of this node must not overtake.
    announced: Mutex<Position>,
    /// `None` before the first snapshot.
    epoch: watch::Sender<Option<Epoch>>,
    /// Milliseconds of the newest id seen in the stream, by which old entries are trimmed.
    newest_ms: AtomicU64,
    acknowledged: acknowledged::AcknowledgedPositions,
    refused_appends: refused_appends::RefusedAppends,
    appender: LinkState,
    tail: LinkState,
    /// The tail's connection broke, so the one that appends, which may be idle, is looked at.
    tail_broke: Notify,
    clock_offset: clock_offset::ClockOffset,
    foreign_ids: foreign_ids::ForeignIds,
    config: RedisConfig,
    /// What Redis does not let this node do; `None` until it was tried.
    missing_rights: Mutex<Option<Vec<String>>>,
}

/// Whether the appender, or the tail, is connected.
#[derive(Default)]
struct LinkState {
    is_up: AtomicBool,
    was_up: AtomicBool,
    /// What Redis answered when it was last interrupted.
    failure: Mutex<Option<String>>,
}

impl RedisLog {
    /// Connects in [`EventLog::run`], so Redis may be down now. So many shards append.
    ///
    /// # Errors
    /// When the URL is missing or cannot be used.
    pub fn new(
        config: &RedisConfig,
        recovery: &RecoveryConfig,
        limits: DraftLimits,
        metrics: Arc<Metrics>,
        appenders: usize,
    ) -> Result<Arc<Self>, RedisUrlError> {
        let lines = Lines::new(Partitions::ONE, metrics.clone());
        Self::of_line(Line::CONTROL, config, recovery, limits, LineAppenders::of_shards(appenders), (lines, None))
    }

    /// One line of the log, with what it shares with the others.
    fn of_line(
        line: Line,
        config: &RedisConfig,
        recovery: &RecoveryConfig,
        limits: DraftLimits,
        appenders: LineAppenders,
        (lines, layout): (Arc<Lines>, Option<Arc<Layout>>),
    ) -> Result<Arc<Self>, RedisUrlError> {
        let keys = Keys::new(&config.prefix, line);
        let backlog = lines.backlog.clone();
        Ok(Arc::new(Self {
            line,
            layout,
            connector: Connector::for_stream(config, &keys.events)?,
            timeout: config.timeout,
            min_replicas: config.min_replicas,
            recovery: recovery.clone(),
            limits,
            metrics: lines.metrics.clone(),
            lines,
            transactions: transaction::Transactions::new(&keys),
            keys,
            queue: append_queue::Queue::new(backlog.clone()),
            backlog,
            server: watch::Sender::new(None),
            pubsub_buffer: volatile::PubSubBuffer::default(),
            announced: Mutex::default(),
            epoch: watch::Sender::new(None),
            newest_ms: AtomicU64::new(0),
            acknowledged: acknowledged::AcknowledgedPositions::new(appenders.len() + 1),
            appenders,
            refused_appends: refused_appends::RefusedAppends::default(),
            appender: LinkState::default(),
            tail: LinkState::default(),
            tail_broke: Notify::new(),
            clock_offset: clock_offset::ClockOffset::default(),
            foreign_ids: foreign_ids::ForeignIds::default(),
            config: config.clone(),
            missing_rights: Mutex::default(),
        }))
    }

    fn epoch(&self) -> Option<Epoch> {
        *self.epoch.borrow()
    }

    async fn epoch_known(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.epoch.subscribe().wait_for(Option::is_some).await;
    }

    fn note_snapshot(&self, epoch: Epoch, head: Position) {
        self.newest_ms.store(head.ms, Ordering::Relaxed);
        self.epoch.send_replace(Some(epoch));
    }

    /// The line has lost entries, and goes on behind its head.
    fn fall_back(&self, head: Offset) {
        self.acknowledged.forget();
        *self.announced.lock() = Position::default();
        self.lines.fall_back(head);
    }

    /// The newest entry of the control line that volatile events must not overtake.
    fn announced(&self) -> Position {
        match self.line {
            Line::CONTROL => *self.announced.lock(),
            partition => self.lines.announced(partition).unwrap_or_default(),
        }
    }

    /// The line is not run any more, for now.
    fn stopped(&self) {
        self.note(&self.appender, false);
        self.note(&self.tail, false);
        self.acknowledged.forget();
        *self.announced.lock() = Position::default();
        self.lines.forget(self.line);
    }

    /// Whether a position is not of a stream that is about to be renewed.
    fn is_lasting(&self, position: Position) -> bool {
        !renewal::is_due(self, position)
    }

    /// What comes before an entry on other lines. Where there are none, nothing is looked for.
    fn after_of(&self, entry: &entry::Entry<'_>) -> After {
        if self.lines.partitions.is_one() { After::default() } else { entry.after() }
    }

    /// Refuses what does not belong to this line. A partition has events of its rooms alone: elsewhere a client that resumes
    /// would not look for them.
    fn check_line<'a>(&self, entry: entry::StreamEntry<'a>) -> Result<entry::StreamEntry<'a>, DraftError> {
        let partitions = self.lines.partitions;
        match &entry {
            _ if self.line == Line::CONTROL => Ok(entry),
            entry::StreamEntry::Event(draft, _) if !partitions.may_have(self.line, &draft.rooms, &draft.except) => {
                let line = partitions.of_event(&draft.rooms, &draft.except);
                Err(DraftError::Field(format!("its rooms belong to line {line} of the log, and this is {}", self.line)))
            }
            entry::StreamEntry::SessionCommand(_) => {
                Err(DraftError::Field("commands belong to the control line".into()))
            }
            _ => Ok(entry),
        }
    }

    /// Appends drafts that come after what `after` names on other lines.
    async fn append_after(&self, drafts: Vec<Draft>, after: Option<String>) -> Vec<Appended> {
        append::append(self, drafts, after.as_deref()).await
    }

    async fn append_command_after(
        &self,
        command: &SessionCommand,
        after: Option<String>,
    ) -> Result<Accepted, AppendError> {
        append::append_command(self, command, after.as_deref()).await
    }

    async fn append_probe(&self, id: Id) -> Result<(), AppendError> {
        append::probe(self, id).await
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

    fn note_failure(&self, link: &LinkState, error: &RedisError) {
        self.note(link, false);
        if let RedisError::Reply(why) = error {
            *link.failure.lock() = Some(why.clone());
        }
    }

    fn note(&self, link: &LinkState, up: bool) {
        link.is_up.store(up, Ordering::Relaxed);
        if up {
            *link.failure.lock() = None;
        }
        if up && link.was_up.swap(true, Ordering::Relaxed) {
            self.metrics.log.redis_reconnects.inc();
        }
        self.note_up();
    }

    fn note_up(&self) {
        self.lines.note_up(self.line, self.is_up());
    }

    /// Tries the rights in use now and then, until dropped.
    async fn watch_rights(&self) {
        loop {
            // What cannot be asked is seen by those who work with it.
            let asked = rights::missing(&self.config, self.line).await;
            let is_good = asked.as_ref().is_ok_and(Vec::is_empty);
            if let Ok(missing) = asked {
                let mut known = self.missing_rights.lock();
                if known.as_ref() != Some(&missing) && !missing.is_empty() {
                    tracing::error!(missing = missing.join("; "), "Redis does not let this node work (docs/redis.md)");
                }
                *known = Some(missing);
            }
            let interval = if self.line == Line::CONTROL { RIGHTS_INTERVAL } else { PARTITION_RIGHTS_INTERVAL };
            tokio::time::sleep(if is_good { interval } else { MISSING_RIGHTS_INTERVAL }).await;
        }
    }

    fn is_up(&self) -> bool {
        [&self.appender, &self.tail].iter().all(|link| link.is_up.load(Ordering::Relaxed))
            && self.appenders.iter().all(|appender| appender.is_fine())
    }

    /// Milliseconds of the newest id seen.
    fn newest_ms(&self) -> u64 {
        self.newest_ms.load(Ordering::Relaxed)
    }

    /// Entries with older ids may be trimmed; 0 while that is unknown. An id from the future, which any publisher can add,
    /// must not empty the stream, so this node's clock limits it.
    fn trim_before_ms(&self, now_ms: u64) -> u64 {
        let newest_ms = self.newest_ms().min(now_ms);
        newest_ms.saturating_sub(stream_kept(&self.recovery).as_millis() as u64)
    }
}

/// Entries with older ids may be trimmed now.
fn trim_before_ms(log: &RedisLog) -> u64 {
    log.trim_before_ms(unix_us() / 1000)
}

impl EventLog for RedisLog {
    fn note_announced(&self, position: Position) {
        let mut announced = self.announced.lock();
        *announced = position.max(*announced);
    }

    fn append(&self, drafts: Vec<Draft>) -> BoxFuture<'_, Vec<Appended>> {
        Box::pin(self.append_after(drafts, None))
    }

    fn append_command(&self, command: Arc<SessionCommand>) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move { append::append_command(self, &command, None).await.map(drop) })
    }

    fn probe(&self, id: Id) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(append::probe(self, id))
    }

    fn read_past(&self, range: PastRange, within: Duration) -> BoxFuture<'_, Result<Past, PastUnavailable>> {
        Box::pin(async move { backfill::read(self, &range, within).await })
    }

    fn run(self: Arc<Self>, sink: Arc<dyn Sink>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let appends = async {
                if self.appenders.is_shared() {
                    tokio::join!(append::run(&self), shard_append::run(&self, 0));
                } else {
                    append::run(&self).await
                }
            };
            tokio::join!(appends, tail::run(&self, &*sink), volatile::run(&self), self.watch_rights());
        })
    }

    fn run_appender(self: Arc<Self>, shard: usize) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            shard_append::note_shard(shard);
            if !self.appenders.is_shared() {
                shard_append::run(&self, shard).await;
            }
        })
    }

    fn status(&self) -> LogStatus {
        let has_rights = self.missing_rights.lock().as_ref().is_some_and(Vec::is_empty);
        let may_work = has_rights && self.refused_appends.problem().is_none();
        match self.is_up() && may_work {
            true => LogStatus::Ready,
            false => LogStatus::Connecting,
        }
    }

    fn problem(&self) -> Option<String> {
        // They say more than the refusal of one command, so nothing is said before they were tried.
        let missing = self.missing_rights.lock().clone()?;
        if !missing.is_empty() {
            return Some(missing.join("; "));
        }
        let links = [("reading the log", &self.tail), ("appending to the log", &self.appender)];
        let failures = links.into_iter().filter_map(|(what, link)| {
            let failure = link.failure.lock();
            failure.as_ref().map(|why| format!("{what} ({} and its keys): {why}", self.keys.events))
        });
        self.refused_appends.problem().or_else(|| failures.into_iter().next())
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
        let log = RedisLog::new(&config, &recovery, limits, metrics, 1).unwrap();
        assert_eq!(log.trim_before_ms(u64::MAX), 0, "nothing is known yet");
        log.note_newest(1_000_000);
        assert_eq!(log.trim_before_ms(u64::MAX), 820_000);
        log.note_newest(u64::MAX);
        assert_eq!(log.trim_before_ms(1_000_000), 820_000, "an id from the future");
    }
}
