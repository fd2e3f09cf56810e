//! The part of the recovery window that exists when a node starts. It is read newest first, so that no more is read than
//! kept.

use crate::log::Snapshot;
use crate::log::redis::dead_letters::DeadLetters;
use crate::log::redis::entry::{RawEntry, StreamEntry};
use crate::log::redis::generation;
use crate::log::redis::generation::StreamInfo;
use crate::log::redis::{RedisLog, careful_read, epoch, reply};
use crate::model::after::After;
use crate::model::clock::unix_us;
use crate::model::command::SessionCommand;
use crate::model::draft::DraftError;
use crate::model::event::Event;
use crate::model::offset::{Epoch, Offset, Position};
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use std::sync::Arc;

/// Malformed entries of the history that are reported.
const MAX_MALFORMED: usize = 1000;

/// Reads the history up to `head`, which is not after the stream's last id, and what comes before it on other lines.
pub(super) async fn read(
    log: &RedisLog,
    connection: &mut RedisConnection,
    epoch: Epoch,
    head: Position,
    stream: Option<StreamInfo>,
    page: &mut reply::PageSize,
    dead_letters: &mut DeadLetters,
) -> Result<(Snapshot, After), RedisError> {
    let (mut history, mut commands, mut comes_after) = Default::default();
    let mut floor = head;
    if let Some(stream) = stream.filter(|_| !log.recovery.window.is_zero()) {
        let mut collected = Collected::new(log, epoch, head);
        let left_out = collect(log, connection, head, &mut collected, page).await?;
        // Observed again: what was trimmed while the history was read is not part of it.
        let stream = epoch::observe(connection, &log.keys, &[]).await?.stream.unwrap_or(stream);
        floor = generation::floor(left_out, &stream, head);
        for (raw, error) in std::mem::take(&mut collected.malformed).into_iter().rev() {
            dead_letters.push(log, &raw.entry(&raw.borrowed()), error);
        }
        dead_letters.write(log, connection).await?;
        history = collected.events;
        history.reverse();
        commands = collected.commands;
        commands.reverse();
        comes_after = collected.comes_after;
    }
    Ok((Snapshot { line: log.line, epoch, floor, head, history, commands }, comes_after))
}

/// Pages backwards from `head`. Returns the newest entry that was not kept; `None` where the stream had no more.
async fn collect(
    log: &RedisLog,
    connection: &mut RedisConnection,
    head: Position,
    collected: &mut Collected<'_>,
    page: &mut reply::PageSize,
) -> Result<Option<Position>, RedisError> {
    let mut from = head.to_string();
    loop {
        let read = match page.is_careful() {
            true => careful_read::before(log, connection, &from, page.count()).await,
            false => {
                let mut command = redis::cmd("XREVRANGE");
                command.arg(&log.keys.events).arg(&from).arg("-").arg("COUNT").arg(page.count());
                connection.call(&command).await.and_then(reply::entries)
            }
        };
        let entries = read?;
        let Some(last) = entries.last() else { return Ok(None) };
        from = format!("({}", last.position);
        page.learn(entries.len(), entries.iter().map(RawEntry::bytes).sum());
        for raw in entries {
            let position = raw.position;
            if !collected.take(raw) {
                return Ok(Some(position));
            }
        }
    }
}

struct Collected<'a> {
    log: &'a RedisLog,
    epoch: Epoch,
    oldest_ms: u64,
    bytes: usize,
    /// Newest first.
    events: Vec<Arc<Event>>,
    /// Newest first.
    commands: Vec<(Position, Arc<SessionCommand>)>,
    /// Newest first.
    malformed: Vec<(RawEntry, DraftError)>,
    comes_after: After,
}

impl<'a> Collected<'a> {
    fn new(log: &'a RedisLog, epoch: Epoch, head: Position) -> Self {
        // Trimming goes by the newest id, so a quiet stream has entries that are older than the window.
        let newest_ms = head.ms.min(unix_us() / 1000);
        let oldest_ms = newest_ms.saturating_sub(log.recovery.kept().as_millis() as u64);
        let (events, commands, malformed, comes_after) = Default::default();
        Self { log, epoch, oldest_ms, bytes: 0, events, commands, malformed, comes_after }
    }

    /// Takes an entry; `false` where it is too old, or more than the window keeps.
    fn take(&mut self, raw: RawEntry) -> bool {
        if raw.position.ms < self.oldest_ms {
            return false;
        }
        let fields = raw.borrowed();
        let after = self.log.after_of(&raw.entry(&fields));
        let entry = raw.entry(&fields).decode(&self.log.limits);
        match entry.and_then(|entry| self.log.check_line(entry)) {
            Ok(StreamEntry::Event(draft, _)) if draft.volatile => {}
            Ok(StreamEntry::Event(draft, accepted_us)) => {
                let offset = Offset { epoch: self.epoch, position: raw.position, line: self.log.line };
                let accepted_us = accepted_us.unwrap_or(raw.position.ms.saturating_mul(1000));
                let accepted_us = self.log.clock_offset.local_us(accepted_us);
                self.comes_after.join(&after);
                let event = Event { offset, draft, accepted_us, after: after.boxed() };
                self.bytes += event.size();
                if self.bytes > self.log.recovery.window_bytes {
                    return false;
                }
                self.events.push(Arc::new(event));
            }
            Ok(StreamEntry::SessionCommand(command)) => {
                self.comes_after.join(&after);
                self.bytes += command.size();
                self.commands.push((raw.position, Arc::new(command)));
            }
            // Here everything is wanted.
            Ok(StreamEntry::Unwanted(..)) => {}
            Ok(StreamEntry::Probe(_) | StreamEntry::Unsupported | StreamEntry::Void) => {}
            // More are not kept: they would be many copies of old entries.
            Err(error) if self.malformed.len() < MAX_MALFORMED => {
                drop(fields);
                self.malformed.push((raw, error));
            }
            Err(_) => {}
        }
        true
    }
}
