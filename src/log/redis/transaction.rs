//! All appends that wait, as one transaction that Redis does not run after a deadline. A request may wait in the socket of
//! a Redis that hangs; when Redis continues, its publisher has its 503 already.
//!
//! A guard key that expires at the deadline is set, watched, and set again where it does not exist. If it had expired, the
//! second write changes it and the transaction does not run. This costs Redis 0.5 µs, where a script around each event
//! would cost 3 µs.

use crate::log::redis::keys::Keys;
use crate::log::redis::{RedisLog, renewal};
use crate::model::id::Id;
use crate::redis::clock::RedisClock;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::script::Script;
use redis::{Arg, Cmd, Pipeline, ServerError, Value};
use std::time::Duration;
use tokio::time::Instant;

/// Appends once per idempotency id, unless it is too late. KEYS: stream, key of the id. ARGV: lifetime of the id in ms, the
/// deadline in ms of Redis' clock, then the arguments of `XADD` after the stream. It answers with a status, because readers
/// need not compare this id with a deadline; with `=` before it where the id was used before.
pub(super) const ADD_ONCE: &str = "local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(ARGV[2]) then return false end
local first = redis.call('GET', KEYS[2])
if first then return {ok = '=' .. first} end
local id = redis.call('XADD', KEYS[1], unpack(ARGV, 3))
redis.call('SET', KEYS[2], id, 'PX', ARGV[1])
return {ok = id}";

/// The same for a volatile event. KEYS: key of the id. ARGV: lifetime of the id in ms, the deadline, channel, message.
pub(super) const PUBLISH_ONCE: &str = "local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(ARGV[2]) then return false end
if redis.call('SET', KEYS[1], '-', 'NX', 'PX', ARGV[1]) then
redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return 0";

/// What [`ADD_ONCE`] answered: the id, and whether it is that of an earlier draft.
pub(super) fn first_use(answer: &str) -> (&str, bool) {
    answer.strip_prefix('=').map_or((answer, false), |first| (first, true))
}

/// Runs a command only while a key has a value. KEYS: the key. ARGV: the value, then the command.
const ONLY_IF: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then
return redis.error_reply('FENCED another node holds the lease') end
return redis.call(unpack(ARGV, 2))";

/// Commands before those of the callers: the three of the guard, and `MULTI`.
const PREAMBLE: usize = 4;

/// How often what failed is sent again: an unknown script, and then a stream that was exhausted meanwhile.
const MAX_REPEATS: usize = 2;

/// Builds and runs transactions.
pub(super) struct Transactions {
    add_once: Script,
    publish_once: Script,
    only_if: Script,
    /// The guard key of this process.
    guard: String,
}

impl Transactions {
    pub(super) fn new(keys: &Keys) -> Self {
        let guard = format!("{}:deadline:{}", keys.tagged, Id::random());
        Self {
            add_once: Script::new(ADD_ONCE),
            publish_once: Script::new(PUBLISH_ONCE),
            only_if: Script::new(ONLY_IF),
            guard,
        }
    }

    /// The hash of the script that appends once per idempotency id.
    pub(super) fn add_once(&self) -> &str {
        &self.add_once.sha
    }

    /// The hash of the one that publishes a volatile event once.
    pub(super) fn publish_once(&self) -> &str {
        &self.publish_once.sha
    }

    /// The start of a command that runs only while a key has this value.
    pub(super) fn only_if(&self, key: &str, value: &str, command: &str) -> Cmd {
        let mut only_if = redis::cmd("EVALSHA");
        only_if.arg(&self.only_if.sha).arg(1).arg(key).arg(value).arg(command);
        only_if
    }

    /// Runs the commands unless it is later than the deadline, in ms of Redis' clock. Scripts that Redis has not cached are
    /// sent again in full, and entries that an exhausted stream did not take are added to the one that replaces it.
    pub(super) async fn run(
        &self,
        log: &RedisLog,
        connection: &mut RedisConnection,
        commands: Vec<Cmd>,
        deadline_ms: u64,
        replicas: Option<(u32, Duration)>,
    ) -> Result<Executed, RedisError> {
        let pipeline = self.guarded(commands, deadline_ms, replicas);
        let mut executed = send(connection, &pipeline, replicas.is_some()).await?;
        for _ in 0..MAX_REPEATS {
            if !executed.replies.iter().any(is_failed) {
                break;
            }
            if executed.replies.iter().any(is_exhausted) {
                renewal::renew(log, connection).await?;
            }
            let commands = pipeline.cmd_iter().skip(PREAMBLE).zip(&executed.replies);
            let again = commands.filter(|(_, answer)| is_failed(answer)).map(|(command, _)| self.in_full(command));
            let pipeline = self.guarded(again.collect(), deadline_ms, replicas);
            let second = send(connection, &pipeline, replicas.is_some()).await?;
            let mut replies = second.replies.into_iter();
            for answer in executed.replies.iter_mut().filter(|answer| is_failed(answer)) {
                *answer = replies.next().ok_or(RedisError::UnexpectedReply("a transaction"))?;
            }
            executed.replicas = second.replicas;
        }
        Ok(executed)
    }

