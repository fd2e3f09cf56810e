//! Trimming: each append of a node trims what is older than the window. This trims where only other publishers add
//! entries, and what is more than `redis.max_stream_bytes`.

use crate::log::redis::RedisLog;
use crate::log::redis::entry::Entry;
use crate::log::redis::generation::StreamInfo;
use crate::log::redis::stream_size::{Cut, StreamSize};
use crate::model::clock::unix_us;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use redis::{Cmd, Value};
use std::time::Duration;
use tokio::time::Instant;

/// How often old entries are trimmed.
const TRIM_INTERVAL: Duration = Duration::from_secs(10);
/// How often Redis measures the stream at most, where counting says too little: some 50 ms for a gigabyte of small entries.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Trimmer<'a> {
    log: &'a RedisLog,
    size: StreamSize,
    last_trim: Option<Instant>,
    last_measure: Option<Instant>,
}

impl<'a> Trimmer<'a> {
    pub(super) fn new(log: &'a RedisLog) -> Self {
        let size = StreamSize::new(log.config.max_stream_bytes as u64);
        Self { log, size, last_trim: None, last_measure: None }
    }

    /// Counts an entry that was read, with this many bytes.
    pub(super) fn count(&mut self, entry: &Entry<'_>, bytes: usize) {
        self.size.read(entry.position, bytes, entry.fields.len());
    }

    /// Forgets what was counted: the tail starts over.
    pub(super) fn reset(&mut self) {
        self.size.reset();
    }

    /// Trims by age.
    pub(super) async fn by_age(&mut self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        if self.last_trim.is_some_and(|last| last.elapsed() < TRIM_INTERVAL) {
            return Ok(());
        }
        self.last_trim = Some(Instant::now());
        let mut command = self.xtrim();
        command.arg("MINID").arg("~").arg(self.log.trim_before_ms(unix_us() / 1000));
        allowed(connection.call(&command).await).map(drop)
    }

    /// Trims by size, by what was observed of the stream. `is_behind`: the tail may not have read all of it.
    pub(super) async fn by_size(
        &mut self,
        connection: &mut RedisConnection,
        stream: Option<&StreamInfo>,
        is_behind: bool,
    ) -> Result<(), RedisError> {
        self.size.observe(stream, is_behind);
        let length = stream.map_or(0, |stream| u64::try_from(stream.length).unwrap_or(0));
        let mut bytes = self.size.estimate(length);
        if self.size.is_to_be_measured(length)
            && self.last_measure.is_none_or(|last| last.elapsed() >= MEASURE_INTERVAL)
        {
            self.last_measure = Some(Instant::now());
            bytes = self.measure(connection).await?.unwrap_or(bytes);
            self.size.note_measured(bytes);
            if let Some(cut) = self.size.cut_measured(bytes, length) {
                bytes -= self.cut(connection, cut).await?;
            }
        }
        self.log.lines.note_bytes(self.log.line, i64::try_from(bytes).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Trims by size as soon as what was read is too much.
    pub(super) async fn counted(&mut self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        match self.size.cut() {
            Some(cut) => self.cut(connection, cut).await.map(drop),
            None => Ok(()),
        }
    }

    /// Bytes of the stream; `None` without the right to ask (`+memory|usage`).
    async fn measure(&mut self, connection: &mut RedisConnection) -> Result<Option<u64>, RedisError> {
        let mut command = redis::cmd("MEMORY");
        command.arg("USAGE").arg(&self.log.keys.events).arg("SAMPLES").arg(0);
        let bytes = match allowed(connection.call(&command).await)? {
            Some(Value::Int(bytes)) => u64::try_from(bytes).ok(),
            _ => None,
        };
        Ok(bytes)
    }

    /// Cuts the stream; answers the bytes that are gone, about.
    async fn cut(&mut self, connection: &mut RedisConnection, cut: Cut) -> Result<u64, RedisError> {
        let mut command = self.xtrim();
        let bytes = match cut {
            Cut::Before(position, bytes) => {
                command.arg("MINID").arg(position.to_string());
                bytes
            }
            Cut::Keep(entries, bytes) => {
                command.arg("MAXLEN").arg(entries);
                bytes
            }
        };
        let removed = allowed(connection.call(&command).await)?;
        let Some(Value::Int(1..)) = removed else { return Ok(0) };
        self.log.metrics.log.stream_trimmed_bytes.inc_by(bytes);
        tracing::warn!(
            bytes,
            stream = self.log.keys.events,
            "the stream had more than redis.max_stream_bytes: its oldest entries are trimmed"
        );
        Ok(bytes)
    }

    fn xtrim(&self) -> Cmd {
        let mut command = redis::cmd("XTRIM");
        command.arg(&self.log.keys.events);
        command
    }
}

/// Without the right to trim or to measure, the tail still reads.
fn allowed(answer: Result<Value, RedisError>) -> Result<Option<Value>, RedisError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(RedisError::Reply(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
