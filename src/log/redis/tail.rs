//! The tail: a connection of its own that reads the stream as it grows, and checks every second whether it is still the
//! same log.

mod retired;
mod trim;

use crate::log::recent_ids::RecentIds;
use crate::log::redis::dead_letters::DeadLetters;
use crate::log::redis::entry::{RawEntry, StreamEntry};
use crate::log::redis::generation;
use crate::log::redis::generation::{Discontinuity, Observed, TailState};
use crate::log::redis::stream_size::StreamSize;
use crate::log::redis::volatile::Volatile;
use crate::log::redis::{RedisLog, careful_read, epoch, history, renewal, reply, volatile};
use crate::log::{Sink, Snapshot};
use crate::model::close::DropReason;
use crate::model::draft::{Draft, Source};
use crate::model::event::{Batch, Event, PlacedCommand};
use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::Line;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use crate::redis::reply::text;
use redis::{Pipeline, Value};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long Redis may wait for new entries. A read that returns none is progress too.
const BLOCK: Duration = Duration::from_secs(1);
/// How often the stream is checked: one that started over would otherwise be silent for ever.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// After this long without a read, this process was stopped or cut off: entries may have been added and trimmed.
const MAX_READ_GAP: Duration = Duration::from_secs(3);
/// How long a volatile event waits for an entry that clients get before it; checked at least once a [`BLOCK`].
const MAX_VOLATILE_WAIT: Duration = Duration::from_secs(1);
/// Volatile events that wait so; above it the first ones are delivered early.
const MAX_EARLY: usize = 10_000;
/// Bytes of remembered ids of entries that other publishers added.
const ID_BYTES: usize = 16 << 20;

/// Reads until dropped. Reconnects by itself and goes on where it was.
pub(super) async fn run(log: &RedisLog, sink: &dyn Sink) {
    let mut tail = Tail {
        log,
        sink,
        state: None,
        page: reply::PageSize::default(),
        foreign_ids: RecentIds::new(ID_BYTES),
        dead_letters: DeadLetters::new(),
        size: StreamSize::new(log.config.max_stream_bytes as u64),
        is_behind: true,
        last_trim: None,
        last_measure: None,
        last_read: None,
        early: VecDeque::new(),
    };
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = tail.connected(&mut reconnect).await;
        tail.page.note_error(&error);
        if tail.page.is_stuck() {
            log.refused_appends.suspect();
        }
        if let RedisError::ReplyTooLarge(_) = error {
            tracing::warn!(%error, "entries of the stream are read one by one");
            continue;
        }
        log.note_failure(&log.tail, &error);
        reconnect.wait("the tail", &log.connector, &error).await;
    }
}

struct Tail<'a> {
    log: &'a RedisLog,
    sink: &'a dyn Sink,
    /// Volatile events that came before an entry which clients get first, each with the time of its arrival.
    early: VecDeque<(Instant, Volatile)>,
    /// `None` before the first snapshot.
    state: Option<TailState>,
    page: reply::PageSize,
    /// Idempotency ids of entries that other publishers added. A repeat is skipped, as in appends of nodes.
    foreign_ids: RecentIds<()>,
    dead_letters: DeadLetters,
    size: StreamSize,
    /// Whether the last read may have left entries.
    is_behind: bool,
    last_trim: Option<Instant>,
    last_measure: Option<Instant>,
    /// When entries were last delivered.
    last_read: Option<Instant>,
}