    fn guarded(&self, commands: Vec<Cmd>, deadline_ms: u64, replicas: Option<(u32, Duration)>) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(commands.len() + PREAMBLE + 2);
        pipeline.cmd("SET").arg(&self.guard).arg(1).arg("PXAT").arg(deadline_ms);
        pipeline.cmd("WATCH").arg(&self.guard);
        pipeline.cmd("SET").arg(&self.guard).arg(1).arg("NX").arg("PX").arg(1);
        pipeline.cmd("MULTI");
        for command in commands {
            pipeline.add_command(command);
        }
        pipeline.cmd("EXEC");
        if let Some((count, timeout)) = replicas {
            pipeline.cmd("WAIT").arg(count).arg(timeout.as_millis().max(1) as u64);
        }
        pipeline
    }

    /// The `EVAL` in place of an `EVALSHA` that Redis does not know; any other command as it is.
    fn in_full(&self, command: &Cmd) -> Cmd {
        if command.args_iter().next() != Some(Arg::Simple(b"EVALSHA")) {
            return command.clone();
        }
        let mut full = redis::cmd("EVAL");
        for arg in command.args_iter().skip(1) {
            if let Arg::Simple(bytes) = arg {
                match [&self.add_once, &self.publish_once, &self.only_if]
                    .into_iter()
                    .find(|script| script.sha.as_bytes() == bytes)
                {
                    Some(script) => full.arg(script.text),
                    None => full.arg(bytes),
                };
            }
        }
        full
    }

    /// Checks that the user has the rights for the guard: without it, appends could run after their deadline.
    pub(super) async fn check_rights(
        &self,
        connection: &mut RedisConnection,
        clock: &RedisClock,
        timeout: Duration,
    ) -> Result<(), RedisError> {
        let deadline_ms = clock.redis_ms(Instant::now() + timeout);
        let pipeline = self.guarded(vec![redis::cmd("PING")], deadline_ms, None);
        let denied = |answer: &Value| match answer {
            Value::ServerError(error) if error.code() == "NOPERM" => Some(RedisError::from(error.clone())),
            _ => None,
        };
        let answers = connection.pipeline(&pipeline).await?;
        answers.iter().find_map(denied).map_or(Ok(()), Err)
    }
}

fn is_unknown_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// Whether a command is to be sent again.
fn is_failed(answer: &Value) -> bool {
    is_unknown_script(answer) || is_exhausted(answer)
}

/// Whether the stream has an entry with the largest id.
fn is_exhausted(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.details().is_some_and(is_exhausted_text))
}

/// Whether an error reply says so.
pub(super) fn is_exhausted_text(text: &str) -> bool {
    text.contains("exhausted the last possible ID")
}

/// The replies of a transaction.
pub(super) struct Executed {
    /// One for each command; nil after the deadline.
    pub replies: Vec<Value>,
    /// Replicas that have all of it; `None` where nobody waits for them.
    pub replicas: Option<u32>,
}

async fn send(connection: &mut RedisConnection, pipeline: &Pipeline, waits: bool) -> Result<Executed, RedisError> {
    let mut answers = connection.pipeline_raw(pipeline).await?;
    let replicas = waits.then(|| answers.pop()).flatten().map(|answer| match answer {
        Value::Int(replicas) => u32::try_from(replicas).unwrap_or(0),
        _ => 0,
    });
    let executed = answers.pop();
    let queued = answers.split_off(PREAMBLE.min(answers.len()));
    let replies = match executed {
        Some(Value::Array(replies)) if replies.len() == queued.len() => replies,
        Some(Value::Nil) => vec![Value::Nil; queued.len()],
        Some(Value::ServerError(aborted)) => queued.into_iter().map(|answer| reason(answer, &aborted)).collect(),
        _ => return Err(RedisError::UnexpectedReply("EXEC")),
    };
    Ok(Executed { replies, replicas })
}

/// Redis runs nothing of a transaction in which it refused a command. That command has an error of its own.
fn reason(queued: Value, aborted: &ServerError) -> Value {
    match queued {
        refused @ Value::ServerError(_) => refused,
        _ => Value::ServerError(aborted.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::partition::Line;

    #[test]
    fn scripts_that_are_not_cached_are_sent_in_full() {
        let keys = Keys::new("p", Line::CONTROL);
        let transactions = Transactions::new(&keys);
        let mut command = redis::cmd("EVALSHA");
        command.arg(transactions.add_once()).arg(2).arg("stream").arg("id");
        let full = transactions.in_full(&command);
        assert_eq!(full.args_iter().len(), command.args_iter().len());
        assert_eq!(full.args_iter().nth(1), Some(Arg::Simple(ADD_ONCE.as_bytes())));
    }
}
