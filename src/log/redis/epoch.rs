//! Observes the epoch key and the stream, and agrees with other nodes on a new epoch.

use crate::log::redis::generation::{Observed, StreamInfo, parse};
use crate::log::redis::keys::Keys;
use crate::model::offset::{Epoch, Position};
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use redis::{Cmd, Value};

/// Sets the epoch unless another node did since it was read, so that all nodes agree. Returns the epoch.
const AGREE: &str = "local is = redis.call('GET', KEYS[1]) or ''
if is ~= ARGV[1] then return is end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]";

/// The fields of [`StreamInfo`]. `XINFO STREAM` itself would also return the bodies of the first and last entry.
const OBSERVE: &str = "if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local is = {}
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for at = 1, #info, 2 do is[info[at]] = info[at + 1] end
local first, newest = is['first-entry'], is['last-entry']
local missing = ''
for _, id in ipairs(ARGV) do
if missing == '' and #redis.call('XRANGE', KEYS[1], id, id) == 0 then missing = id end end
return {is['last-generated-id'], is['length'], is['entries-added'] or -1, first and first[1] or '',
newest and newest[1] or '', missing}";

/// Observes the epoch key and the stream. `expected` are entries that should be in it, oldest first. The epoch is read
/// last: where it is the known one, the stream was of that epoch too.
pub(super) async fn observe(
    connection: &mut RedisConnection,
    keys: &Keys,
    expected: &[Position],
) -> Result<Observed, RedisError> {
    let stream = observe_stream(connection, &keys.events, expected).await?;
    let epoch = connection.call(redis::cmd("GET").arg(&keys.epoch)).await?;
    Ok(Observed { epoch_text: text(&epoch).unwrap_or_default().to_owned(), stream })
}

/// Observes a stream; `None` where there is none.
pub(super) async fn observe_stream(
    connection: &mut RedisConnection,
    key: &str,
    expected: &[Position],
) -> Result<Option<StreamInfo>, RedisError> {
    read_stream_info(&connection.call(&observation(key, expected)).await?)
}

/// The command that observes a stream; [`read_stream_info`] reads its reply.
pub(super) fn observation(key: &str, expected: &[Position]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(OBSERVE).arg(1).arg(key);
    for position in expected {
        command.arg(position.to_string());
    }
    command
}

pub(super) fn read_stream_info(value: &Value) -> Result<Option<StreamInfo>, RedisError> {
    let wrong = || RedisError::UnexpectedReply("XINFO STREAM");
    let [last, length, added, first, newest, missing] = match value {
        Value::Nil => return Ok(None),
        Value::Array(items) => <&[Value; 6]>::try_from(&items[..]).map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    let (&Value::Int(length), &Value::Int(added)) = (length, added) else { return Err(wrong()) };
    Ok(Some(StreamInfo {
        last: text(last).and_then(Position::parse).ok_or_else(wrong)?,
        length,
        added: (added >= 0).then_some(added),
        first: text(first).and_then(Position::parse),
        newest: text(newest).and_then(Position::parse),
        missing: text(missing).and_then(Position::parse),
    }))
}

/// Agrees with all nodes on the epoch: a new one in place of `replaced` (empty for none), or the one that another node set
/// meanwhile.
pub(super) async fn agree(connection: &mut RedisConnection, keys: &Keys, replaced: &str) -> Result<Epoch, RedisError> {
    let fresh = format!("{:x}", Epoch::random().0);
    let agreed =
        connection.call(redis::cmd("EVAL").arg(AGREE).arg(1).arg(&keys.epoch).arg(replaced).arg(fresh)).await?;
    text(&agreed).and_then(parse).ok_or(RedisError::UnexpectedReply("the epoch"))
}
