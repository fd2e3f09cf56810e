//! Appending on the thread of a shard, over a connection of its own: no other thread takes part in a publish.
//!
//! A caller writes its commands, as they will be sent, into the buffer of its shard's appender and wakes that. The appender
//! sends at once what all callers of this turn of the runtime have written, also while replies to earlier commands are on
//! their way. Each entry has a deadline ([`crate::log::redis::deadline`]), so that no transaction is needed.
//!
//! It connects to the server that the control thread's connection has found and checks ([`RedisLog::server`]). What it does
//! not do itself ([`Answered::repeat`]) goes over that connection.

mod appenders;
mod connection;

pub use appenders::of_a_partition;
pub(super) use appenders::{Appenders, note_shard};

use crate::log::redis::add_command::{self, Times, draft_bytes};
use crate::log::redis::append_error::unavailable;
use crate::log::redis::backlog::Backlog;
use crate::log::redis::deadline::{TENTHS_TO_RUN, TENTHS_TO_SEND};
use crate::log::redis::{RedisLog, trim_before_ms};
use crate::log::{AppendError, Appended};
use crate::model::draft::Draft;
use crate::redis::clock::RedisClock;
use crate::redis::command::CommandWriter;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use crate::redis::url::Address;
use connection::Connection;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Before a connection that broke is made again; more where that fails.
const PAUSE: Duration = Duration::from_millis(20);
/// Milliseconds between two appends of one appender that trim.
const TRIM_INTERVAL_MS: u64 = 100;

/// What one shard, or several, append with.
#[derive(Default)]
pub(super) struct ShardAppender {
    state: Mutex<State>,
    /// Whether [`run`] runs.
    is_running: AtomicBool,
    is_up: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Redis' clock, while there is a connection.
    clock: Option<RedisClock>,
    /// The commands of those that wait.
    commands: Vec<u8>,
    waiting: VecDeque<PendingAppend>,
    /// Of the appender's task.
    waker: Option<Waker>,
    /// When an append of this appender last trimmed, by Redis' clock.
    trimmed_ms: u64,
}

/// The commands of one caller.
struct PendingAppend {
    /// Bytes in [`State::commands`].
    bytes: usize,
    /// Bytes in the backlog.
    counted: usize,
    commands: usize,
    /// After this it is not sent.
    send_before: Instant,
    /// After this it has no answer.
    deadline: Instant,
    until_ms: u64,
    answered: Answered,
    reply: oneshot::Sender<Answered>,
}

impl PendingAppend {
    fn finish(mut self, backlog: &Backlog, rest: impl Fn() -> Appended) {
        self.answered.appended.resize_with(self.commands, rest);
        backlog.remove(self.counted, self.commands);
        // The caller may be gone.
        let _ = self.reply.send(self.answered);
    }
}

/// Results of an append, one for each draft.
#[derive(Default)]
pub(super) struct Answered {
    pub appended: Vec<Appended>,
    /// Drafts that are not in the log but may be added over the control thread's connection, in order: their script is not
    /// cached, the stream has the largest id, or its ids are ahead of Redis' clock so that the entry is void, or the server
    /// does not serve the stream any more.
    pub repeat: Vec<usize>,
}

/// What became of an append.
pub(super) enum Pushed {
    /// It is sent; the answer comes, at the latest, at the end of `redis.timeout`.
    Sent(oneshot::Receiver<Answered>),
    /// This thread has no appender that can take it.
    NotHere,
    /// Too much waits.
    Full,
}

