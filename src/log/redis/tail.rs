//! The tail: one dedicated connection that reads the stream as it grows, and the log's life every second.

use crate::log::recent_ids::RecentIds;
use crate::log::redis::entry::{Entry, RawEntry};
use crate::log::redis::generation;
use crate::log::redis::generation::{Discontinuity, Known, Observed};
use crate::log::redis::{RedisLog, dead_letters, entry, epoch, history, reply, volatile};
use crate::log::{Sink, Snapshot};
use crate::model::clock::unix_us;
use crate::model::draft::{Draft, Source};
use crate::model::event::{Batch, Event, PlacedCommand};
use crate::model::offset::{Epoch, Offset, Position};
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long Redis may sit on a read; a read that comes back empty is progress too.
const BLOCK: Duration = Duration::from_secs(1);
/// How often the log's life is looked at: a stream that began anew would else be silent for ever.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After this long without a read, this process was stopped or cut off: entries may have come and gone.
const LATE: Duration = Duration::from_secs(3);
/// How often old entries are trimmed where only others add some.
const TRIM_EVERY: Duration = Duration::from_secs(10);
/// Bytes of remembered ids of entries that others added.
const ID_BYTES: usize = 16 << 20;

/// Reads until dropped; reconnects by itself and goes on where it was.
pub(super) async fn run(log: &RedisLog, sink: &dyn Sink) {
    let page = reply::PageSize::default();
    let mut tail =
        Tail { log, sink, known: None, page, foreign_ids: RecentIds::new(ID_BYTES), trimmed: None, read_at: None };
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = tail.connected(&mut reconnect).await;
        log.note_tail(false);
        reconnect.wait("the tail", &log.connector, &error).await;
    }
}

struct Tail<'a> {
    log: &'a RedisLog,
    sink: &'a dyn Sink,
    /// `None` before the first snapshot.
    known: Option<Known>,
    page: reply::PageSize,
    /// Ids of entries that others added; a repeat is skipped, as the append of a repeat is by us.
    foreign_ids: RecentIds<()>,
    trimmed: Option<Instant>,
    /// When the last read was handed on.
    read_at: Option<Instant>,
}

