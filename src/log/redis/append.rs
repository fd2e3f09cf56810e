//! Appending: callers on any thread put commands into a bounded queue. One task sends all that wait as one transaction at a
//! time, which keeps their order and needs one round trip for many.

use crate::log::redis::append_queue::QueuedAppend;
use crate::log::redis::{RedisLog, entry, renewal, volatile};
use crate::log::{Accepted, AppendError, Appended, ID_LIFETIME};
use crate::model::clock::unix_us;
use crate::model::command::SessionCommand;
use crate::model::draft::Draft;
use crate::model::id::Id;
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use crate::redis::clock::RedisClock;
use crate::redis::connection::{RedisConnection, find_not_serving};
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use crate::redis::reply::text;
use redis::{Cmd, ServerError, Value};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;

/// How often the connection is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Tenths of `redis.timeout`: an append that was not sent in the first eight is not sent, Redis does not run it after the
/// ninth, and the last is for the reply.
const TENTHS_TO_SEND: u32 = 8;
const TENTHS_TO_RUN: u32 = 9;
/// Replicas have this fraction of `redis.timeout`. Appends that wait meanwhile have the rest.
const REPLICA_FRACTION: u32 = 3;
/// Bytes of a command besides the texts of its draft.
const COMMAND_OVERHEAD: usize = 400;

/// Queues drafts and waits for their results, at most for `redis.timeout`.
pub(super) async fn append(log: &RedisLog, drafts: Vec<Draft>) -> Vec<Appended> {
    if drafts.is_empty() {
        return Vec::new();
    }
    let accepted_us = log.clock_offset.redis_now_us();
    let commands: Vec<Cmd> = drafts.iter().map(|draft| command(log, draft, accepted_us)).collect();
    let bytes = drafts.iter().map(draft_bytes).sum();
    submit(log, commands, bytes).await
}

/// Queues a probe and waits for its result.
pub(super) async fn probe(log: &RedisLog, id: Id) -> Result<(), AppendError> {
    let answer = submit(log, vec![probe_entry(log, id)], COMMAND_OVERHEAD).await.pop();
    answer.unwrap_or(Err(AppendError::Overloaded)).map(drop)
}

fn probe_entry(log: &RedisLog, id: Id) -> Cmd {
    let mut command = plain("XADD", &log.keys.events);
    trim(log, &mut command);
    command.arg("probe").arg(id.to_string());
    command
}

/// Queues a session command and waits for its result.
pub(super) async fn append_command(log: &RedisLog, command: &SessionCommand) -> Result<(), AppendError> {
    let bytes = COMMAND_OVERHEAD + command.size();
    let answer = submit(log, vec![command_entry(log, command, plain)], bytes).await.pop();
    answer.unwrap_or(Err(AppendError::Overloaded)).map(drop)
}

/// The `XADD` of a session command. `start` writes its name and key, after a condition or not.
pub(super) fn command_entry(
    log: &RedisLog,
    session_command: &SessionCommand,
    start: impl Fn(&str, &str) -> Cmd,
) -> Cmd {
    let mut command = start("XADD", &log.keys.events);
    trim(log, &mut command);
    command.arg("order").arg(serde_json::to_string(session_command).expect("names and lists are always JSON"));
    command
}

/// Queues commands of about `bytes` and waits for their results.
pub(super) async fn submit(log: &RedisLog, commands: Vec<Cmd>, bytes: usize) -> Vec<Appended> {
    let count = commands.len();
    let now = Instant::now();
    let deadline = now + log.timeout;
    let Some(answered) = log.queue.push(commands, bytes, now + log.timeout / 10 * TENTHS_TO_SEND) else {
        return vec![Err(AppendError::Overloaded); count];
    };
    match tokio::time::timeout_at(deadline, answered).await {
        Ok(Ok(answers)) => answers,
        // It was dropped: its time was over before it could be sent.
        Ok(Err(_)) | Err(_) => vec![Err(unavailable(&RedisError::Timeout(log.timeout))); count],
    }
}