/// Appends over the connection of this thread's shard.
pub(super) fn push(log: &RedisLog, drafts: &[Draft], after: Option<&str>, now: Instant) -> Pushed {
    let Some(appender) = appender_here(log) else { return Pushed::NotHere };
    let mut state = appender.state.lock();
    let Some(clock) = state.clock else { return Pushed::NotHere };
    let until_ms = clock.redis_ms(now + log.timeout / 10 * TENTHS_TO_RUN);
    if log.newest_ms() > until_ms {
        // The ids are ahead of the clock: an entry would be void.
        return Pushed::NotHere;
    }
    let counted = drafts.iter().map(|draft| draft_bytes(draft) + after.map_or(0, str::len)).sum();
    if !log.backlog.try_add(counted, drafts.len()) {
        return Pushed::Full;
    }
    let accepted_us = clock.redis_us(now);
    let mut times = Times { accepted_us, until_ms: Some(until_ms), trim_before_ms: 0, after };
    if accepted_us / 1000 >= state.trimmed_ms + TRIM_INTERVAL_MS {
        state.trimmed_ms = accepted_us / 1000;
        times.trim_before_ms = trim_before_ms(log);
    }
    let start = state.commands.len();
    for draft in drafts {
        let mut command = CommandWriter::new(&mut state.commands);
        add_command::write(log, draft, times, &mut command);
        command.finish();
        times.trim_before_ms = 0;
    }
    let (reply, answered) = oneshot::channel();
    let append = PendingAppend {
        bytes: state.commands.len() - start,
        counted,
        commands: drafts.len(),
        send_before: now + log.timeout / 10 * TENTHS_TO_SEND,
        deadline: now + log.timeout,
        until_ms,
        answered: Answered { appended: Vec::with_capacity(drafts.len()), repeat: Vec::new() },
        reply,
    };
    state.waiting.push_back(append);
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
    Pushed::Sent(answered)
}

/// The appender for callers on this thread, if there is one.
fn appender_here(log: &RedisLog) -> Option<&ShardAppender> {
    if log.min_replicas > 0 {
        // Each batch waits for the replicas; the control thread's connection does that.
        return None;
    }
    log.appenders.here()
}

impl ShardAppender {
    /// Whether it can append, or is not meant to.
    pub(super) fn is_fine(&self) -> bool {
        self.is_up.load(Ordering::Relaxed) || !self.is_running.load(Ordering::Relaxed)
    }
}

/// Runs an appender until dropped. Reconnects by itself.
pub(super) async fn run(log: &RedisLog, index: usize) {
    let Some(appender) = log.appenders.get(index).filter(|_| log.min_replicas == 0) else { return };
    let _running = Running::start(appender);
    let mut reconnect = Reconnect::default();
    loop {
        match connect(log, appender, index).await {
            Ok((connection, address)) => {
                reconnect.reset();
                let error = append_over(log, appender, connection, &address).await;
                // The control thread's connection says more where Redis is gone.
                tracing::debug!(%error, shard = index, "the connection that appends is closed");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => reconnect.wait("appending on a shard", &log.connector, &error).await,
        }
    }
}

/// Connects to the server that the control thread's connection has found.
async fn connect<'a>(
    log: &'a RedisLog,
    appender: &'a ShardAppender,
    index: usize,
) -> Result<(Connection<'a>, Address), RedisError> {
    let mut server = log.server.subscribe();
    // The sender lives as long as the log.
    let known = server.wait_for(Option::is_some).await.map(|address| address.clone());
    let Ok(Some(address)) = known else { return Err(RedisError::Disconnected("no server is known".to_owned())) };
    let connection = Connection::open(log, appender, index + 1, &address).await?;
    log.epoch_known().await;
    Ok((connection, address))
}

/// Appends until the connection breaks, or there is another server.
async fn append_over(
    log: &RedisLog,
    appender: &ShardAppender,
    mut connection: Connection<'_>,
    address: &Address,
) -> RedisError {
    let mut server = log.server.subscribe();
    connection.begin();
    appender.is_up.store(true, Ordering::Relaxed);
    log.note_up();
    let error = tokio::select! {
        biased;
        error = connection.run() => error,
        _ = server.wait_for(|now| now.as_ref().is_some_and(|now| now != address)) => {
            RedisError::NotServing(format!("{address} is no longer the master"))
        }
    };
    appender.is_up.store(false, Ordering::Relaxed);
    log.note_up();
    connection.fail(error)
}

struct Running<'a>(&'a ShardAppender);

impl<'a> Running<'a> {
    fn start(appender: &'a ShardAppender) -> Self {
        appender.is_running.store(true, Ordering::Relaxed);
        Self(appender)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::Relaxed);
        self.0.is_up.store(false, Ordering::Relaxed);
    }
}

/// The control thread has read Redis' clock, as it does once a second. An appender that had nothing to do would know an old one,
/// and clocks of two machines drift apart.
pub(super) fn note_clock(log: &RedisLog, clock: RedisClock) {
    for appender in log.appenders.iter() {
        if let Some(known) = &mut appender.state.lock().clock {
            *known = clock;
        }
    }
}

/// The answer to what was not sent in time, or had none.
fn timed_out(log: &RedisLog) -> AppendError {
    unavailable(&RedisError::Timeout(log.timeout))
}

#[cfg(test)]
mod tests;
