//! Whether Redis lets this node do what it needs: a user without a right, or a server that does not hold the stream,
//! accepts connections and refuses the commands that matter. Each right in use is tried on keys and channels of the
//! prefix that nobody reads.

use crate::log::redis::keys::Keys;
use crate::model::id::Id;
use crate::model::partition::Line;
use crate::redis::config::RedisConfig;
use crate::redis::connection::{Connector, RedisConnection};
use crate::redis::error::RedisError;
use redis::{Cmd, Value};
use std::convert::Infallible;

/// Tries the commands that are not tried on their own. KEYS: a hash, a sorted set, a stream, a text. ARGV: a channel. Answers what is refused, the
/// commands with the same reason in one line.
const SCRIPT: &str = "local reasons, refused = {}, {}
local function try(command, ...)
  local answer = redis.pcall(command, ...)
  local why = type(answer) == 'table' and answer.err
  if not why or string.find(why, 'no such key', 1, true) then return end
  if not refused[why] then reasons[#reasons + 1] = why end
  refused[why] = refused[why] and refused[why] .. ', ' .. command or command
end
local hash, set, stream, text = unpack(KEYS)
try('TIME')
try('HSET', hash, 'f', 1)
try('HGET', hash, 'f')
try('HMGET', hash, 'f')
try('HGETALL', hash)
try('HKEYS', hash)
try('HVALS', hash)
try('HLEN', hash)
try('HRANDFIELD', hash, 1)
try('PEXPIRE', hash, 1000)
try('HDEL', hash, 'f')
try('ZADD', set, 1, 'm')
try('ZSCORE', set, 'm')
try('ZRANGE', set, 0, -1)
try('ZRANGEBYSCORE', set, 1, 1)
try('ZREM', set, 'm')
redis.pcall('XADD', stream, '*', 'probe', 1)
try('XINFO', 'STREAM', stream)
try('XREVRANGE', stream, '+', '-', 'COUNT', 1)
redis.pcall('SET', text, 1, 'PX', 1000)
try('GET', text)
try('PUBSUB', 'NUMSUB', ARGV[1])
try('UNLINK', hash, set, stream, text)
redis.pcall('DEL', hash, set, stream, text)
for n, why in ipairs(reasons) do reasons[n] = refused[why] .. ': ' .. why end
return reasons";
/// Runs [`SCRIPT`].
const SCRIPTS: &str = "scripts (EVAL)";
/// Tried with a hash that no script has.
const SHA: &str = "scripts (EVALSHA)";

/// Why a server of the log cannot be used, or a right is missing there.
///
/// # Errors
/// When one could not be asked.
pub(crate) async fn missing_of_all(config: &RedisConfig) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    for line in config.layout().lines() {
        problems.extend(missing(config, line).await?);
    }
    Ok(problems)
}

/// Why the server of a line cannot be used, or a right is missing there.
///
/// # Errors
/// When it could not be asked.
pub(crate) async fn missing(config: &RedisConfig, line: Line) -> Result<Vec<String>, String> {
    let keys = Keys::new(&config.prefix, line);
    let connector = Connector::for_stream(config, &keys.events).map_err(|error| error.to_string())?;
    let mut problems = Vec::new();
    let opened = RedisConnection::open(&connector, config.timeout).await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    for (right, command) in commands(config, &connector, &keys) {
        match connection.call(&command).await {
            Ok(Value::Array(refused)) if right == SCRIPTS => problems.extend(refused.iter().filter_map(text)),
            Ok(_) => {}
            Err(RedisError::Reply(why)) if right == SHA && why.to_ascii_uppercase().contains("NOSCRIPT") => {}
            // Others mean "not now".
            Err(RedisError::NotServing(why)) if why.starts_with("MOVED") || why.starts_with("CLUSTERDOWN") => {
                let hint = if why.starts_with("MOVED") { "; use redis+cluster:// for a Cluster" } else { "" };
                problems.push(format!("{right}: {why}{hint}"));
                return Ok(problems);
            }
            Err(RedisError::Reply(why)) => problems.push(format!("{right}: {why}")),
            Err(error) => return Err(error.to_string()),
        }
    }
    problems.extend(subscriptions(config, &connector, &keys, line).await?);
    Ok(problems)
}

