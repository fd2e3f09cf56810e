//! Reading a part of the stream again, newest first: on a connection of its own, page by page, and only what is looked for is
//! decoded.

use crate::log::backfill::{Past, PastFinder, PastRange, PastUnavailable};
use crate::log::redis::entry::{RawEntry, StreamEntry};
use crate::log::redis::generation;
use crate::log::redis::{RedisLog, careful_read, epoch, reply};
use crate::model::event::Event;
use crate::model::offset::Offset;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use redis::{Pipeline, Value};
use std::time::Duration;
use tokio::time::Instant;

/// Reads a part of the log, until it has all of it, enough, or `within` is over.
pub(super) async fn read(log: &RedisLog, range: &PastRange, within: Duration) -> Result<Past, PastUnavailable> {
    let mut reader = Reader {
        log,
        range,
        finder: PastFinder::new(range),
        page: reply::PageSize::default(),
        next: range.up_to.to_string(),
    };
    let until = Instant::now() + within;
    let read = tokio::time::timeout_at(until, reader.connected()).await;
    let has_some = reader.finder.has_some();
    match read {
        Ok(Err(error)) if !has_some => Err(PastUnavailable(error.to_string())),
        Err(_) if !has_some => Err(PastUnavailable(format!("no answer within {within:?}"))),
        // What was read until then is whole.
        Ok(Err(_)) => Ok(without_repeats(log, reader.finder.finish_early())),
        _ => Ok(without_repeats(log, reader.finder.finish())),
    }
}

fn without_repeats(log: &RedisLog, mut past: Past) -> Past {
    log.foreign_ids.remove_repeats(&mut past.events);
    past
}

struct Reader<'a> {
    log: &'a RedisLog,
    range: &'a PastRange,
    finder: PastFinder<'a>,
    page: reply::PageSize,
    /// From where the next page goes back.
    next: String,
}

impl Reader<'_> {
    async fn connected(&mut self) -> Result<(), RedisError> {
        loop {
            match self.pages().await {
                Err(error @ RedisError::ReplyTooLarge(_)) if !self.page.is_stuck() => self.page.note_error(&error),
                result => return result,
            }
        }
    }

    async fn pages(&mut self) -> Result<(), RedisError> {
        let max_reply = careful_read::max_reply(self.log);
        let mut connection = RedisConnection::open_direct(&self.log.connector, self.log.timeout, max_reply).await?;
        loop {
            let entries = self.read_page(&mut connection).await?;
            self.page.proceed();
            let Some(last) = entries.last() else { return self.at_the_beginning(&mut connection).await };
            let (oldest, is_over) = (last.position, last.position <= self.range.after);
            self.next = format!("({oldest}");
            self.page.learn(entries.len(), entries.iter().map(RawEntry::bytes).sum());
            self.finder.count(entries.len());
            if !self.take(entries) {
                return Ok(());
            }
            self.finder.reached(if is_over { self.range.after } else { oldest.predecessor() });
            if is_over {
                return Ok(());
            }
            // The tail runs on the same thread.
            tokio::task::yield_now().await;
        }
    }

    async fn read_page(&mut self, connection: &mut RedisConnection) -> Result<Vec<RawEntry>, RedisError> {
        if self.page.is_careful() {
            connection.set_timeout(self.log.timeout.max(careful_read::TIMEOUT));
            let entries = careful_read::before(self.log, connection, &self.next, self.page.count()).await?;
            let epoch = connection.call(redis::cmd("GET").arg(&self.log.keys.epoch)).await?;
            connection.set_timeout(self.log.timeout);
            return self.of_this_epoch(&epoch).map(|()| entries);
        }
        let mut commands = Pipeline::with_capacity(2);
        commands.cmd("XREVRANGE").arg(&self.log.keys.events).arg(&self.next).arg("-");
        commands.arg("COUNT").arg(self.page.count());
        commands.cmd("GET").arg(&self.log.keys.epoch);
        let mut replies = connection.pipeline(&commands).await?.into_iter();
        let entries = reply::entries(replies.next().unwrap_or_default())?;
        self.of_this_epoch(&replies.next().unwrap_or_default())?;
        Ok(entries)
    }

    /// The epoch is read after the entries, so that they are of it too.
    fn of_this_epoch(&self, epoch: &Value) -> Result<(), RedisError> {
        match text(epoch).and_then(generation::parse) == Some(self.range.epoch) {
            true => Ok(()),
            false => Err(RedisError::NotServing("the epoch changed".into())),
        }
    }

    /// The stream has no older entries: those that it ever had may be trimmed.
    async fn at_the_beginning(&mut self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        let now = epoch::observe(connection, &self.log.keys, &[]).await?;
        if generation::parse(&now.epoch_text) != Some(self.range.epoch) {
            return Err(RedisError::NotServing("the epoch changed".into()));
        }
        let floor = now.stream.map_or(self.range.up_to, |stream| generation::floor(None, &stream, self.range.up_to));
        self.finder.reached(floor.max(self.range.after));
        Ok(())
    }

    /// Takes a page; `false` where that is too much.
    fn take(&mut self, entries: Vec<RawEntry>) -> bool {
        for raw in entries {
            let at = raw.position;
            if at <= self.range.after {
                return true;
            }
            let (fields, finder) = (raw.borrowed(), &self.finder);
            let decoded = raw.entry(&fields).decode_wanted(&self.log.limits, |_, namespace, room| {
                // Only what is looked for is decoded.
                finder.wants(namespace, room, at)
            });
            let is_taken = match decoded.and_then(|decoded| self.log.check_line(decoded)) {
                Ok(StreamEntry::Event(draft, accepted_us)) => {
                    let accepted_us = accepted_us.unwrap_or(at.ms.saturating_mul(1000));
                    let accepted_us = self.log.clock_offset.local_us(accepted_us);
                    let offset = Offset { epoch: self.range.epoch, position: at, line: self.range.line };
                    let after = self.log.after_of(&raw.entry(&fields)).boxed();
                    self.finder.take(Event { offset, draft, accepted_us, after })
                }
                Ok(StreamEntry::SessionCommand(command)) => self.finder.take_command(at, command),
                // The tail has reported what is malformed or came too late.
                Ok(_) | Err(_) => true,
            };
            if !is_taken {
                self.finder.reached(at);
                return false;
            }
        }
        true
    }
}
