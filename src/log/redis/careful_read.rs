//! Reading where an entry is in the way that is much larger than an event may be: Redis sends only the beginning of it. A
//! reply is kept in memory as a whole, and one of hundreds of megabytes may not arrive in time, so that it would be asked
//! for again and again.

use crate::log::redis::entry::RawEntry;
use crate::log::redis::{RedisLog, reply};
use crate::model::offset::Position;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use std::time::Duration;

/// Entries in one read.
const MAX_ENTRIES: usize = 8;
/// Bytes that an entry may have besides its event: rooms, and commands to sessions.
const ENTRY_BYTES: usize = 1 << 20;
/// Bytes of a reply besides its entries.
const REPLY_BYTES: usize = 8 << 20;

/// Redis needs some 5 ms for each megabyte of the first and of the last entry to say how the stream is, and to send the
/// beginning of an entry.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// KEYS: the stream. ARGV: XRANGE or XREVRANGE, where to begin, where to end, how many entries, bytes of one entry. Ends
/// with an entry that has more bytes, of which it answers the first fields, cut, and the number of bytes.
const READ: &str = "local found, from = {}, ARGV[2]
for n = 1, tonumber(ARGV[4]) do
  local entries = redis.pcall(ARGV[1], KEYS[1], from, ARGV[3], 'COUNT', 1)
  if entries.err then
    -- Nothing can come after the largest id.
    if string.find(entries.err, 'ID for the interval', 1, true) then break end
    return entries
  end
  local entry = entries[1]
  if not entry then break end
  local bytes = 0
  for _, text in ipairs(entry[2]) do bytes = bytes + #text + 8 end
  found[n] = entry
  if bytes > tonumber(ARGV[5]) then
    local kept = {}
    for at = 1, math.min(#entry[2], 32) do kept[at] = string.sub(entry[2][at], 1, 4096) end
    entry[2], entry[3] = kept, bytes
    break
  end
  from = '(' .. entry[1]
end
return found";

/// Bytes of an entry that may be an event.
fn max_entry(log: &RedisLog) -> usize {
    log.limits.max_event.saturating_mul(2).saturating_add(ENTRY_BYTES)
}

/// Bytes of any reply that is read.
pub(super) fn max_reply(log: &RedisLog) -> usize {
    max_entry(log).saturating_mul(MAX_ENTRIES).saturating_add(REPLY_BYTES)
}

/// The next entries of a stream after a position, oldest first.
pub(super) async fn after(
    log: &RedisLog,
    connection: &mut RedisConnection,
    stream: &str,
    position: Position,
    count: usize,
) -> Result<Vec<RawEntry>, RedisError> {
    read(log, connection, stream, ["XRANGE", &format!("({position}"), "+"], count).await
}

/// The entries of the log up to `from`, newest first.
pub(super) async fn before(
    log: &RedisLog,
    connection: &mut RedisConnection,
    from: &str,
    count: usize,
) -> Result<Vec<RawEntry>, RedisError> {
    read(log, connection, &log.keys.events, ["XREVRANGE", from, "-"], count).await
}

async fn read(
    log: &RedisLog,
    connection: &mut RedisConnection,
    stream: &str,
    range: [&str; 3],
    count: usize,
) -> Result<Vec<RawEntry>, RedisError> {
    let mut command = redis::cmd("EVAL");
    command.arg(READ).arg(1).arg(stream).arg(&range).arg(count.min(MAX_ENTRIES)).arg(max_entry(log));
    reply::entries(connection.call(&command).await?)
}
