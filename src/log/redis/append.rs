//! Appending. What the shards append goes over their own connections ([`crate::log::redis::shard_append`]). Everything else
//! goes over one connection of the control thread: callers on any thread put commands into a bounded queue, and one task
//! sends all that wait as one transaction at a time, which keeps their order and needs one round trip for many.

use crate::log::redis::acknowledged::CONTROL;
use crate::log::redis::add_command::{COMMAND_OVERHEAD, Times, draft_bytes};
use crate::log::redis::append_error::{refusal_of, timed_out, unavailable};
use crate::log::redis::append_queue::QueuedAppend;
use crate::log::redis::deadline::{TENTHS_TO_RUN, TENTHS_TO_SEND};
use crate::log::redis::shard_append::{Answered, Pushed};
use crate::log::redis::{RedisLog, add_command, entry, renewal, shard_append, transaction, trim_before_ms};
use crate::log::{Accepted, AppendError, Appended};
use crate::model::command::SessionCommand;
use crate::model::draft::Draft;
use crate::model::id::Id;
use crate::model::offset::{Offset, Position};
use crate::redis::clock::RedisClock;
use crate::redis::connection::{RedisConnection, find_not_serving};
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use crate::redis::reply::text;
use redis::{Cmd, Value};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;

/// How often the connection is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Replicas have this fraction of `redis.timeout`. Appends that wait meanwhile have the rest.
const REPLICA_FRACTION: u32 = 3;
/// Appends drafts and waits for their results, at most for `redis.timeout`: over the connection of this thread's shard, or
/// else over the control thread's. They come after what `after` names on other lines.
pub(super) async fn append(log: &RedisLog, drafts: Vec<Draft>, after: Option<&str>) -> Vec<Appended> {
    if drafts.is_empty() {
        return Vec::new();
    }
    let started = Instant::now();
    let answered = match shard_append::push(log, &drafts, after, started) {
        Pushed::Sent(answered) => answered.await,
        Pushed::NotHere => return append_all(log, drafts.iter(), after, started).await,
        Pushed::Full => return vec![Err(AppendError::Overloaded); drafts.len()],
    };
    let Ok(Answered { mut appended, repeat }) = answered else {
        return vec![Err(unavailable(&RedisError::Disconnected("the node is stopping".to_owned()))); drafts.len()];
    };
    if !repeat.is_empty() {
        let again = append_all(log, repeat.iter().filter_map(|at| drafts.get(*at)), after, started).await;
        for (at, result) in repeat.into_iter().zip(again) {
            if let Some(appended) = appended.get_mut(at) {
                *appended = result;
            }
        }
    }
    appended
}

/// Appends over the control thread's connection.
async fn append_all(
    log: &RedisLog,
    drafts: impl Iterator<Item = &Draft>,
    after: Option<&str>,
    started: Instant,
) -> Vec<Appended> {
    let (mut commands, mut bytes) = (Vec::new(), 0);
    let times = Times {
        accepted_us: log.clock_offset.redis_now_us(),
        // The transaction has a deadline.
        until_ms: None,
        trim_before_ms: trim_before_ms(log),
        after,
    };
    for draft in drafts {
        let mut command = Cmd::new();
        add_command::write(log, draft, times, &mut command);
        commands.push(command);
        bytes += draft_bytes(draft) + after.map_or(0, str::len);
    }
    submit(log, commands, bytes, started).await
}

/// Queues a probe and waits for its result.
pub(super) async fn probe(log: &RedisLog, id: Id) -> Result<(), AppendError> {
    let answer = submit(log, vec![probe_entry(log, id)], COMMAND_OVERHEAD, Instant::now()).await.pop();
    answer.unwrap_or(Err(AppendError::Overloaded)).map(drop)
}

fn probe_entry(log: &RedisLog, id: Id) -> Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(&log.keys.events);
    add_command::write_trim(trim_before_ms(log), &mut command);
    command.arg("probe").arg(id.to_string());
    command
}

