//! Appending: callers on any thread write commands into a bounded queue; one task sends all that waits as one
//! pipeline at a time, which keeps the order and costs one round trip for many.

use super::connection::{Backoff, Link, LinkError, server_text};
use super::{RedisLog, entry, text, volatile};
use crate::draft::Draft;
use crate::event::{Offset, Position};
use crate::id::Id;
use crate::log::{AppendError, Appended, ID_LIFETIME, unix_us};
use crate::order::Order;
use redis::{Arg, Cmd, Pipeline, Value};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Bytes and commands that may wait; over it appends are answered [`AppendError::Overloaded`].
const QUEUE_BYTES: usize = 64 << 20;
const QUEUE_COMMANDS: usize = 200_000;
/// A pipeline takes no further call once it has this much.
const PIPELINE_BYTES: usize = 1 << 20;
const PIPELINE_COMMANDS: usize = 1000;
/// How often an idle connection is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(1);
/// What a command costs besides its drafts' texts.
const COMMAND_OVERHEAD: usize = 400;

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

/// The calls that wait to be sent.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    calls: VecDeque<Call>,
    bytes: usize,
    commands: usize,
}

/// One call of `append` or `probe`.
struct Call {
    commands: Vec<Cmd>,
    bytes: usize,
    deadline: Instant,
    answer: oneshot::Sender<Vec<Appended>>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call in; `None` where there is no room for it.
    fn push(&self, commands: Vec<Cmd>, bytes: usize, deadline: Instant) -> Option<oneshot::Receiver<Vec<Appended>>> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.lock();
        if !waiting.has_room(bytes, commands.len()) {
            waiting.drop_expired();
            if !waiting.has_room(bytes, commands.len()) {
                return None;
            }
        }
        waiting.bytes += bytes;
        waiting.commands += commands.len();
        waiting.calls.push_back(Call { commands, bytes, deadline, answer });
        drop(waiting);
        self.wake.notify_one();
        Some(answered)
    }

    /// The next calls for one pipeline, without those whose time is over: nobody waits for them any more, and
    /// what was answered "unavailable" must not be stored later.
    async fn next(&self) -> Vec<Call> {
        loop {
            let calls = self.lock().take();
            if !calls.is_empty() {
                return calls;
            }
            self.wake.notified().await;
        }
    }
}

impl Waiting {
    fn has_room(&self, bytes: usize, commands: usize) -> bool {
        self.calls.is_empty() || (self.bytes + bytes <= QUEUE_BYTES && self.commands + commands <= QUEUE_COMMANDS)
    }

    fn pop(&mut self) -> Option<Call> {
        let call = self.calls.pop_front()?;
        self.bytes -= call.bytes;
        self.commands -= call.commands.len();
        Some(call)
    }

    /// All calls have the same timeout, so the oldest expire first.
    fn drop_expired(&mut self) {
        let now = Instant::now();
        while self.calls.front().is_some_and(|call| call.deadline <= now) {
            self.pop();
        }
    }

    fn take(&mut self) -> Vec<Call> {
        self.drop_expired();
        let (mut calls, mut bytes, mut commands) = (Vec::new(), 0, 0);
        while bytes < PIPELINE_BYTES && commands < PIPELINE_COMMANDS {
            let Some(call) = self.pop() else { break };
            bytes += call.bytes;
            commands += call.commands.len();
            calls.push(call);
        }
        calls
    }
}

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
pub(super) async fn order(log: &RedisLog, order: &Order) -> Result<(), AppendError> {
    let mut command = redis::cmd("XADD");
    command.arg(&log.keys.events);
    trim(log, &mut command);
    command.arg("order").arg(serde_json::to_string(order).expect("names and lists are always JSON"));
    let answer = submit(log, vec![command], COMMAND_OVERHEAD + order.size()).await.pop();
    answer.unwrap_or(Err(AppendError::Overloaded)).map(drop)
}

async fn submit(log: &RedisLog, commands: Vec<Cmd>, bytes: usize) -> Vec<Appended> {
    let count = commands.len();
    let deadline = Instant::now() + log.timeout;
    let Some(answered) = log.queue.push(commands, bytes, deadline) else {
        return vec![Err(AppendError::Overloaded); count];
    };
    match tokio::time::timeout_at(deadline, answered).await {
        Ok(Ok(answers)) => answers,
        // Dropped unanswered: its time was over before it could be sent.
        Ok(Err(_)) | Err(_) => vec![Err(unavailable(&LinkError::Timeout(log.timeout))); count],
    }
}