impl Tail<'_> {
    async fn connected(&mut self, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
        let mut connection = RedisConnection::open(&self.log.connector, self.log.timeout).await?;
        // A new connection may lead to another Redis: what was read last must be there too.
        let last_read = self.known.as_ref().and_then(|known| known.last_read);
        self.look(&mut connection, last_read).await?;
        reconnect.reset();
        self.log.note_tail(true);
        let mut looked = Instant::now();
        loop {
            self.read(&mut connection).await?;
            if looked.elapsed() >= LOOK_EVERY {
                connection.check().await?;
                self.look(&mut connection, None).await?;
                self.trim(&mut connection).await?;
                looked = Instant::now();
            }
        }
    }

    /// Looks whether the log is still the one it was, with what was read last if asked, and with what publishers were
    /// told on a connection that is gone. Begins if not.
    async fn look(&mut self, connection: &mut RedisConnection, last_read: Option<Position>) -> Result<(), RedisError> {
        let unproven = self.log.acknowledged.unproven();
        let mut asked: Vec<Position> = last_read.into_iter().chain(unproven.iter().copied()).collect();
        asked.sort_unstable();
        let now = epoch::observe(connection, &self.log.keys, &asked).await?;
        let looked = self.compare(connection, now).await;
        if looked.is_ok() {
            self.log.acknowledged.settle(unproven.len());
        }
        looked
    }

    async fn compare(&mut self, connection: &mut RedisConnection, now: Observed) -> Result<(), RedisError> {
        let broken = match &mut self.known {
            None => None,
            Some(known) => match known.broken_by(&now) {
                None => {
                    if let Some(life) = &now.life {
                        known.note(life);
                    }
                    return Ok(());
                }
                broken => broken,
            },
        };
        self.reset(connection, &now, broken).await
    }

    async fn reset(
        &mut self,
        connection: &mut RedisConnection,
        now: &Observed,
        broken: Option<Discontinuity>,
    ) -> Result<(), RedisError> {
        let keys = &self.log.keys;
        let epoch = match generation::parse(&now.epoch_text) {
            Some(epoch) if broken != Some(Discontinuity::EntriesLost) => epoch,
            _ => epoch::agree(connection, keys, &now.epoch_text).await?,
        };
        let life = epoch::observe(connection, keys, &[]).await?.life;
        let head = generation::head(self.known.as_ref(), life.as_ref());
        let snapshot = history::read(self.log, connection, epoch, head, life, &mut self.page).await?;
        if broken.is_some() {
            self.log.acknowledged.forget();
        }
        self.note_snapshot(&snapshot, broken);
        self.known = Some(Known::new(epoch, head, life.as_ref()));
        self.sink.reset(snapshot);
        Ok(())
    }

    fn note_snapshot(&mut self, snapshot: &Snapshot, broken: Option<Discontinuity>) {
        let Snapshot { epoch, floor, head, history, .. } = snapshot;
        match broken {
            None => tracing::info!("the log is read from {head}, with {} events of history", history.len()),
            Some(why) => tracing::warn!(?why, "continuity is lost; epoch {:x} goes on from {head}", epoch.0),
        }
        tracing::debug!(%floor, %head, "snapshot");
        self.log.note_snapshot(*epoch, *head);
        self.foreign_ids = RecentIds::new(ID_BYTES);
        for event in history {
            self.is_repeat(&event.draft, event.offset.position);
        }
    }

    /// Appends trim, but where only others add entries nobody else would.
    async fn trim(&mut self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        if self.trimmed.is_some_and(|last| last.elapsed() < TRIM_EVERY) {
            return Ok(());
        }
        self.trimmed = Some(Instant::now());
        let oldest_ms = self.log.trim_before_ms(unix_us() / 1000);
        let mut command = redis::cmd("XTRIM");
        command.arg(&self.log.keys.events).arg("MINID").arg("~").arg(oldest_ms);
        match connection.call(&command).await {
            // Where trimming is refused, reading still goes on.
            Ok(_) | Err(RedisError::Reply(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn read(&mut self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        let mut command = redis::cmd("XREAD");
        let asked_for = self.page.count();
        command.arg("COUNT").arg(asked_for).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        command.arg("STREAMS").arg(&self.log.keys.events).arg(self.offset().position.to_string());
        let value = {
            let mut reading = pin!(connection.call_blocking(&command, BLOCK));
            loop {
                tokio::select! {
                    biased;
                    value = &mut reading => break value,
                    () = self.log.heard.arrival() => self.hand_on_volatile().await,
                }
            }
        };
        let value = value.inspect_err(|error| self.page.note_error(error))?;
        let entries = reply::read_entries(value)?;
        let behind = entries.len() >= asked_for || self.read_at.is_some_and(|last| last.elapsed() > LATE);
        self.page.learn(&entries);
        if behind && !entries.is_empty() {
            // What came before these may have been trimmed meanwhile, and that shows only while they count as unread.
            let before = self.offset();
            self.look(connection, None).await?;
            if self.offset() != before {
                return Ok(());
            }
        }
        self.read_at = Some(Instant::now());
        let malformed = self.hand_on(entries).await;
        self.hand_on_volatile().await;
        dead_letters::bury(self.log, connection, malformed).await
    }

    /// Delivers what was read; answers what could not be.
    async fn hand_on(&mut self, entries: Vec<RawEntry>) -> Vec<dead_letters::Malformed> {
        let (mut batch, mut malformed) = (Batch::default(), Vec::new());
        let mut offset = self.offset();
        let (count, newest) = (entries.len(), entries.last().map(|entry| entry.position));
        for raw in entries {
            let position = raw.position;
            match entry::decode(&raw.fields, &self.log.limits) {
                Ok(Entry::Event(draft, _)) if self.is_repeat(&draft, position) => {}
                Ok(Entry::Event(draft, accepted_us)) => {
                    let accepted_us = accepted_us.unwrap_or(position.ms.saturating_mul(1000));
                    // A volatile event carries the place of the entry before it, wherever it came from.
                    let place = if draft.volatile { offset.position } else { position };
                    let offset = Offset { position: place, ..offset };
                    batch.events.push(Arc::new(Event { offset, draft, accepted_us }));
                }
                Ok(Entry::SessionCommand(order)) => {
                    let offset = Offset { position, ..offset };
                    batch.commands.push(PlacedCommand { after: batch.events.len(), offset, command: Arc::new(order) });
                }
                Ok(Entry::Probe(id)) => batch.probes.push(id),
                Err(error) => malformed.push(dead_letters::Malformed::new(raw, error)),
            }
            offset.position = position;
        }
        if let Some(newest) = newest {
            self.log.note_newest(newest.ms);
            self.log.metrics.tail_lag.set((unix_us() / 1000).saturating_sub(newest.ms) as f64 / 1000.0);
        }
        if !batch.is_empty() {
            self.sink.deliver(batch).await;
        }
        if let (Some(newest), Some(known)) = (newest, &mut self.known) {
            known.read(count, newest);
        }
        self.sink.advanced_to(self.offset().position);
        malformed
    }

    async fn hand_on_volatile(&self) {
        let offset = self.offset();
        let heard = volatile::take(self.log).into_iter();
        let events: Vec<_> = heard.map(|(draft, accepted_us)| Arc::new(Event { offset, draft, accepted_us })).collect();
        if !events.is_empty() {
            self.sink.deliver(Batch { events, ..Batch::default() }).await;
        }
    }

    /// Where the tail is; before the first snapshot nothing is read.
    fn offset(&self) -> Offset {
        let known = self.known.as_ref();
        let (epoch, position) = known.map_or_else(Default::default, |known| (known.epoch.0, known.position));
        Offset { epoch: Epoch(epoch), position }
    }

    /// Whether somebody else added an entry with this idempotency id before; remembers it if not.
    fn is_repeat(&mut self, draft: &Draft, position: Position) -> bool {
        let Some(id) = draft.id.as_deref().filter(|_| draft.source == Source::Stream) else { return false };
        let repeat = self.foreign_ids.first(id, position.ms).is_some();
        if !repeat {
            self.foreign_ids.remember(id, (), position.ms);
        }
        repeat
    }
}
