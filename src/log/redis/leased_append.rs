//! Appending as the one node that holds a lease. Redis compares the lease with each append, so an append that arrives after
//! the lease went to another node is not done, however late. Two nodes never append the same message.

use crate::log::Appended;
use crate::log::redis::add_command::{Times, draft_bytes};
use crate::log::redis::append::{command_entry, submit};
use crate::log::redis::entry::RawFields;
use crate::log::redis::{RedisLog, add_command, reply, trim_before_ms};
use crate::model::command::{Action, SessionCommand};
use crate::model::draft::Draft;
use crate::model::offset::Position;
use crate::model::partition::Line;
use crate::redis::connection::{Connector, RedisConnection};
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use redis::Value;
use std::time::Duration;
use tokio::time::Instant;

/// A lease that is not renewed for this long is free.
const LEASE_LIFETIME: Duration = Duration::from_secs(3);
/// The position in an emitters' stream is forgotten after this long without any node: later entries are stale by then.
const POSITION_LIFETIME: Duration = Duration::from_secs(600);

/// What is appended.
#[derive(Clone, Debug)]
pub(crate) enum LeasedEntry {
    Event(Draft),
    SessionCommand(SessionCommand),
}

/// The value with which a node holds the lease: a random part, and since when the node listens by Redis' clock.
#[derive(Clone, Debug)]
pub(crate) struct LeaseToken(String);

/// Takes or renews the lease. KEYS: the lease. ARGV: the token, the lifetime in ms, and for how many ms this node has had a
/// message that the holder does not copy. A holder that started to listen after that message cannot have it, and loses the
/// lease. A key of another type, which no node has written, is no lease.
const ACQUIRE: &str = "local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'table' then
  if string.find(holder.err, 'WRONGTYPE', 1, true) then redis.call('DEL', KEYS[1]) end
  holder = redis.call('GET', KEYS[1])
end
if holder == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return 1 end
local time = redis.call('TIME')
local since = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[3]
if holder and (ARGV[3] == '0' or tonumber(string.match(holder, '%d+$') or 0) <= since) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// Gives the lease back, if the token holds it.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1";

impl RedisLog {
    /// The connector of the log, and the timeout of its calls.
    pub(crate) fn redis(&self) -> (&Connector, Duration) {
        (&self.connector, self.timeout)
    }

    /// Where this node is in the partitions of the rooms that a command names ([`SessionCommand::at`]).
    pub(crate) fn positions_of(&self, action: &Action) -> Vec<(Line, Position)> {
        let lines = self.lines.partitions.of_all(action.rooms()).filter(|line| *line != Line::CONTROL);
        lines.map(|line| (line, self.lines.delivered(line))).collect()
    }

    /// A token of a node that listens from now on.
    pub(crate) async fn new_lease_token(&self, connection: &mut RedisConnection) -> Result<LeaseToken, RedisError> {
        let wrong = || RedisError::UnexpectedReply("TIME");
        let Value::Array(time) = connection.call(&redis::cmd("TIME")).await? else { return Err(wrong()) };
        let number = |value: Option<&Value>| value.and_then(text).and_then(|text| text.parse::<u64>().ok());
        let (Some(seconds), Some(micros)) = (number(time.first()), number(time.get(1))) else { return Err(wrong()) };
        Ok(LeaseToken(format!("{:016x}:{}", rand::random::<u64>(), seconds * 1000 + micros / 1000)))
    }

    /// Takes or renews the lease; whether the token holds it now. `uncopied`: for how long this node has had a message that
    /// nobody copies.
    pub(crate) async fn acquire_lease(
        &self,
        connection: &mut RedisConnection,
        token: &LeaseToken,
        uncopied: Option<Duration>,
    ) -> Result<bool, RedisError> {
        let mut command = redis::cmd("EVAL");
        command.arg(ACQUIRE).arg(1).arg(self.keys.emitter_lease()).arg(&token.0).arg(LEASE_LIFETIME.as_millis() as u64);
        command.arg(uncopied.map_or(0, |uncopied| uncopied.as_millis() as u64));
        Ok(connection.call(&command).await? == Value::Int(1))
    }

    /// Gives the lease back.
    pub(crate) async fn release_lease(
        &self,
        connection: &mut RedisConnection,
        token: &LeaseToken,
    ) -> Result<(), RedisError> {
        connection
            .call(redis::cmd("EVAL").arg(RELEASE).arg(1).arg(self.keys.emitter_lease()).arg(&token.0))
            .await
            .map(drop)
    }

    /// Appends in order while the token holds the lease, with one result each. `read_to` is how far an emitters' stream was
    /// read: it is stored with the appends, all or nothing, and has the last result.
    pub(crate) async fn append_leased(
        &self,
        token: &LeaseToken,
        entries: &[LeasedEntry],
        read_to: Option<(&str, Position)>,
    ) -> Vec<Appended> {
        let lease = self.keys.emitter_lease();
        let start = |name: &str| self.transactions.only_if(&lease, &token.0, name);
        let times = Times {
            accepted_us: self.clock_offset.redis_now_us(),
            until_ms: None,
            trim_before_ms: trim_before_ms(self),
            after: None,
        };
        let mut bytes = 0;
        let mut commands: Vec<_> = entries
            .iter()
            .map(|entry| match entry {
                LeasedEntry::Event(draft) => {
                    bytes += draft_bytes(draft);
                    let mut command = start(if draft.volatile { "PUBLISH" } else { "XADD" });
                    add_command::write_after_name(self, draft, times, &mut command);
                    command
                }
                LeasedEntry::SessionCommand(command) => {
                    bytes += command.size();
                    command_entry(self, command, start("XADD"))
                }
            })
            .collect();
        if let Some((stream, position)) = read_to {
            let mut store = start("SET");
            store.arg(self.keys.emitter_position(stream)).arg(position.to_string());
            store.arg("PX").arg(POSITION_LIFETIME.as_millis() as u64);
            commands.push(store);
        }
        submit(self, commands, bytes, Instant::now()).await
    }

    /// How far an emitters' stream was read, if that is known.
    pub(crate) async fn read_to(
        &self,
        connection: &mut RedisConnection,
        stream: &str,
    ) -> Result<Option<Position>, RedisError> {
        let value = connection.call(redis::cmd("GET").arg(self.keys.emitter_position(stream))).await?;
        Ok(text(&value).and_then(Position::parse))
    }
}

/// An entry of an emitters' stream: its id and its fields.
pub(crate) type EmitterEntry = (Position, RawFields);

/// Waits up to `block` for entries of a stream after a position; returns at most `count`.
pub(crate) async fn read_stream(
    connection: &mut RedisConnection,
    stream: &str,
    after: Position,
    count: usize,
    block: Duration,
) -> Result<Vec<EmitterEntry>, RedisError> {
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(count).arg("BLOCK").arg(block.as_millis() as u64);
    command.arg("STREAMS").arg(stream).arg(after.to_string());
    let entries = reply::read_entries(connection.call_blocking(&command, block).await?)?;
    Ok(entries.into_iter().map(|entry| (entry.position, entry.fields)).collect())
}

/// The id of a stream's last entry; zero where it is empty.
pub(crate) async fn end_of_stream(connection: &mut RedisConnection, stream: &str) -> Result<Position, RedisError> {
    let mut command = redis::cmd("XREVRANGE");
    command.arg(stream).arg("+").arg("-").arg("COUNT").arg(1);
    let last = reply::entries(connection.call(&command).await?)?;
    Ok(last.first().map(|entry| entry.position).unwrap_or_default())
}