fn unavailable(error: &LinkError) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

fn draft_bytes(draft: &Draft) -> usize {
    let rooms: usize = draft.rooms.iter().chain(&draft.except).map(|room| room.len() + 4).sum();
    draft.args.len() + draft.event.len() + rooms + COMMAND_OVERHEAD
}

fn command(log: &RedisLog, draft: &Draft, accepted_us: u64) -> Cmd {
    let lifetime = ID_LIFETIME.as_millis() as u64;
    let mut command;
    match (&draft.id, draft.volatile) {
        (None, false) => {
            command = redis::cmd("XADD");
            command.arg(&log.keys.events);
        }
        (Some(id), false) => {
            command = redis::cmd("EVALSHA");
            command.arg(&log.scripts.add_once.sha).arg(2).arg(&log.keys.events).arg(log.keys.id(id)).arg(lifetime);
        }
        (id, true) => {
            let message = volatile::encode(draft, accepted_us);
            let Some(id) = id else {
                command = redis::cmd("PUBLISH");
                command.arg(&log.keys.volatile).arg(message);
                return command;
            };
            command = redis::cmd("EVALSHA");
            command.arg(&log.scripts.publish_once.sha).arg(1).arg(log.keys.id(id));
            command.arg(lifetime).arg(&log.keys.volatile).arg(message);
            return command;
        }
    }
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

/// A script and the name under which Redis keeps it.
pub(super) struct Script {
    text: &'static str,
    sha: String,
}

/// The scripts of appends.
pub(super) struct Scripts {
    add_once: Script,
    publish_once: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        let script = |text| Script { text, sha: redis::Script::new(text).get_hash().to_owned() };
        Self { add_once: script(ADD_ONCE), publish_once: script(PUBLISH_ONCE) }
    }
}

impl Scripts {
    /// The `EVAL` in place of an `EVALSHA` that Redis does not know.
    fn in_full(&self, command: &Cmd) -> Cmd {
        let mut full = redis::cmd("EVAL");
        for arg in command.args_iter().skip(1) {
            if let Arg::Simple(bytes) = arg {
                match [&self.add_once, &self.publish_once].into_iter().find(|script| script.sha.as_bytes() == bytes) {
                    Some(script) => full.arg(script.text),
                    None => full.arg(bytes),
                };
            }
        }
        full
    }
}

/// Sends what waits until dropped; reconnects by itself.
pub(super) async fn run(log: &RedisLog) {
    let mut backoff = Backoff::default();
    loop {
        let Err(error) = connected(log, &mut backoff).await;
        log.note_appender(false);
        backoff.report("appending", &log.connector, &error);
        backoff.wait().await;
    }
}

async fn connected(log: &RedisLog, backoff: &mut Backoff) -> Result<Infallible, LinkError> {
    let mut link = Link::open(&log.connector, log.timeout).await?;
    let ping = redis::cmd("PING");
    link.call(&ping).await?;
    backoff.reset();
    log.note_appender(true);
    log.epoch_known().await;
    loop {
        match tokio::time::timeout(PING_EVERY, log.queue.next()).await {
            Ok(calls) => send(log, &mut link, calls).await?,
            Err(_) => drop(link.call(&ping).await?),
        }
    }
}

/// Sends the calls as one pipeline and answers each.
async fn send(log: &RedisLog, link: &mut Link, mut calls: Vec<Call>) -> Result<(), LinkError> {
    let mut pipeline = Pipeline::with_capacity(calls.iter().map(|call| call.commands.len()).sum());
    let counts: Vec<usize> = calls.iter().map(|call| call.commands.len()).collect();
    for command in calls.iter_mut().flat_map(|call| call.commands.drain(..)) {
        pipeline.add_command(command);
    }
    let answers = match exchange(log, link, &pipeline).await {
        Ok(answers) => answers,
        Err(error) => {
            for (call, count) in calls.into_iter().zip(counts) {
                let _ = call.answer.send(vec![Err(unavailable(&error)); count]);
            }
            return Err(error);
        }
    };
    let mut answers = answers.into_iter().map(|answer| read_answer(log, answer));
    for (call, count) in calls.into_iter().zip(counts) {
        // Nobody may be waiting any more.
        let _ = call.answer.send(answers.by_ref().take(count).collect());
    }
    Ok(())
}