/// Queues a session command and waits for its result.
pub(super) async fn append_command(
    log: &RedisLog,
    command: &SessionCommand,
    after: Option<&str>,
) -> Result<Accepted, AppendError> {
    let bytes = COMMAND_OVERHEAD + command.size();
    let mut entry = command_entry(log, command, redis::cmd("XADD"));
    entry::encode_after(after, &mut entry);
    submit(log, vec![entry], bytes, Instant::now()).await.pop().unwrap_or(Err(AppendError::Overloaded))
}

/// The `XADD` of a session command; its name, and what is before it, is written already.
pub(super) fn command_entry(log: &RedisLog, session_command: &SessionCommand, mut command: Cmd) -> Cmd {
    command.arg(&log.keys.events);
    add_command::write_trim(trim_before_ms(log), &mut command);
    command.arg("order").arg(serde_json::to_string(session_command).expect("names and lists are always JSON"));
    command
}

/// Queues commands of about `bytes` for the control thread, and waits for their results until `redis.timeout` after the
/// start.
pub(super) async fn submit(log: &RedisLog, commands: Vec<Cmd>, bytes: usize, started: Instant) -> Vec<Appended> {
    let count = commands.len();
    let deadline = started + log.timeout;
    let Some(answered) = log.queue.push(commands, bytes, started + log.timeout / 10 * TENTHS_TO_SEND) else {
        return vec![Err(AppendError::Overloaded); count];
    };
    match tokio::time::timeout_at(deadline, answered).await {
        Ok(Ok(answers)) => answers,
        // It was dropped: its time was over before it could be sent.
        Ok(Err(_)) | Err(_) => vec![Err(timed_out(log.timeout)); count],
    }
}

/// Sends what waits, until dropped. Reconnects by itself.
pub(super) async fn run(log: &RedisLog) {
    let mut reconnect = Reconnect::among(log.lines.repeats.clone());
    loop {
        let Err(error) = connected(log, &mut reconnect).await;
        log.server.send_replace(None);
        log.note_failure(&log.appender, &error);
        log.acknowledged.disconnected(CONTROL);
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
    log.server.send_replace(Some(connection.address().clone()));
    log.epoch_known().await;
    loop {
        let next_check = Instant::now() + CHECK_INTERVAL;
        connection.check().await?;
        clock = RedisClock::read(&mut connection).await?;
        log.clock_offset.note(&clock);
        shard_append::note_clock(log, clock);
        if log.refused_appends.is_suspected() {
            try_append(log, &mut connection, &clock).await?;
        }
        while let Some(appends) = next(log, next_check).await {
            send(log, &mut connection, &clock, appends).await?;
        }
    }
}

/// What waits to be appended, or `None` where the connection is to be checked first.
async fn next(log: &RedisLog, next_check: Instant) -> Option<Vec<QueuedAppend>> {
    tokio::select! {
        biased;
        () = log.tail_broke.notified() => None,
        appends = log.queue.next() => Some(appends),
        () = tokio::time::sleep_until(next_check) => None,
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
            let refusal = refusal_of(&RedisError::from(error.clone()));
            if matches!(refusal, AppendError::Refused(_)) {
                log.refused_appends.suspect();
            }
            Err(refusal)
        }
        Value::Nil => Err(timed_out(log.timeout)),
        value => match text(value).map(transaction::first_use) {
            // The idempotency id was first used by a volatile event.
            Some(("-", _)) => Ok(Accepted::volatile()),
            id => {
                let is_repeat = id.is_some_and(|(_, is_repeat)| is_repeat);
                let position = id.and_then(|(id, _)| Position::parse(id));
                let position = position.ok_or_else(|| unavailable(&RedisError::UnexpectedReply("XADD")))?;
                // A position of a stream that is about to be renewed is not looked for in the next one.
                let is_lasting = !renewal::is_due(log, position);
                log.note_newest(position.ms);
                if let Some(have) = replicas.filter(|have| *have < log.min_replicas) {
                    return Err(AppendError::NotReplicated { have, wanted: log.min_replicas });
                }
                if is_lasting {
                    log.acknowledged.note(CONTROL, position);
                }
                let offset = log.epoch().map(|epoch| Offset { epoch, position, line: log.line });
                Ok(Accepted { offset, replicas, is_repeat })
            }
        },
    }
}