fn unavailable(error: &RedisError) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

/// Bytes of a draft's command, about.
pub(super) fn draft_bytes(draft: &Draft) -> usize {
    let rooms: usize = draft.rooms.iter().chain(&draft.except).map(|room| room.len() + 4).sum();
    draft.args.len() + draft.event.len() + rooms + COMMAND_OVERHEAD
}

fn command(log: &RedisLog, draft: &Draft, accepted_us: u64) -> Cmd {
    draft_entry(log, draft, accepted_us, |name, key| match &draft.id {
        Some(id) => log.transactions.once(&log.keys, id, ID_LIFETIME, draft.volatile),
        None => plain(name, key),
    })
}

fn plain(name: &str, key: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    command
}

/// The command of a draft. `start` writes its name and key, after a condition or not.
pub(super) fn draft_entry(log: &RedisLog, draft: &Draft, accepted_us: u64, start: impl Fn(&str, &str) -> Cmd) -> Cmd {
    if draft.volatile {
        let mut command = start("PUBLISH", &log.keys.volatile);
        command.arg(volatile::encode(draft, accepted_us, *log.announced.lock()));
        return command;
    }
    let mut command = start("XADD", &log.keys.events);
    trim(log, &mut command);
    entry::encode(draft, accepted_us, &mut command);
    command
}

/// Writes the arguments of `XADD` between the stream and the fields: entries older than the window are trimmed.
fn trim(log: &RedisLog, command: &mut Cmd) {
    let oldest_ms = log.trim_before_ms(unix_us() / 1000);
    if oldest_ms > 0 {
        command.arg("MINID").arg("~").arg(oldest_ms);
    }
    command.arg("*");
}

/// Sends what waits, until dropped. Reconnects by itself.
pub(super) async fn run(log: &RedisLog) {
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = connected(log, &mut reconnect).await;
        log.note_failure(&log.appender, &error);
        log.acknowledged.disconnected();
        reconnect.wait("appending", &log.connector, &error).await;
    }
}

async fn connected(log: &RedisLog, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
    let mut connection = RedisConnection::open(&log.connector, log.timeout).await?;
    let mut clock = RedisClock::read(&mut connection).await?;
    log.clock_offset.note(&clock);
    log.transactions.check_rights(&mut connection, &clock, log.timeout).await?;
    reconnect.reset();
    log.note_appender(true);
    log.epoch_known().await;
    loop {
        let next_check = Instant::now() + CHECK_INTERVAL;
        connection.check().await?;
        clock = RedisClock::read(&mut connection).await?;
        log.clock_offset.note(&clock);
        if log.refused_appends.is_suspected() {
            try_append(log, &mut connection, &clock).await?;
        }
        while let Ok(appends) = tokio::time::timeout_at(next_check, log.queue.next()).await {
            send(log, &mut connection, &clock, appends).await?;
        }
    }
}

/// Finds out whether Redis refuses every append.
async fn try_append(log: &RedisLog, connection: &mut RedisConnection, clock: &RedisClock) -> Result<(), RedisError> {
    let deadline_ms = clock.redis_ms(Instant::now() + log.timeout);
    let command = probe_entry(log, Id::random());
    let mut executed = log.transactions.run(log, connection, vec![command], deadline_ms, None).await?;
    match executed.replies.pop().map(|reply| read_reply(log, reply, None)) {
        Some(Err(AppendError::Refused(why))) => log.refused_appends.found(Some(why)),
        Some(Ok(_)) => log.refused_appends.found(None),
        // Not now, which others notice too.
        _ => {}
    }
    Ok(())
}

