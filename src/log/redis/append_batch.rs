//! All that waits as one transaction, which Redis leaves alone when it comes too late: a request may lie in the
//! socket of a Redis that hangs, and its publisher was long told that the log is not reachable when Redis goes on.
//!
//! A key that lives until the deadline is set, watched, and set again where it does not exist: then the transaction
//! does not run. That costs Redis less than a script around each event would: 0.5 µs instead of 3.

use crate::log::redis::Keys;
use crate::model::id::Id;
use crate::redis::clock::RedisClock;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::script::Script;
use redis::{Arg, Cmd, Pipeline, ServerError, Value};
use std::time::Duration;
use tokio::time::Instant;

/// Appends once per idempotency id: KEYS stream, id key; ARGV id lifetime in ms, then all after the stream of `XADD`.
const ADD_ONCE: &str = "local first = redis.call('GET', KEYS[2])
if first then return first end
local id = redis.call('XADD', KEYS[1], unpack(ARGV, 2))
redis.call('SET', KEYS[2], id, 'PX', ARGV[1])
return id";

/// The same for a volatile event: KEYS id key; ARGV id lifetime in ms, channel, message.
const PUBLISH_ONCE: &str = "if redis.call('SET', KEYS[1], '-', 'NX', 'PX', ARGV[1]) then
redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return 0";

/// Does a command only while a key has a value: KEYS the key; ARGV the value, then the command.
const ONLY_IF: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then
return redis.error_reply('FENCED another node holds the lease') end
return redis.call(unpack(ARGV, 2))";

/// Commands before those of the calls: the three of the guard, and `MULTI`.
const BEFORE: usize = 4;

/// What all requests of this process share.
pub(super) struct Requests {
    add_once: Script,
    publish_once: Script,
    only_if: Script,
    /// The key that lives until a deadline; of this process alone.
    guard: String,
}

impl Requests {
    /// With a guard of their own.
    pub(super) fn new(keys: &Keys) -> Self {
        let guard = format!("{}:deadline:{}", keys.beside, Id::random());
        Self {
            add_once: Script::new(ADD_ONCE),
            publish_once: Script::new(PUBLISH_ONCE),
            only_if: Script::new(ONLY_IF),
            guard,
        }
    }

    /// Appends, or publishes, once in the life of an idempotency id; to be completed with the rest of the command.
    pub(super) fn once(&self, keys: &Keys, id: &str, lifetime: Duration, volatile: bool) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        match volatile {
            true => command.arg(&self.publish_once.sha).arg(1).arg(keys.id(id)),
            false => command.arg(&self.add_once.sha).arg(2).arg(&keys.events).arg(keys.id(id)),
        };
        command.arg(lifetime.as_millis() as u64);
        if volatile {
            command.arg(&keys.volatile);
        }
        command
    }

    /// Does a command only while a key has this value; to be completed with the rest of the command.
    pub(super) fn only_if(&self, key: &str, value: &str, command: &str) -> Cmd {
        let mut only_if = redis::cmd("EVALSHA");
        only_if.arg(&self.only_if.sha).arg(1).arg(key).arg(value).arg(command);
        only_if
    }

    /// Runs the commands unless it is later than the deadline, in ms of Redis' clock. Scripts that Redis does not have
    /// (any more) are sent again in full.
    pub(super) async fn run(
        &self,
        connection: &mut RedisConnection,
        commands: Vec<Cmd>,
        deadline_ms: u64,
        replicas: Option<(u32, Duration)>,
    ) -> Result<Done, RedisError> {
        let pipeline = self.guarded(commands, deadline_ms, replicas);
        let mut done = exchange(connection, &pipeline, replicas.is_some()).await?;
        let unknown = |answer: &Value| matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT");
        if done.entries.iter().any(unknown) {
            let commands = pipeline.cmd_iter().skip(BEFORE).zip(&done.entries);
            let again = commands.filter(|(_, answer)| unknown(answer)).map(|(command, _)| self.in_full(command));
            let pipeline = self.guarded(again.collect(), deadline_ms, replicas);
            let second = exchange(connection, &pipeline, replicas.is_some()).await?;
            let mut answers = second.entries.into_iter();
            for answer in done.entries.iter_mut().filter(|answer| unknown(answer)) {
                *answer = answers.next().ok_or(RedisError::UnexpectedReply("a transaction"))?;
            }
            done.replicas = second.replicas;
        }
        Ok(done)
    }

    fn guarded(&self, commands: Vec<Cmd>, deadline_ms: u64, replicas: Option<(u32, Duration)>) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(commands.len() + BEFORE + 2);
        pipeline.cmd("SET").arg(&self.guard).arg(1).arg("PXAT").arg(deadline_ms);
        pipeline.cmd("WATCH").arg(&self.guard);
        pipeline.cmd("SET").arg(&self.guard).arg(1).arg("NX").arg("PX").arg(1);
        pipeline.cmd("MULTI");
        for command in commands {
            pipeline.add_command(command);
        }
        pipeline.cmd("EXEC");
        if let Some((count, patience)) = replicas {
            pipeline.cmd("WAIT").arg(count).arg(patience.as_millis().max(1) as u64);
        }
        pipeline
    }

    /// The `EVAL` in place of an `EVALSHA` that Redis does not know.
    fn in_full(&self, command: &Cmd) -> Cmd {
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

    /// Makes sure that nothing would be done without its guard: the user may lack the rights for it.
    pub(super) async fn try_guard(
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

/// What a transaction brought.
pub(super) struct Done {
    /// One a command; nil where it came too late.
    pub entries: Vec<Value>,
    /// Replicas that have all of it; `None` where they are not waited for.
    pub replicas: Option<u32>,
}

async fn exchange(connection: &mut RedisConnection, pipeline: &Pipeline, waits: bool) -> Result<Done, RedisError> {
    let mut answers = connection.pipeline_raw(pipeline).await?;
    let replicas = waits.then(|| answers.pop()).flatten().map(|answer| match answer {
        Value::Int(replicas) => u32::try_from(replicas).unwrap_or(0),
        _ => 0,
    });
    let executed = answers.pop();
    let queued = answers.split_off(BEFORE.min(answers.len()));
    let entries = match executed {
        Some(Value::Array(entries)) if entries.len() == queued.len() => entries,
        Some(Value::Nil) => vec![Value::Nil; queued.len()],
        Some(Value::ServerError(aborted)) => queued.into_iter().map(|answer| reason(answer, &aborted)).collect(),
        _ => return Err(RedisError::UnexpectedReply("EXEC")),
    };
    Ok(Done { entries, replicas })
}

/// Nothing of a transaction was done, because some of it was refused: what was, has its own reason.
fn reason(queued: Value, aborted: &ServerError) -> Value {
    match queued {
        refused @ Value::ServerError(_) => refused,
        _ => Value::ServerError(aborted.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_scripts_are_sent_in_full() {
        let keys = Keys::new("p");
        let requests = Requests::new(&keys);
        let command = requests.once(&keys, "x", Duration::from_secs(1), false);
        let full = requests.in_full(&command);
        assert_eq!(full.args_iter().len(), command.args_iter().len());
        assert_eq!(full.args_iter().nth(1), Some(Arg::Simple(ADD_ONCE.as_bytes())));
    }
}
