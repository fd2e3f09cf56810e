//! The tail: a connection of its own that reads the stream as it grows, and checks every second whether it is still the
//! same log.

mod deliver;
mod order;
mod page;
mod retired;
mod trim;

use crate::log::redis::dead_letters::DeadLetters;
use crate::log::redis::generation;
use crate::log::redis::generation::{Discontinuity, Observed, TailState};
use crate::log::redis::lines::GivenUp;
use crate::log::redis::stream_size::StreamSize;
use crate::log::redis::tail::page::Page;
use crate::log::redis::volatile::Volatile;
use crate::log::redis::{RedisLog, careful_read, epoch, history, renewal, reply, volatile};
use crate::log::{Sink, Snapshot};
use crate::model::event::{Batch, Event};
use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::Line;
use crate::redis::command::{Arguments as _, CommandWriter};
use crate::redis::connection::RedisConnection;
use crate::redis::direct::Replies;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use crate::redis::reply::text;
use crate::redis::resp::{Token, value};
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

/// Reads until dropped. Reconnects by itself and goes on where it was.
pub(super) async fn run(log: &RedisLog, sink: &dyn Sink) {
    let mut tail = Tail {
        log,
        sink,
        state: None,
        page: reply::PageSize::default(),
        dead_letters: DeadLetters::new(),
        size: StreamSize::new(log.config.max_stream_bytes as u64),
        is_behind: true,
        last_trim: None,
        last_measure: None,
        last_read: None,
        early: VecDeque::new(),
        given_up: GivenUp::default(),
        replies: Replies::default(),
        follows_epoch: false,
        is_epoch_known: false,
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
    /// Lines that were waited for in vain.
    given_up: GivenUp,
    /// `None` before the first snapshot.
    state: Option<TailState>,
    page: reply::PageSize,
    dead_letters: DeadLetters,
    size: StreamSize,
    /// Whether the last read may have left entries.
    is_behind: bool,
    last_trim: Option<Instant>,
    last_measure: Option<Instant>,
    /// When entries were last delivered.
    last_read: Option<Instant>,
    replies: Replies,
    /// Whether Redis says when the epoch was changed. Otherwise it is read with every page.
    follows_epoch: bool,
    /// Whether it was read and not changed since.
    is_epoch_known: bool,
}

impl Tail<'_> {
    async fn connected(&mut self, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
        let max_reply = careful_read::max_reply(self.log);
        let mut connection = RedisConnection::open_direct(&self.log.connector, self.log.timeout, max_reply).await?;
        if self.page.is_careful() {
            connection.set_timeout(self.log.timeout.max(careful_read::TIMEOUT));
        }
        // This may be another Redis: the entry that was read last must be in it too.
        let last_read = self.state.as_ref().and_then(|state| state.last_read);
        self.check_stream(&mut connection, last_read).await?;
        self.follows_epoch = connection.track().await?;
        self.is_epoch_known = false;
        reconnect.reset();
        self.log.note_tail(true);
        let mut last_check = Instant::now();
        loop {
            self.read(&mut connection).await?;
            if last_check.elapsed() >= CHECK_INTERVAL {
                connection.check().await?;
                self.check_layout(&mut connection).await?;
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
        self.check_observed(connection, &now, unverified.len()).await
    }

    /// The same with what was observed, the oldest `unverified` acknowledged entries too.
    async fn check_observed(
        &mut self,
        connection: &mut RedisConnection,
        now: &Observed,
        unverified: usize,
    ) -> Result<(), RedisError> {
        self.compare(connection, now).await?;
        self.log.acknowledged.verified(unverified);
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
                    self.log.lines.losses.note_checked(self.log.line);
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
        let read = history::read(self.log, connection, epoch, head, stream, page, dead_letters).await?;
        let (mut snapshot, comes_after) = read;
        self.wait_to_begin(head, &comes_after).await;
        self.log.foreign_ids.restart(&mut snapshot.history);
        if discontinuity.is_some() {
            self.log.acknowledged.forget();
            self.log.forget_announced();
        }
        self.note_snapshot(&snapshot, discontinuity.filter(|_| !continues));
        self.state = Some(TailState::new(epoch, head, stream.as_ref()));
        self.is_epoch_known = false;
        self.size.reset();
        match discontinuity {
            _ if continues => self.sink.renewed(snapshot),
            None => self.sink.reset(snapshot),
            Some(_) => self.log.lines.losses.tell(snapshot, self.sink).await,
        }
        self.log.lines.note_delivered(self.log.line, head);
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
    }

    async fn read(&mut self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        if self.page.is_careful() && self.read_carefully(connection).await? {
            return Ok(());
        }
        let mut replies = std::mem::take(&mut self.replies);
        let read = self.read_page(connection, &mut replies).await;
        self.replies = replies;
        read
    }

    async fn read_page(&mut self, connection: &mut RedisConnection, replies: &mut Replies) -> Result<(), RedisError> {
        let count = self.page.count();
        // Behind, the stream is checked with each page: it is observed in the same exchange.
        let unverified = self.is_behind.then(|| self.log.acknowledged.unverified());
        self.wait_for_entries(connection, count, unverified.as_deref(), replies).await?;
        let unexpected = || RedisError::UnexpectedReply("XREAD");
        let mut entries = reply::Entries::read(replies.get(0).ok_or_else(unexpected)?)?;
        let epoch = self.epoch_after(connection, replies).await?;
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
        let (mut page, mut end) = (Page::after(self.offset()), Ok(()));
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => self.take(&entry, &mut page),
                // Those before it are delivered: they were taken note of.
                Err(error) => end = Err(error),
            }
        }
        self.deliver_page(connection, page).await?;
        end
    }

    /// Reads what is in the way of larger reads. `false` where nothing is.
    async fn read_carefully(&mut self, connection: &mut RedisConnection) -> Result<bool, RedisError> {
        let (log, count, position) = (self.log, self.page.count(), self.offset().position);
        let entries = careful_read::after(log, connection, &log.keys.events, position, count).await?;
        let epoch = connection.call(redis::cmd("GET").arg(&log.keys.epoch)).await?;
        self.page.proceed();
        connection.set_timeout(log.timeout);
        let Some(last) = entries.last() else { return Ok(false) };
        if last.cut.is_some() {
            // Redis handles the last entry whenever the stream is observed, so a small one is added.
            log.refused_appends.suspect();
        }
        if self.may_deliver(connection, text(&epoch), entries.len(), count, None).await? {
            let page = self.take_all(&entries);
            self.deliver_page(connection, page).await?;
        }
        Ok(true)
    }

    /// The epoch after these replies. Redis says that it was changed before it sends what it read from then on, so where it
    /// has not, it is the one that was read last.
    async fn epoch_after(
        &mut self,
        connection: &mut RedisConnection,
        replies: &Replies,
    ) -> Result<Option<String>, RedisError> {
        let is_changed = connection.take_changed();
        let known = format!("{:x}", self.offset().epoch.0);
        if std::mem::take(&mut self.is_epoch_known) {
            if is_changed {
                let epoch = connection.call(redis::cmd("GET").arg(&self.log.keys.epoch)).await?;
                return Ok(text(&epoch).map(ToOwned::to_owned));
            }
            self.is_epoch_known = true;
            return Ok(Some(known));
        }
        let mut sent = replies.last_two().into_iter().map(|reply| reply.and_then(|mut tokens| tokens.next()));
        // Without the right to it, nobody says when what was read is changed.
        self.follows_epoch &= sent.next().flatten() == Some(Token::Simple(b"OK"));
        let epoch = match sent.next().flatten() {
            Some(Token::Bulk(epoch)) => std::str::from_utf8(epoch).ok(),
            Some(Token::Error(error)) => return Err(RedisError::of_reply(error)),
            _ => None,
        };
        self.is_epoch_known = self.follows_epoch && !is_changed && epoch == Some(&known);
        Ok(epoch.map(ToOwned::to_owned))
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
        let (log, position) = (self.log, self.offset().position.to_string());
        let mut commands = Vec::with_capacity(256);
        let (count, block) = (count.to_string(), BLOCK.as_millis().to_string());
        write(&mut commands, &["XREAD", "COUNT", &count, "BLOCK", &block, "STREAMS", &log.keys.events, &position]);
        if let Some(expected) = expected {
            commands.extend(epoch::observation(&log.keys.events, expected).get_packed_command());
        }
        let mut sent = 1 + usize::from(expected.is_some());
        if !self.is_epoch_known {
            if self.follows_epoch {
                write(&mut commands, &["CLIENT", "CACHING", "YES"]);
                sent += 1;
            }
            write(&mut commands, &["GET", &log.keys.epoch]);
            sent += 1;
        }
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
        if epoch.and_then(generation::parse) != Some(self.offset().epoch) {
            self.check_stream(connection, None).await?;
            return Ok(false);
        }
        self.log.lines.losses.note_checked(self.log.line);
        self.is_behind = entries >= count;
        let is_behind = self.is_behind || self.last_read.is_some_and(|last| last.elapsed() > MAX_READ_GAP);
        if is_behind && entries > 0 {
            // Entries before these may have been trimmed. That shows only while these count as unread.
            let before = self.offset();
            match observed {
                Some((now, unverified)) => self.check_observed(connection, &now, unverified).await?,
                None => self.check_stream(connection, None).await?,
            }
            return Ok(self.offset() == before);
        }
        Ok(true)
    }

    /// Delivers what was read from the stream.
    async fn deliver_page(&mut self, connection: &mut RedisConnection, page: Page) -> Result<(), RedisError> {
        let newest = page.newest;
        self.last_read = Some(Instant::now());
        self.deliver(page).await;
        self.deliver_volatile().await;
        self.dead_letters.write(self.log, connection).await?;
        self.trim_counted(connection).await?;
        match newest.is_some_and(|newest| renewal::is_due(self.log, newest)) {
            true => self.check_stream(connection, None).await,
            false => Ok(()),
        }
    }

    /// Delivers the volatile events whose turn it is: those that may not overtake an entry wait until it is read, but no
    /// longer than [`MAX_VOLATILE_WAIT`]. After a failover it may never come.
    async fn deliver_volatile(&mut self) {
        let offset = self.offset();
        // What volatile events must not overtake is on the control line.
        let delivered = match self.log.line {
            Line::CONTROL => offset.position,
            _ => self.log.lines.delivered(Line::CONTROL),
        };
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
            && (first.after <= delivered || received.elapsed() > MAX_VOLATILE_WAIT || self.early.len() > MAX_EARLY)
        {
            let Some((_, Volatile { draft, accepted_us, .. })) = self.early.pop_front() else { break };
            let accepted_us = self.log.clock_offset.local_us(accepted_us);
            events.push(Arc::new(Event { offset, draft, accepted_us, after: None }));
        }
        if !events.is_empty() {
            self.sink.deliver(Batch { events, ..Batch::default() }).await;
        }
    }

    /// Where the tail is. Before the first snapshot nothing is read.
    fn offset(&self) -> Offset {
        let state = self.state.as_ref();
        let (epoch, position) = state.map_or_else(Default::default, |state| (state.epoch.0, state.position));
        Offset { epoch: Epoch(epoch), position, line: self.log.line }
    }
}

fn write(commands: &mut Vec<u8>, words: &[&str]) {
    let mut command = CommandWriter::new(commands);
    words.iter().for_each(|word| command.text(word));
    command.finish();
}