/// Sends appends as one transaction and replies to each caller.
async fn send(
    log: &RedisLog,
    connection: &mut RedisConnection,
    clock: &RedisClock,
    mut appends: Vec<QueuedAppend>,
) -> Result<(), RedisError> {
    let Some(first) = appends.first() else { return Ok(()) };
    let deadline = first.send_before + log.timeout / 10 * (TENTHS_TO_RUN - TENTHS_TO_SEND);
    let counts: Vec<usize> = appends.iter().map(|append| append.commands.len()).collect();
    let commands = appends.iter_mut().flat_map(|append| append.commands.drain(..)).collect();
    let replicas = (log.min_replicas > 0).then(|| (log.min_replicas, log.timeout / REPLICA_FRACTION));
    let executed = match log.transactions.run(log, connection, commands, clock.redis_ms(deadline), replicas).await {
        Ok(executed) => executed,
        Err(error) => {
            for (append, count) in appends.into_iter().zip(counts) {
                let _ = append.reply.send(vec![Err(unavailable(&error)); count]);
            }
            return Err(error);
        }
    };
    let not_serving = find_not_serving(&executed.replies);
    let mut answers = executed.replies.into_iter().map(|reply| read_reply(log, reply, executed.replicas));
    for (append, count) in appends.into_iter().zip(counts) {
        // The caller may be gone.
        let _ = append.reply.send(answers.by_ref().take(count).collect());
    }
    not_serving.map_or(Ok(()), Err)
}

/// The reply to `XADD` is an id, that to `PUBLISH` a number; nil means that the deadline had passed.
fn read_reply(log: &RedisLog, reply: Value, replicas: Option<u32>) -> Appended {
    match &reply {
        // `OK` is the reply to `SET` (`leased_append`).
        Value::Int(_) | Value::Okay => Ok(Accepted::volatile()),
        Value::ServerError(error) => {
            let refusal = refusal(error);
            if matches!(refusal, AppendError::Refused(_)) {
                log.refused_appends.suspect();
            }
            Err(refusal)
        }
        Value::Nil => Err(unavailable(&RedisError::Timeout(log.timeout))),
        value => match text(value) {
            // The idempotency id was first used by a volatile event.
            Some("-") => Ok(Accepted::volatile()),
            id => {
                let position = id.and_then(Position::parse);
                let position = position.ok_or_else(|| unavailable(&RedisError::UnexpectedReply("XADD")))?;
                // A position of a stream that is about to be renewed is not looked for in the next one.
                let is_lasting = !renewal::is_due(log, position);
                log.note_newest(position.ms);
                if let Some(have) = replicas.filter(|have| *have < log.min_replicas) {
                    return Err(AppendError::NotReplicated { have, wanted: log.min_replicas });
                }
                if is_lasting {
                    log.acknowledged.note(position);
                }
                Ok(Accepted {
                    offset: log.epoch().map(|epoch| Offset { epoch, position, line: Line::CONTROL }),
                    replicas,
                })
            }
        },
    }
}

/// An error that another connection or another moment would not give is not a refusal.
fn refusal(error: &ServerError) -> AppendError {
    match RedisError::from(error.clone()) {
        RedisError::Reply(text) if !matches!(error.code(), "BUSY" | "NOREPLICAS" | "EXECABORT") => {
            AppendError::Refused(text)
        }
        passing => unavailable(&passing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_errors_are_no_refusals() {
        let refusal = |code: &str| match redis::parse_redis_value(format!("-{code} text\r\n").as_bytes()).unwrap() {
            Value::ServerError(error) => refusal(&error),
            other => panic!("{other:?}"),
        };
        for code in ["LOADING", "READONLY", "MOVED", "BUSY", "NOREPLICAS", "EXECABORT"] {
            assert!(matches!(refusal(code), AppendError::Unavailable(_)), "{code}");
        }
        for code in ["OOM", "NOPERM", "WRONGTYPE", "MISCONF", "ERR"] {
            assert!(matches!(refusal(code), AppendError::Refused(_)), "{code}");
        }
    }
}
