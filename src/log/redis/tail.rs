//! The tail: a connection of its own that reads the stream as it grows, and checks every second whether it is still the
//! same log.

mod check;
mod delivery;
mod early;
mod epoch_watch;
mod order;
mod page;
mod retired;
mod trim;

use crate::log::Sink;
use crate::log::redis::generation::{self, Observed};
use crate::log::redis::{RedisLog, careful_read, epoch, renewal, reply};
use crate::model::offset::Position;
use crate::model::partition::Line;
use crate::redis::command::CommandWriter;
use crate::redis::connection::RedisConnection;
use crate::redis::direct::Replies;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use crate::redis::reply::text;
use crate::redis::resp::value;
use check::StreamCheck;
use delivery::Delivery;
use early::EarlyEvents;
use epoch_watch::EpochWatch;
use page::Page;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

/// How long Redis may wait for new entries. A read that returns none is progress too.
const BLOCK: Duration = Duration::from_secs(1);
/// How often the stream is checked: one that started over would otherwise be silent for ever.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// After this long without a read, this process was stopped or cut off: entries may have been added and trimmed.
const MAX_READ_GAP: Duration = Duration::from_secs(3);

/// Reads until dropped. Reconnects by itself and goes on where it was.
pub(super) async fn run(log: &RedisLog, sink: &dyn Sink) {
    let mut tail = Tail {
        log,
        delivery: Delivery::new(log, sink),
        early: EarlyEvents::default(),
        epoch: EpochWatch::default(),
        is_behind: true,
        last_read: None,
        replies: Replies::default(),
    };
    let mut reconnect = Reconnect::among(log.lines.repeats.clone());
    loop {
        let Err(error) = tail.connected(&mut reconnect).await;
        tail.delivery.page_size().note_error(&error);
        if tail.delivery.page_size().is_stuck() {
            log.refused_appends.suspect();
        }
        if let RedisError::ReplyTooLarge(_) = error {
            tracing::warn!(%error, "entries of the stream are read one by one");
            continue;
        }
        log.note_failure(&log.tail, &error);
        log.tail_broke.notify_one();
        reconnect.wait("the tail", &log.connector, &error).await;
    }
}

struct Tail<'a> {
    log: &'a RedisLog,
    delivery: Delivery<'a>,
    early: EarlyEvents,
    epoch: EpochWatch,
    /// Whether the last read may have left entries.
    is_behind: bool,
    /// When entries were last delivered.
    last_read: Option<Instant>,
    replies: Replies,
}

impl<'a> Tail<'a> {
    async fn connected(&mut self, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
        let max_reply = careful_read::max_reply(self.log);
        let mut connection = RedisConnection::open_direct(&self.log.connector, self.log.timeout, max_reply).await?;
        if self.delivery.page_size().is_careful() {
            connection.set_timeout(self.log.timeout.max(careful_read::TIMEOUT));
        }
        // This may be another Redis: the entry that was read last must be in it too.
        let last_read = self.delivery.state().and_then(|state| state.last_read);
        self.check(&mut connection).observe(last_read).await?;
        self.epoch = EpochWatch::new(connection.track().await?);
        reconnect.reset();
        self.log.note_tail(true);
        let mut last_check = Instant::now();
        loop {
            self.read(&mut connection).await?;
            if last_check.elapsed() >= CHECK_INTERVAL {
                connection.check().await?;
                check::layout(self.log, &mut connection).await?;
                self.check(&mut connection).observe(None).await?;
                self.delivery.trimmer().by_age(&mut connection).await?;
                last_check = Instant::now();
            }
        }
    }

