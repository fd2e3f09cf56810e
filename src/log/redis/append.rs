//! Appending: callers on any thread write commands into a bounded queue; one task sends all that waits as one
//! request at a time, which keeps the order and costs one round trip for many.

use super::append_queue::Call;
use crate::log::redis::{RedisLog, entry, volatile};
use crate::log::{Accepted, AppendError, Appended, ID_LIFETIME};
use crate::model::clock::unix_us;
use crate::model::command::SessionCommand;
use crate::model::draft::Draft;
use crate::model::id::Id;
use crate::model::offset::{Offset, Position};
use crate::redis::clock::RedisClock;
use crate::redis::connection::{RedisConnection, find_not_serving};
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use crate::redis::reply::text;
use redis::{Cmd, ServerError, Value};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;

/// How often the connection is asked whether it still leads to the right place.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The parts of `redis.timeout`: what was not sent in the first eight tenths is not sent any more, what Redis gets to
/// in the last tenth it leaves, and that tenth is for the answer.
const TENTHS_TO_SEND: u32 = 8;
const TENTHS_TO_RUN: u32 = 9;
/// The part of `redis.timeout` that replicas have; requests that wait meanwhile have the rest.
const FOR_REPLICAS: u32 = 3;
/// What a command costs besides its drafts' texts.
const COMMAND_OVERHEAD: usize = 400;

/// Queues drafts and waits for their answers, at most `redis.timeout`.
pub(super) async fn append(log: &RedisLog, drafts: Vec<Draft>) -> Vec<Appended> {
    if drafts.is_empty() {
        return Vec::new();
    }
    let accepted_us = unix_us();
    let commands: Vec<Cmd> = drafts.iter().map(|draft| command(log, draft, accepted_us)).collect();
    let bytes = drafts.iter().map(draft_bytes).sum();
    submit(log, commands, bytes).await
}

/// Queues a probe and waits for its answer.
pub(super) async fn probe(log: &RedisLog, id: Id) -> Result<(), AppendError> {
    let mut command = redis::cmd("XADD");
    command.arg(&log.keys.events);
    trim(log, &mut command);
    command.arg("probe").arg(id.to_string());
    let answer = submit(log, vec![command], COMMAND_OVERHEAD).await.pop();
    answer.unwrap_or(Err(AppendError::Overloaded)).map(drop)
}

/// Queues an order and waits for its answer.
pub(super) async fn order(log: &RedisLog, order: &SessionCommand) -> Result<(), AppendError> {
    let command = order_from(log, order, plain);
    let answer = submit(log, vec![command], COMMAND_OVERHEAD + order.size()).await.pop();
    answer.unwrap_or(Err(AppendError::Overloaded)).map(drop)
}

/// The command of an order; `start` puts its name behind a condition, or not.
pub(super) fn order_from(log: &RedisLog, order: &SessionCommand, start: impl Fn(&str, &str) -> Cmd) -> Cmd {
    let mut command = start("XADD", &log.keys.events);
    trim(log, &mut command);
    command.arg("order").arg(serde_json::to_string(order).expect("names and lists are always JSON"));
    command
}

/// Queues commands that cost about so many bytes and waits for their answers.
pub(super) async fn submit(log: &RedisLog, commands: Vec<Cmd>, bytes: usize) -> Vec<Appended> {
    let count = commands.len();
    let now = Instant::now();
    let deadline = now + log.timeout;
    let Some(answered) = log.queue.push(commands, bytes, now + log.timeout / 10 * TENTHS_TO_SEND) else {
        return vec![Err(AppendError::Overloaded); count];
    };
    match tokio::time::timeout_at(deadline, answered).await {
        Ok(Ok(answers)) => answers,
        // Dropped unanswered: its time was over before it could be sent.
        Ok(Err(_)) | Err(_) => vec![Err(unavailable(&RedisError::Timeout(log.timeout))); count],
    }
}

fn unavailable(error: &RedisError) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

/// Bytes that a draft's command costs, about.
pub(super) fn draft_bytes(draft: &Draft) -> usize {
    let rooms: usize = draft.rooms.iter().chain(&draft.except).map(|room| room.len() + 4).sum();
    draft.args.len() + draft.event.len() + rooms + COMMAND_OVERHEAD
}

fn command(log: &RedisLog, draft: &Draft, accepted_us: u64) -> Cmd {
    command_from(log, draft, accepted_us, |name, key| match &draft.id {
        Some(id) => log.requests.once(&log.keys, id, ID_LIFETIME, draft.volatile),
        None => plain(name, key),
    })
}

fn plain(name: &str, key: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    command
}

