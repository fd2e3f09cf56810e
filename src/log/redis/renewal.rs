//! A stream whose last id lies far in the future is renewed. A publisher may choose ids: after the largest one Redis
//! refuses every append, and after one of tomorrow nothing is old enough to be trimmed.
//!
//! One script renames the stream away, begins a new one under its key, and sets the next epoch, so that two nodes do it
//! once, and an entry is either in the old stream or in the new one. Each tail reads the rest of the old stream, which is
//! kept for [`RETIRED_LIFETIME`], before it goes on in the new one: clients that are connected miss nothing. What offsets
//! of the old stream prove ends with it.

use crate::log::redis::RedisLog;
use crate::log::redis::generation::{parse, successor};
use crate::model::offset::{Epoch, Position};
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use redis::Value;
use std::time::Duration;

/// How far the last id may be ahead of Redis' clock. After a failover the clock of the new master may be behind.
const MAX_AHEAD: Duration = Duration::from_secs(300);
/// How long the old stream is kept. A tail notices within a second; one that hung for longer has missed entries.
const RETIRED_LIFETIME: Duration = Duration::from_secs(5);
/// Old streams that are kept at once. With [`PAUSE`] it bounds for how long a tail may be behind when somebody adds such
/// ids all the time.
const RETIRED_KEPT: u32 = 16;
/// Between two renewals.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a renewal that came too soon after another is tried: for twice the pause.
const MAX_TRIES: u32 = 10;

/// KEYS: the stream, the epoch, where the stream goes, an old stream that is no longer kept, the mark of the last renewal.
/// ARGV: the epoch, the next one, ms that the last id may be ahead, ms for which the old stream is kept, ms between two
/// renewals. Answers 1 where the stream was renewed, -1 where it is to be tried again.
/// The new one begins with an entry that is trimmed at once, so that its ids rise from now, and nobody takes it for a
/// stream that has all entries there ever were. Without the right to rename (`+rename`) the old entries are dropped.
const RENEW: &str = "if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
local info, last = redis.pcall('XINFO', 'STREAM', KEYS[1]), nil
if info.err then return 0 end
for at = 1, #info, 2 do if info[at] == 'last-generated-id' then last = info[at + 1] end end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(string.match(last, '^%d+')) <= now + ARGV[3] then return 0 end
if not redis.call('SET', KEYS[5], 1, 'NX', 'PX', ARGV[5]) then return -1 end
redis.call('UNLINK', KEYS[4])
local renamed = redis.pcall('RENAME', KEYS[1], KEYS[3])
if renamed.err then redis.call('UNLINK', KEYS[1]) else redis.call('PEXPIRE', KEYS[3], ARGV[4]) end
redis.call('XADD', KEYS[1], 'MAXLEN', 0, string.format('%.0f-0', now), 'probe', '0')
redis.call('SET', KEYS[2], ARGV[2])
return 1";

/// Whether a stream with this last id is to be renewed. [`renew`] asks Redis' own clock again.
pub(super) fn is_due(log: &RedisLog, last: Position) -> bool {
    last.ms > max_ms(log)
}

/// Milliseconds of the highest id with which the stream is not to be renewed.
pub(super) fn max_ms(log: &RedisLog) -> u64 {
    log.clock_offset.redis_now_us() / 1000 + MAX_AHEAD.as_millis() as u64
}

/// Renews the stream, unless another node did meanwhile, or it need not be.
pub(super) async fn renew(log: &RedisLog, connection: &mut RedisConnection) -> Result<(), RedisError> {
    let keys = &log.keys;
    let known = connection.call(redis::cmd("GET").arg(&keys.epoch)).await?;
    let Some(epoch) = text(&known).and_then(parse) else { return Ok(()) };
    let no_longer_kept = Epoch(epoch.0.wrapping_sub(RETIRED_KEPT));
    let mut command = redis::cmd("EVAL");
    command.arg(RENEW).arg(5).arg(&keys.events).arg(&keys.epoch);
    command.arg(keys.retired(epoch)).arg(keys.retired(no_longer_kept)).arg(keys.renewal());
    command.arg(format!("{:x}", epoch.0)).arg(format!("{:x}", successor(epoch).0));
    command.arg(MAX_AHEAD.as_millis() as u64).arg(RETIRED_LIFETIME.as_millis() as u64).arg(PAUSE.as_millis() as u64);
    let mut answer = connection.call(&command).await?;
    for _ in 0..MAX_TRIES {
        if answer != Value::Int(-1) {
            break;
        }
        tokio::time::sleep(PAUSE * 2 / MAX_TRIES).await;
        answer = connection.call(&command).await?;
    }
    if answer == Value::Int(-1) {
        // A renewal since would have changed the epoch: this mark does not end, so no node set it.
        connection.call(redis::cmd("DEL").arg(keys.renewal())).await?;
        answer = connection.call(&command).await?;
    }
    if answer == Value::Int(1) {
        log.metrics.log.renewals.inc();
        tracing::error!(
            key = keys.events,
            "an entry with an id far in the future was added to the stream: the log goes on in a new stream, and clients \
             cannot resume from before it (docs/redis.md, \"What a writer of the stream can do\")"
        );
    }
    Ok(())
}