/// One answer a command; scripts that Redis does not have (any more) are sent again in full.
async fn exchange(log: &RedisLog, link: &mut Link, pipeline: &Pipeline) -> Result<Vec<Value>, LinkError> {
    let mut answers = link.pipeline(pipeline).await?;
    if answers.len() != pipeline.len() {
        return Err(LinkError::Unexpected("a pipeline"));
    }
    let unknown = |answer: &Value| matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT");
    if answers.iter().any(unknown) {
        let mut again = Pipeline::new();
        for (command, _) in pipeline.cmd_iter().zip(&answers).filter(|(_, answer)| unknown(answer)) {
            again.add_command(log.scripts.in_full(command));
        }
        let mut second = link.pipeline(&again).await?.into_iter();
        for answer in answers.iter_mut().filter(|answer| unknown(answer)) {
            *answer = second.next().ok_or(LinkError::Unexpected("a pipeline"))?;
        }
    }
    Ok(answers)
}

/// `XADD` and its script answer with an id, publishing with a number.
fn read_answer(log: &RedisLog, answer: Value) -> Appended {
    match &answer {
        Value::Int(_) => Ok(None),
        Value::ServerError(error) => Err(refusal(error.code(), server_text(error))),
        value => match text(value) {
            // The id was first used by a volatile event.
            Some("-") => Ok(None),
            id => {
                let position = id.and_then(Position::parse);
                let position = position.ok_or_else(|| unavailable(&LinkError::Unexpected("XADD")))?;
                log.note_newest(position.ms);
                Ok(log.epoch().map(|epoch| Offset { epoch, position }))
            }
        },
    }
}

/// Error answers of a Redis that is on its way up, or about to hand over, pass by themselves.
fn refusal(code: &str, text: String) -> AppendError {
    match code {
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" => AppendError::Unavailable(text),
        _ => AppendError::Refused(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(queue: &Queue, commands: usize, bytes: usize, deadline: Instant) -> bool {
        queue.push(vec![redis::cmd("PING"); commands], bytes, deadline).is_some()
    }

    #[test]
    fn the_queue_is_bounded_and_forgets_the_expired() {
        let queue = Queue::default();
        let (past, future) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        assert!(call(&queue, 1, QUEUE_BYTES * 2, past), "one always fits");
        assert!(call(&queue, 1, QUEUE_BYTES - 1, future), "in place of the expired one");
        assert!(!call(&queue, 1, 2, future));
        assert!(call(&queue, 1, 1, future));
        assert_eq!(queue.lock().take().len(), 1, "a pipeline ends with the call that fills it");
        assert_eq!(queue.lock().take().len(), 1);
        assert!(call(&queue, 1, 1, past));
        assert!(queue.lock().take().is_empty());
        let left = queue.lock();
        assert_eq!((left.bytes, left.commands), (0, 0));
        drop(left);
        assert!(call(&queue, QUEUE_COMMANDS, 0, future));
        assert!(!call(&queue, 1, 0, future));
    }

    #[test]
    fn unknown_scripts_are_sent_in_full() {
        let scripts = Scripts::default();
        let mut command = redis::cmd("EVALSHA");
        command.arg(&scripts.add_once.sha).arg(2).arg("k");
        let full = scripts.in_full(&command);
        assert_eq!(full.args_iter().len(), 4);
        assert_eq!(full.args_iter().nth(1), Some(Arg::Simple(ADD_ONCE.as_bytes())));
    }

    #[test]
    fn passing_troubles_are_told_from_refusals() {
        assert!(matches!(refusal("LOADING", String::new()), AppendError::Unavailable(_)));
        for code in ["OOM", "READONLY", "NOPERM", "WRONGTYPE", "MISCONF", "ERR"] {
            assert!(matches!(refusal(code, String::new()), AppendError::Refused(_)));
        }
    }
}