/// The command of a draft; `start` writes its name and its key, behind a condition or not.
pub(super) fn command_from(log: &RedisLog, draft: &Draft, accepted_us: u64, start: impl Fn(&str, &str) -> Cmd) -> Cmd {
    if draft.volatile {
        let mut command = start("PUBLISH", &log.keys.volatile);
        command.arg(volatile::encode(draft, accepted_us));
        return command;
    }
    let mut command = start("XADD", &log.keys.events);
    trim(log, &mut command);
    entry::encode(draft, accepted_us, &mut command);
    command
}

/// Writes what lies between the stream and the fields of an `XADD`: entries older than the window may go.
fn trim(log: &RedisLog, command: &mut Cmd) {
    let oldest_ms = log.trim_before_ms(unix_us() / 1000);
    if oldest_ms > 0 {
        command.arg("MINID").arg("~").arg(oldest_ms);
    }
    command.arg("*");
}

/// Sends what waits until dropped; reconnects by itself.
pub(super) async fn run(log: &RedisLog) {
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = connected(log, &mut reconnect).await;
        log.note_appender(false);
        log.acknowledged.disconnected();
        reconnect.wait("appending", &log.connector, &error).await;
    }
}

async fn connected(log: &RedisLog, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
    let mut connection = RedisConnection::open(&log.connector, log.timeout).await?;
    let mut clock = RedisClock::read(&mut connection).await?;
    log.requests.try_guard(&mut connection, &clock, log.timeout).await?;
    reconnect.reset();
    log.note_appender(true);
    log.epoch_known().await;
    loop {
        let checked_again = Instant::now() + CHECK_EVERY;
        connection.check().await?;
        clock = RedisClock::read(&mut connection).await?;
        while let Ok(calls) = tokio::time::timeout_at(checked_again, log.queue.next()).await {
            send(log, &mut connection, &clock, calls).await?;
        }
    }
}

/// Sends the calls as one request and answers each.
async fn send(
    log: &RedisLog,
    connection: &mut RedisConnection,
    clock: &RedisClock,
    mut calls: Vec<Call>,
) -> Result<(), RedisError> {
    let Some(first) = calls.first() else { return Ok(()) };
    let deadline = first.send_before + log.timeout / 10 * (TENTHS_TO_RUN - TENTHS_TO_SEND);
    let counts: Vec<usize> = calls.iter().map(|call| call.commands.len()).collect();
    let commands = calls.iter_mut().flat_map(|call| call.commands.drain(..)).collect();
    let replicas = (log.min_replicas > 0).then(|| (log.min_replicas, log.timeout / FOR_REPLICAS));
    let done = match log.requests.run(connection, commands, clock.redis_ms(deadline), replicas).await {
        Ok(done) => done,
        Err(error) => {
            for (call, count) in calls.into_iter().zip(counts) {
                let _ = call.answer.send(vec![Err(unavailable(&error)); count]);
            }
            return Err(error);
        }
    };
    let displaced = find_not_serving(&done.entries);
    let mut answers = done.entries.into_iter().map(|entry| read_answer(log, entry, done.replicas));
    for (call, count) in calls.into_iter().zip(counts) {
        // Nobody may be waiting any more.
        let _ = call.answer.send(answers.by_ref().take(count).collect());
    }
    displaced.map_or(Ok(()), Err)
}

/// `XADD` answers with an id, publishing with a number; nothing is the answer to what came too late.
fn read_answer(log: &RedisLog, answer: Value, replicas: Option<u32>) -> Appended {
    match &answer {
        // `OK`: a note beside what was appended (`held`).
        Value::Int(_) | Value::Okay => Ok(Accepted::volatile()),
        Value::ServerError(error) => Err(refusal(error)),
        Value::Nil => Err(unavailable(&RedisError::Timeout(log.timeout))),
        value => match text(value) {
            // The id was first used by a volatile event.
            Some("-") => Ok(Accepted::volatile()),
            id => {
                let position = id.and_then(Position::parse);
                let position = position.ok_or_else(|| unavailable(&RedisError::UnexpectedReply("XADD")))?;
                log.note_newest(position.ms);
                if let Some(have) = replicas.filter(|have| *have < log.min_replicas) {
                    return Err(AppendError::NotReplicated { have, wanted: log.min_replicas });
                }
                log.acknowledged.note(position);
                Ok(Accepted { offset: log.epoch().map(|epoch| Offset { epoch, position }), replicas })
            }
        },
    }
}

/// What another place or another moment would take is not refused.
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
    fn passing_troubles_are_told_from_refusals() {
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