impl Tail<'_> {
    async fn connected(&mut self, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
        let max_reply = careful_read::max_reply(self.log);
        let mut connection = RedisConnection::open_bounded(&self.log.connector, self.log.timeout, max_reply).await?;
        if self.page.is_careful() {
            connection.set_timeout(self.log.timeout.max(careful_read::TIMEOUT));
        }
        // This may be another Redis: the entry that was read last must be in it too.
        let last_read = self.state.as_ref().and_then(|state| state.last_read);
        self.check_stream(&mut connection, last_read).await?;
        reconnect.reset();
        self.log.note_tail(true);
        let mut last_check = Instant::now();
        loop {
            self.read(&mut connection).await?;
            if last_check.elapsed() >= CHECK_INTERVAL {
                connection.check().await?;
                self.check_stream(&mut connection, None).await?;
                self.trim_by_age(&mut connection).await?;
                last_check = Instant::now();
            }
        }
    }

    /// Checks whether the stream is still the log that was read, and that it has `last_read` and the entries that
    /// publishers got acknowledged over connections that are closed. If not, the tail starts over.
    async fn check_stream(
        &mut self,
        connection: &mut RedisConnection,
        last_read: Option<Position>,
    ) -> Result<(), RedisError> {
        let unverified = self.log.acknowledged.unverified();
        let mut expected: Vec<Position> = last_read.into_iter().chain(unverified.iter().copied()).collect();
        expected.sort_unstable();
        let now = epoch::observe(connection, &self.log.keys, &expected).await?;
        self.compare(connection, &now).await?;
        self.log.acknowledged.verified(unverified.len());
        if now.stream.is_some_and(|stream| renewal::is_due(self.log, stream.last)) {
            renewal::renew(self.log, connection).await?;
            let now = epoch::observe(connection, &self.log.keys, &[]).await?;
            self.compare(connection, &now).await?;
        }
        self.trim_by_size(connection, now.stream.as_ref()).await
    }

    async fn compare(&mut self, connection: &mut RedisConnection, now: &Observed) -> Result<(), RedisError> {
        let discontinuity = match &mut self.state {
            None => None,
            Some(state) => match state.discontinuity(now) {
                None => {
                    if let Some(stream) = &now.stream {
                        state.observe(stream);
                    }
                    return Ok(());
                }
                discontinuity => discontinuity,
            },
        };
        self.reset(connection, now, discontinuity).await
    }

    async fn reset(
        &mut self,
        connection: &mut RedisConnection,
        now: &Observed,
        discontinuity: Option<Discontinuity>,
    ) -> Result<(), RedisError> {
        let keys = &self.log.keys;
        let epoch = match generation::parse(&now.epoch_text) {
            Some(epoch) if discontinuity != Some(Discontinuity::EntriesLost) => epoch,
            _ => epoch::agree(connection, keys, &now.epoch_text).await?,
        };
        let is_followed =
            discontinuity == Some(Discontinuity::EpochChanged) && self.follow_renewals(connection, epoch).await?;
        if let Some(state) = self.state.as_mut().filter(|state| renewal::is_due(self.log, state.position)) {
            // No entry of another stream comes after it.
            state.position = Position::default();
        }
        let now = epoch::observe(connection, keys, &[]).await?;
        if generation::parse(&now.epoch_text) != Some(epoch) {
            return Err(RedisError::NotServing("the epoch changed again".into()));
        }
        let continues = is_followed && self.state.as_ref().is_some_and(|state| state.discontinuity(&now).is_none());
        let stream = now.stream;
        let head = generation::head(self.state.as_ref(), stream.as_ref());
        let (page, dead_letters) = (&mut self.page, &mut self.dead_letters);
        let snapshot = history::read(self.log, connection, epoch, head, stream, page, dead_letters).await?;
        if discontinuity.is_some() {
            self.log.acknowledged.forget();
            self.log.forget_announced();
        }
        self.note_snapshot(&snapshot, discontinuity.filter(|_| !continues));
        self.state = Some(TailState::new(epoch, head, stream.as_ref()));
        self.size.reset();
        match continues {
            true => self.sink.renewed(snapshot),
            false => self.sink.reset(snapshot),
        }
        Ok(())
    }

    fn note_snapshot(&mut self, snapshot: &Snapshot, discontinuity: Option<Discontinuity>) {
        let Snapshot { epoch, floor, head, history, .. } = snapshot;
        match discontinuity {
            None => tracing::info!("the log is read from {head}, with {} events of history", history.len()),
            Some(reason) => tracing::warn!(?reason, "the log lost entries; epoch {:x} goes on from {head}", epoch.0),
        }
        tracing::debug!(%floor, %head, "snapshot");
        self.log.note_snapshot(*epoch, *head);
        self.foreign_ids = RecentIds::new(ID_BYTES);
        for event in history {
            self.is_repeat(&event.draft, event.offset.position);
        }
    }

    async fn read(&mut self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        let count = self.page.count();
        let read = self.read_page(connection, count).await?;
        let Some(entries) = read else { return self.check_stream(connection, None).await };
        let newest = entries.last().map(|entry| entry.position);
        if entries.last().is_some_and(|entry| entry.cut.is_some()) {
            // Redis handles the last entry whenever the stream is observed, so a small one is added.
            self.log.refused_appends.suspect();
        }
        self.is_behind = entries.len() >= count;
        let is_behind = self.is_behind || self.last_read.is_some_and(|last| last.elapsed() > MAX_READ_GAP);
        self.page.learn(&entries);
        if is_behind && !entries.is_empty() {
            // Entries before these may have been trimmed. That shows only while these count as unread.
            let before = self.offset();
            self.check_stream(connection, None).await?;
            if self.offset() != before {
                return Ok(());
            }
        }
        self.last_read = Some(Instant::now());
        self.deliver(entries).await;
        self.deliver_volatile().await;
        self.dead_letters.write(self.log, connection).await?;
        self.trim_counted(connection).await?;
        match newest.is_some_and(|newest| renewal::is_due(self.log, newest)) {
            true => self.check_stream(connection, None).await,
            false => Ok(()),
        }
    }

    /// Waits for entries, and delivers volatile events meanwhile. `None` where they may be of another epoch: it is read
    /// after the entries.
    async fn read_page(
        &mut self,
        connection: &mut RedisConnection,
        count: usize,
    ) -> Result<Option<Vec<RawEntry>>, RedisError> {
        if self.page.is_careful() {
            let (log, position) = (self.log, self.offset().position);
            let entries = careful_read::after(log, connection, &log.keys.events, position, count).await?;
            let epoch = connection.call(redis::cmd("GET").arg(&log.keys.epoch)).await?;
            self.page.proceed();
            connection.set_timeout(log.timeout);
            if !entries.is_empty() {
                return Ok(self.is_of_this_epoch(&epoch).then_some(entries));
            }
        }
        let mut commands = Pipeline::with_capacity(2);
        commands.cmd("XREAD").arg("COUNT").arg(count).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        commands.arg("STREAMS").arg(&self.log.keys.events).arg(self.offset().position.to_string());
        commands.cmd("GET").arg(&self.log.keys.epoch);
        let mut reading = pin!(connection.pipeline_blocking(&commands, BLOCK));
        loop {
            tokio::select! {
                biased;
                replies = &mut reading => {
                    let mut replies = replies?.into_iter().map(|reply| reply.extract_error().map_err(RedisError::from));
                    let entries = reply::read_entries(replies.next().transpose()?.unwrap_or_default())?;
                    let epoch = replies.next().transpose()?.unwrap_or_default();
                    return Ok(self.is_of_this_epoch(&epoch).then_some(entries));
                }
                () = self.log.pubsub_buffer.arrival() => self.deliver_volatile().await,
            }
        }
    }

    fn is_of_this_epoch(&self, epoch: &Value) -> bool {
        text(epoch).and_then(generation::parse) == Some(self.offset().epoch)
    }

    async fn deliver(&mut self, entries: Vec<RawEntry>) {
        let (count, newest) = (entries.len(), entries.last().map(|entry| entry.position));
        self.size.read(&entries);
        let batch = self.decode(entries);
        if let Some(newest) = newest {
            self.log.note_newest(newest.ms);
            // Ids are of Redis' clock.
            let now_ms = self.log.clock_offset.redis_now_us() / 1000;
            self.log.metrics.tail_lag.set(now_ms.saturating_sub(newest.ms) as f64 / 1000.0);
        }
        if !batch.is_empty() {
            self.sink.deliver(batch).await;
        }
        if let (Some(newest), Some(state)) = (newest, &mut self.state) {
            state.read(count, newest);
        }
        let Offset { line, position, .. } = self.offset();
        self.sink.advanced_to(line, position);
    }

    /// What the entries mean; malformed ones become dead letters.
    fn decode(&mut self, entries: Vec<RawEntry>) -> Batch {
        let (mut batch, mut offset) = (Batch::default(), self.offset());
        let mut unsupported = 0;
        for raw in entries {
            let position = raw.position;
            match raw.decode(&self.log.limits) {
                Ok(StreamEntry::Event(draft, _)) if self.is_repeat(&draft, position) => {}
                Ok(StreamEntry::Event(draft, accepted_us)) => {
                    let accepted_us = accepted_us.unwrap_or(position.ms.saturating_mul(1000));
                    let accepted_us = self.log.clock_offset.local_us(accepted_us);
                    // A volatile event has the position of the entry before it, however it was published.
                    let position = if draft.volatile { offset.position } else { position };
                    let offset = Offset { position, ..offset };
                    batch.events.push(Arc::new(Event { offset, draft, accepted_us }));
                }
                Ok(StreamEntry::SessionCommand(command)) => {
                    let offset = Offset { position, ..offset };
                    let after = batch.events.len();
                    self.sink.foresee(&command);
                    batch.commands.push(PlacedCommand { after, offset, command: Arc::new(command) });
                }
                Ok(StreamEntry::Probe(id)) => batch.probes.push(id),
                Ok(StreamEntry::Unsupported) => unsupported += 1,
                Err(error) => self.dead_letters.push(self.log, raw, error),
            }
            offset.position = position;
        }
        if unsupported > 0 {
            self.log.metrics.dropped(DropReason::Unsupported, unsupported);
            tracing::warn!(entries = unsupported, "entries of a newer release are skipped; upgrade this node");
        }
        batch
    }

    /// Delivers the volatile events whose turn it is: those that may not overtake an entry wait until it is read, but no
    /// longer than [`MAX_VOLATILE_WAIT`]. After a failover it may never come.
    async fn deliver_volatile(&mut self) {
        let offset = self.offset();
        let received = Instant::now();
        let arrived = volatile::take(self.log).into_iter().map(|mut volatile| {
            if renewal::is_due(self.log, volatile.after) {
                // No entry will come there.
                volatile.after = Position::default();
            }
            (received, volatile)
        });
        self.early.extend(arrived);
        let mut events = Vec::new();
        while let Some((received, first)) = self.early.front()
            && (first.after <= offset.position
                || received.elapsed() > MAX_VOLATILE_WAIT
                || self.early.len() > MAX_EARLY)
        {
            let Some((_, Volatile { draft, accepted_us, .. })) = self.early.pop_front() else { break };
            let accepted_us = self.log.clock_offset.local_us(accepted_us);
            events.push(Arc::new(Event { offset, draft, accepted_us }));
        }
        if !events.is_empty() {
            self.sink.deliver(Batch { events, ..Batch::default() }).await;
        }
    }

    /// Where the tail is. Before the first snapshot nothing is read.
    fn offset(&self) -> Offset {
        let state = self.state.as_ref();
        let (epoch, position) = state.map_or_else(Default::default, |state| (state.epoch.0, state.position));
        Offset { epoch: Epoch(epoch), position, line: Line::CONTROL }
    }

    /// Whether another publisher added an entry with this idempotency id before; remembers it if not.
    fn is_repeat(&mut self, draft: &Draft, position: Position) -> bool {
        let Some(id) = draft.id.as_deref().filter(|_| draft.source == Source::Stream) else { return false };
        let repeat = self.foreign_ids.first(id, position.ms).is_some();
        if !repeat {
            self.foreign_ids.remember(id, (), position.ms);
        }
        repeat
    }
}
