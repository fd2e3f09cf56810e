//! Appending on the thread of a shard, over a connection of its own: no other thread takes part in a publish.
//!
//! A caller writes its commands, as they will be sent, into the buffer of its shard's appender and wakes that. The appender
//! sends at once what all callers of this turn of the runtime have written, also while replies to earlier commands are on
//! their way. Each entry has a deadline ([`crate::log::redis::deadline`]), so that no transaction is needed.
//!
//! It connects to the server that the control thread's connection has found and checks ([`RedisLog::server`]). What it does
//! not do itself ([`Answered::repeat`]) goes over that connection.

mod appender;
mod connection;
mod line_appenders;
mod output;
mod pending;
mod round;
mod unanswered;

pub(super) use appender::Pushed;
pub use line_appenders::partition_appenders;
pub(super) use line_appenders::{LineAppenders, note_shard};
pub(super) use pending::Answered;

use crate::log::redis::RedisLog;
use crate::model::draft::Draft;
use crate::redis::clock::RedisClock;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use crate::redis::url::Address;
use appender::ShardAppender;
use connection::Connection;
use std::time::Duration;
use tokio::time::Instant;

/// Before a connection that broke is made again; more where that fails.
const PAUSE: Duration = Duration::from_millis(20);

/// Appends over the connection of this thread's shard.
pub(super) fn push(log: &RedisLog, drafts: &[Draft], after: Option<&str>, now: Instant) -> Pushed {
    appender_here(log).map_or(Pushed::NotHere, |appender| appender.push(log, drafts, after, now))
}

/// The appender for callers on this thread, if there is one.
fn appender_here(log: &RedisLog) -> Option<&ShardAppender> {
    // With replicas to wait for, the control thread's connection appends whole batches.
    if log.min_replicas > 0 { None } else { log.appenders.here() }
}

/// Runs an appender until dropped. Reconnects by itself.
pub(super) async fn run(log: &RedisLog, index: usize) {
    let Some(appender) = log.appenders.get(index).filter(|_| log.min_replicas == 0) else { return };
    let _running = appender.running();
    let mut reconnect = Reconnect::among(log.lines.repeats.clone());
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
    appender.note_up(true, log);
    let error = tokio::select! {
        biased;
        error = connection.run() => error,
        _ = server.wait_for(|now| now.as_ref().is_some_and(|now| now != address)) => {
            RedisError::NotServing(format!("{address} is no longer the master"))
        }
    };
    appender.note_up(false, log);
    connection.fail(error)
}

/// The control thread has read Redis' clock, as it does once a second. An appender that had nothing to do would know an old one,
/// and clocks of two machines drift apart.
pub(super) fn note_clock(log: &RedisLog, clock: RedisClock) {
    for appender in log.appenders.iter() {
        appender.lock().note_clock(clock);
    }
}

#[cfg(test)]
mod tests;