    /// Checks whether the stream is still the log that was read. If not, the tail starts over.
    fn check<'c>(&'c mut self, connection: &'c mut RedisConnection) -> StreamCheck<'c, 'a> {
        let (delivery, epoch) = (&mut self.delivery, &mut self.epoch);
        StreamCheck { log: self.log, delivery, epoch, connection, is_behind: self.is_behind }
    }

    async fn read(&mut self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        if self.delivery.page_size().is_careful() && self.read_carefully(connection).await? {
            return Ok(());
        }
        let mut replies = std::mem::take(&mut self.replies);
        let read = self.read_page(connection, &mut replies).await;
        self.replies = replies;
        read
    }

    async fn read_page(&mut self, connection: &mut RedisConnection, replies: &mut Replies) -> Result<(), RedisError> {
        let count = self.delivery.page_size().count();
        // Behind, the stream is checked with each page: it is observed in the same exchange.
        let unverified = self.is_behind.then(|| self.log.acknowledged.unverified());
        self.wait_for_entries(connection, count, unverified.as_deref(), replies).await?;
        let unexpected = || RedisError::UnexpectedReply("XREAD");
        let mut entries = reply::Entries::read(replies.get(0).ok_or_else(unexpected)?)?;
        let epoch = self.epoch.after(replies, self.delivery.offset().epoch, &self.log.keys, connection).await?;
        let epoch = epoch.as_deref();
        let observed = match (unverified, epoch) {
            (Some(unverified), Some(epoch)) => {
                let reply = replies.get(1).and_then(|mut tokens| value(&mut tokens)).ok_or_else(unexpected)?;
                let stream = epoch::read_stream_info(&reply.extract_error()?)?;
                Some((Observed { epoch_text: epoch.to_owned(), stream }, unverified.len()))
            }
            _ => None,
        };
        if !self.may_deliver(connection, epoch, entries.len(), count, observed).await? {
            return Ok(());
        }
        let (mut page, mut end) = (Page::after(self.delivery.offset()), Ok(()));
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => self.delivery.take(&entry, &mut page),
                // Those before it are delivered: they were taken note of.
                Err(error) => end = Err(error),
            }
        }
        self.deliver_page(connection, page).await?;
        end
    }

    /// Reads what is in the way of larger reads. `false` where nothing is.
    async fn read_carefully(&mut self, connection: &mut RedisConnection) -> Result<bool, RedisError> {
        let (log, count, position) = (self.log, self.delivery.page_size().count(), self.delivery.offset().position);
        let entries = careful_read::after(log, connection, &log.keys.events, position, count).await?;
        let epoch = connection.call(redis::cmd("GET").arg(&log.keys.epoch)).await?;
        self.delivery.page_size().proceed();
        connection.set_timeout(log.timeout);
        let Some(last) = entries.last() else { return Ok(false) };
        if last.cut.is_some() {
            // Redis handles the last entry whenever the stream is observed, so a small one is added.
            log.refused_appends.suspect();
        }
        if self.may_deliver(connection, text(&epoch), entries.len(), count, None).await? {
            let page = self.delivery.take_all(&entries);
            self.deliver_page(connection, page).await?;
        }
        Ok(true)
    }

    /// Waits for entries, and delivers volatile events meanwhile. After the entries the stream is observed, if `expected`
    /// entries are given, and last the epoch is read unless it is known.
    async fn wait_for_entries(
        &mut self,
        connection: &mut RedisConnection,
        count: usize,
        expected: Option<&[Position]>,
        replies: &mut Replies,
    ) -> Result<(), RedisError> {
        let (log, position) = (self.log, self.delivery.offset().position.to_string());
        let mut commands = Vec::with_capacity(256);
        let (count, block) = (count.to_string(), BLOCK.as_millis().to_string());
        let read = ["XREAD", "COUNT", &count, "BLOCK", &block, "STREAMS", &log.keys.events, &position];
        CommandWriter::write(&mut commands, &read);
        if let Some(expected) = expected {
            commands.extend(epoch::observation(&log.keys.events, expected).get_packed_command());
        }
        let sent = 1 + usize::from(expected.is_some()) + self.epoch.ask(&log.keys, &mut commands);
        let mut reading = pin!(connection.exchange(&commands, sent, BLOCK, replies));
        loop {
            tokio::select! {
                biased;
                read = &mut reading => return read,
                () = log.pubsub_buffer.arrival() => self.deliver_volatile().await,
                () = log.lines.advance_of(Line::CONTROL), if !self.early.is_empty() => self.deliver_volatile().await,
            }
        }
    }

    /// Whether this many entries can be delivered, of which `count` were asked for. They cannot where they may be of
    /// another epoch, or entries before them were trimmed; the tail then starts over. `observed`: the stream as it was
    /// right after they were read, and how many acknowledged entries were looked for in it.
    async fn may_deliver(
        &mut self,
        connection: &mut RedisConnection,
        epoch: Option<&str>,
        entries: usize,
        count: usize,
        observed: Option<(Observed, usize)>,
    ) -> Result<bool, RedisError> {
        if epoch.and_then(generation::parse) != Some(self.delivery.offset().epoch) {
            self.check(connection).observe(None).await?;
            return Ok(false);
        }
        self.log.lines.losses.note_checked(self.log.line);
        self.is_behind = entries >= count;
        let is_behind = self.is_behind || self.last_read.is_some_and(|last| last.elapsed() > MAX_READ_GAP);
        if is_behind && entries > 0 {
            // Entries before these may have been trimmed. That shows only while these count as unread.
            let before = self.delivery.offset();
            match observed {
                Some((now, unverified)) => self.check(connection).observed(&now, unverified).await?,
                None => self.check(connection).observe(None).await?,
            }
            return Ok(self.delivery.offset() == before);
        }
        Ok(true)
    }

    /// Delivers what was read from the stream.
    async fn deliver_page(&mut self, connection: &mut RedisConnection, page: Page) -> Result<(), RedisError> {
        let newest = page.newest;
        self.last_read = Some(Instant::now());
        self.delivery.deliver(page).await;
        self.deliver_volatile().await;
        self.delivery.write_dead_letters(connection).await?;
        self.delivery.trimmer().counted(connection).await?;
        match newest.is_some_and(|newest| renewal::is_due(self.log, newest)) {
            true => self.check(connection).observe(None).await,
            false => Ok(()),
        }
    }

    async fn deliver_volatile(&mut self) {
        self.delivery.deliver_volatile(&mut self.early).await;
    }
}
