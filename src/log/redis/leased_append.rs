//! Appending as the one node that holds a lease. Redis itself compares: what reaches it after the lease went to another
//! node is not done, so that two nodes never append the same, however late a command of the former one arrives.

use crate::log::Appended;
use crate::log::redis::append::{command_from, draft_bytes, order_from, submit};
use crate::log::redis::{RedisLog, reply};
use crate::model::clock::unix_us;
use crate::model::command::SessionCommand;
use crate::model::draft::Draft;
use crate::model::offset::Position;
use crate::redis::connection::{Connector, RedisConnection};
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use redis::Value;
use std::time::Duration;

/// A lease that is not renewed for so long is free.
const LIFETIME: Duration = Duration::from_secs(3);
/// How far a stream was read is forgotten after this long without any node: what was published meanwhile is stale.
const POSITION_LIFETIME: Duration = Duration::from_secs(600);

/// What is appended.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// An event.
    Event(Draft),
    /// An order.
    SessionCommand(SessionCommand),
}

/// A claim to the lease: this node, and since when it listens by the clock of Redis.
#[derive(Clone, Debug)]
pub(crate) struct Claim(String);

/// Takes or renews the lease. KEYS: it. ARGV: the claim, the lifetime, and for how many milliseconds the node has had something
/// to copy that the holder does not copy. Where the holder listens since later than that it cannot have heard it, and
/// hands over.
const CLAIM: &str = "local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return 1 end
local time = redis.call('TIME')
local heard = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[3]
if holder and (ARGV[3] == '0' or tonumber(string.match(holder, '%d+$') or 0) <= heard) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// Gives the lease back, if it is this claim's.
const RESIGN: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1";

impl RedisLog {
    /// Where to find the log's Redis, and how long each call may take.
    pub(crate) fn redis(&self) -> (&Connector, Duration) {
        (&self.connector, self.timeout)
    }

    /// A claim of a node that listens from now on.
    pub(crate) async fn new_claim(&self, connection: &mut RedisConnection) -> Result<Claim, RedisError> {
        let wrong = || RedisError::UnexpectedReply("TIME");
        let Value::Array(time) = connection.call(&redis::cmd("TIME")).await? else { return Err(wrong()) };
        let number = |value: Option<&Value>| value.and_then(text).and_then(|text| text.parse::<u64>().ok());
        let (Some(seconds), Some(micros)) = (number(time.first()), number(time.get(1))) else { return Err(wrong()) };
        Ok(Claim(format!("{:016x}:{}", rand::random::<u64>(), seconds * 1000 + micros / 1000)))
    }

    /// Takes or renews the lease; whether the claim has it now. `uncopied`: for how long something was heard that nobody
    /// copies.
    pub(crate) async fn claim(
        &self,
        connection: &mut RedisConnection,
        claim: &Claim,
        uncopied: Option<Duration>,
    ) -> Result<bool, RedisError> {
        let mut command = redis::cmd("EVAL");
        command.arg(CLAIM).arg(1).arg(self.keys.copying()).arg(&claim.0).arg(LIFETIME.as_millis() as u64);
        command.arg(uncopied.map_or(0, |uncopied| uncopied.as_millis() as u64));
        Ok(connection.call(&command).await? == Value::Int(1))
    }

    /// Gives the lease back.
    pub(crate) async fn resign(&self, connection: &mut RedisConnection, claim: &Claim) -> Result<(), RedisError> {
        connection.call(redis::cmd("EVAL").arg(RESIGN).arg(1).arg(self.keys.copying()).arg(&claim.0)).await.map(drop)
    }

    /// Appends in order while the claim has the lease, one answer each. `read_to`: that a stream was read up to here is
    /// noted with it, all or nothing.
    pub(crate) async fn append_held(
        &self,
        claim: &Claim,
        entries: &[Entry],
        read_to: Option<(&str, Position)>,
    ) -> Vec<Appended> {
        let (lease, accepted_us) = (self.keys.copying(), unix_us());
        let start = |name: &str, key: &str| {
            let mut command = self.requests.only_if(&lease, &claim.0, name);
            command.arg(key);
            command
        };
        let mut bytes = 0;
        let mut commands: Vec<_> = entries
            .iter()
            .map(|entry| match entry {
                Entry::Event(draft) => {
                    bytes += draft_bytes(draft);
                    command_from(self, draft, accepted_us, start)
                }
                Entry::SessionCommand(order) => {
                    bytes += order.size();
                    order_from(self, order, start)
                }
            })
            .collect();
        if let Some((stream, position)) = read_to {
            let mut note = start("SET", &self.keys.copied_to(stream));
            note.arg(position.to_string());
            note.arg("PX").arg(POSITION_LIFETIME.as_millis() as u64);
            commands.push(note);
        }
        submit(self, commands, bytes).await
    }

    /// How far a stream was read, if that is known.
    pub(crate) async fn read_to(
        &self,
        connection: &mut RedisConnection,
        stream: &str,
    ) -> Result<Option<Position>, RedisError> {
        let value = connection.call(redis::cmd("GET").arg(self.keys.copied_to(stream))).await?;
        Ok(text(&value).and_then(Position::parse))
    }
}

/// An entry of somebody else's stream: its id and its fields.
pub(crate) type Foreign = (Position, Vec<(Vec<u8>, Vec<u8>)>);

/// Waits for entries of a stream after a position, at most `block`; at most `count` of them.
pub(crate) async fn read_stream(
    connection: &mut RedisConnection,
    stream: &str,
    after: Position,
    count: usize,
    block: Duration,
) -> Result<Vec<Foreign>, RedisError> {
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(count).arg("BLOCK").arg(block.as_millis() as u64);
    command.arg("STREAMS").arg(stream).arg(after.to_string());
    let entries = reply::read_entries(connection.call_blocking(&command, block).await?)?;
    Ok(entries.into_iter().map(|entry| (entry.position, entry.fields)).collect())
}

/// The id of a stream's last entry; zero where there is none.
pub(crate) async fn end_of_stream(connection: &mut RedisConnection, stream: &str) -> Result<Position, RedisError> {
    let mut command = redis::cmd("XREVRANGE");
    command.arg(stream).arg("+").arg("-").arg("COUNT").arg(1);
    let last = reply::entries(connection.call(&command).await?)?;
    Ok(last.first().map(|entry| entry.position).unwrap_or_default())
}