/// The rights that a node does without, but worse, and that are missing.
///
/// # Errors
/// When Redis could not be asked.
pub(crate) async fn missing_optional(
    connection: &mut RedisConnection,
    config: &RedisConfig,
) -> Result<Vec<&'static str>, RedisError> {
    let probe = format!("{}:probe:{}", Keys::new(&config.prefix, Line::CONTROL).tagged, Id::random());
    let mut missing = Vec::new();
    for (right, words) in [
        ("+info", &["INFO", "server"][..]),
        ("+role", &["ROLE"]),
        ("+rename", &["RENAME", &probe, &probe]),
        ("+memory|usage", &["MEMORY", "USAGE", &probe]),
    ] {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        match connection.call(&command).await {
            Err(RedisError::Reply(why)) if why.starts_with("NOPERM") => missing.push(right),
            Ok(_) | Err(RedisError::Reply(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// What each right is for, and a harmless command that needs it.
fn commands(config: &RedisConfig, connector: &Connector, keys: &Keys) -> Vec<(String, Cmd)> {
    let probe = format!("{}:probe:{}", keys.tagged, Id::random());
    let command = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command
    };
    let channel = format!("{}:probe", config.prefix);
    let events = &keys.events;
    let mut all = vec![
        (format!("reading {events}"), command(&["EXISTS", events])),
        (format!("reading {events}"), command(&["XRANGE", events, "-", "+", "COUNT", "1"])),
        (format!("reading {events}"), command(&["XREAD", "COUNT", "1", "STREAMS", events, "$"])),
        (format!("writing {events}"), command(&["XTRIM", events, "MINID", "~", "0"])),
        ("adding to streams".to_owned(), command(&["XADD", &format!("{probe}:stream"), "*", "probe", "1"])),
        ("writing keys".to_owned(), command(&["SET", &probe, "1", "PX", "1000"])),
        ("transactions".to_owned(), command(&["WATCH", &probe])),
        ("transactions".to_owned(), command(&["MULTI"])),
        ("transactions".to_owned(), command(&["EXEC"])),
        ("deleting keys".to_owned(), command(&["DEL", &probe, &format!("{probe}:stream")])),
        (SHA.to_owned(), command(&["EVALSHA", &"0".repeat(40), "1", &probe])),
        (SCRIPTS.to_owned(), {
            let of = |kind: &str| format!("{probe}:{kind}");
            command(&["EVAL", SCRIPT, "4", &of("hash"), &of("set"), &of("stream"), &of("text"), &channel])
        }),
        (format!("publishing on {}:*", config.prefix), command(&["PUBLISH", &channel, "probe"])),
    ];
    if config.min_replicas > 0 {
        all.push(("waiting for replicas".to_owned(), command(&["WAIT", "0", "1"])));
    }
    // In a Cluster another server may hold it.
    let streams = config.streams_key.iter().filter(|stream| connector.for_key(stream).is_none());
    all.extend(streams.map(|stream| {
        (format!("reading {stream} (redis.streams_key)"), command(&["XREAD", "COUNT", "1", "STREAMS", stream, "$"]))
    }));
    all
}

/// A line of the script's answer.
fn text(line: &Value) -> Option<String> {
    match line {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).trim_end().to_owned()),
        _ => None,
    }
}

async fn subscriptions(
    config: &RedisConfig,
    connector: &Connector,
    keys: &Keys,
    line: Line,
) -> Result<Vec<String>, String> {
    let ignore = |_| Ok::<(), Infallible>(());
    let opened = RedisConnection::open_subscriber(connector, config.timeout, ignore).await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let mut problems = Vec::new();
    let node = format!("{}:node:probe", config.prefix);
    for channel in [&keys.volatile, &node].into_iter().take(if line == Line::CONTROL { 2 } else { 1 }) {
        match connection.subscribe(channel).await {
            Ok(()) => {}
            Err(RedisError::Reply(why)) => problems.push(format!("subscribing to {channel}: {why}")),
            Err(error) => return Err(error.to_string()),
        }
    }
    if let Some(key) = config.emitter_key.as_ref().filter(|_| line == Line::CONTROL) {
        let pattern = format!("{key}#*");
        match connection.psubscribe(&pattern).await {
            Ok(()) => {}
            Err(RedisError::Reply(why)) => {
                problems.push(format!("subscribing to {pattern} (redis.emitter_key): {why}"))
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(problems)
}
