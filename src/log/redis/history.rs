//! What a node reads of the recovery window when it starts, newest first so that it never reads more than it keeps.

use crate::log::Snapshot;
use crate::log::redis::entry;
use crate::log::redis::entry::{Entry, RawEntry};
use crate::log::redis::generation;
use crate::log::redis::generation::StreamGeneration;
use crate::log::redis::{RedisLog, dead_letters, epoch, reply};
use crate::model::clock::unix_us;
use crate::model::command::SessionCommand;
use crate::model::event::Event;
use crate::model::offset::{Epoch, Offset, Position};
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use std::sync::Arc;

/// Reads the history up to `head`, which is at most the stream's last id.
pub(super) async fn read(
    log: &RedisLog,
    connection: &mut RedisConnection,
    epoch: Epoch,
    head: Position,
    life: Option<StreamGeneration>,
    page: &mut reply::PageSize,
) -> Result<Snapshot, RedisError> {
    let (mut history, mut orders) = (Vec::new(), Vec::new());
    let mut floor = head;
    if let Some(life) = life.filter(|_| !log.recovery.window.is_zero()) {
        let mut collected = Collected::new(log, epoch, head);
        let left_out = collect(log, connection, head, &mut collected, page).await?;
        // Looked at again only now: what was trimmed while it was read is not claimed.
        let life = epoch::observe(connection, &log.keys, &[]).await?.life.unwrap_or(life);
        floor = generation::floor(left_out, &life, head);
        collected.malformed.reverse();
        dead_letters::bury(log, connection, std::mem::take(&mut collected.malformed)).await?;
        history = collected.events;
        history.reverse();
        orders = collected.orders;
        orders.reverse();
    }
    Ok(Snapshot { epoch, floor, head, history, commands: orders })
}

/// Pages backwards from `head`. Answers the newest entry that was left out; `None` where the stream had no more.
async fn collect(
    log: &RedisLog,
    connection: &mut RedisConnection,
    head: Position,
    collected: &mut Collected<'_>,
    page: &mut reply::PageSize,
) -> Result<Option<Position>, RedisError> {
    let mut from = head.to_string();
    loop {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&log.keys.events).arg(&from).arg("-").arg("COUNT").arg(page.count());
        let answer = connection.call(&command).await.inspect_err(|error| page.note_error(error))?;
        let entries = reply::entries(answer)?;
        let Some(last) = entries.last() else { return Ok(None) };
        from = format!("({}", last.position);
        page.learn(&entries);
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
    orders: Vec<(Position, Arc<SessionCommand>)>,
    malformed: Vec<dead_letters::Malformed>,
}

impl<'a> Collected<'a> {
    fn new(log: &'a RedisLog, epoch: Epoch, head: Position) -> Self {
        // Trimming goes by the newest id, so a quiet stream holds more than the window by the wall clock.
        let newest_ms = head.ms.min(unix_us() / 1000);
        let oldest_ms = newest_ms.saturating_sub(log.recovery.kept().as_millis() as u64);
        Self { log, epoch, oldest_ms, bytes: 0, events: Vec::new(), orders: Vec::new(), malformed: Vec::new() }
    }

    /// False where the entry is too old or too much.
    fn take(&mut self, raw: RawEntry) -> bool {
        if raw.position.ms < self.oldest_ms {
            return false;
        }
        match entry::decode(&raw.fields, &self.log.limits) {
            Ok(Entry::Event(draft, _)) if draft.volatile => {}
            Ok(Entry::Event(draft, accepted_us)) => {
                let offset = Offset { epoch: self.epoch, position: raw.position };
                let accepted_us = accepted_us.unwrap_or(raw.position.ms.saturating_mul(1000));
                let event = Event { offset, draft, accepted_us };
                self.bytes += event.size();
                if self.bytes > self.log.recovery.window_bytes {
                    return false;
                }
                self.events.push(Arc::new(event));
            }
            Ok(Entry::SessionCommand(order)) => {
                self.bytes += order.size();
                self.orders.push((raw.position, Arc::new(order)));
            }
            Ok(Entry::Probe(_)) => {}
            // Many of them would be many copies; the tail buries what comes while it looks.
            Err(error) if self.malformed.len() < 1000 => self.malformed.push(dead_letters::Malformed::new(raw, error)),
            Err(_) => {}
        }
        true
    }
}
