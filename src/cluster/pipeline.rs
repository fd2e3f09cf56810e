//! This node's connection to the cluster's data in Redis: sends heartbeats, and everything that waits as one pipeline at
//! a time.

use crate::cluster::jobs::{Job, JobBatch, PendingWrite, Queue, Sent};
use crate::cluster::membership;
use crate::cluster::rpc::RpcHandler;
use crate::cluster::session_store;
use crate::cluster::session_store::{Found, Owner, RecordChange, RecordCommand};
use crate::cluster::shared::Shared;
use crate::model::clock::unix_ms;
use crate::model::close::DropReason;
use crate::model::id::Id;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use redis::{Cmd, Pipeline, Value};
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Records that could not all be written again are tried again after this.
const REWRITE_INTERVAL: Duration = Duration::from_secs(10);

/// Sends heartbeats and batches, until dropped. Reconnects by itself.
pub(super) async fn run(shared: &Shared, handler: &dyn RpcHandler) {
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = connected(shared, handler, &mut reconnect).await;
        reconnect.wait("sending to other nodes", &shared.connector, &error).await;
    }
}

async fn connected(
    shared: &Shared,
    handler: &dyn RpcHandler,
    reconnect: &mut Reconnect,
) -> Result<Infallible, RedisError> {
    let mut connection = RedisConnection::open(&shared.connector, shared.timeout).await?;
    let mut last_rewrite = None;
    heartbeat(shared, handler, &mut connection, &mut last_rewrite).await?;
    reconnect.reset();
    let mut last_heartbeat = Instant::now();
    loop {
        if last_heartbeat.elapsed() >= membership::HEARTBEAT_INTERVAL {
            connection.check().await?;
            heartbeat(shared, handler, &mut connection, &mut last_rewrite).await?;
            last_heartbeat = Instant::now();
        }
        let next_heartbeat = last_heartbeat + membership::HEARTBEAT_INTERVAL;
        if let Ok(batch) = tokio::time::timeout_at(next_heartbeat, shared.queue.next()).await {
            send_batch(shared, handler, &mut connection, batch).await?;
            // A caller that got its reply may have its next job ready, which then goes with what waits already.
            tokio::task::yield_now().await;
        }
    }
}

/// Sends a heartbeat, and has all records written again where Redis may not have them. `last_rewrite` is when that last
/// began on this connection.
async fn heartbeat(
    shared: &Shared,
    handler: &dyn RpcHandler,
    connection: &mut RedisConnection,
    last_rewrite: &mut Option<Instant>,
) -> Result<(), RedisError> {
    let mut answered = connection.call(&heartbeat_command(shared)).await;
    if let Err(RedisError::Reply(error)) = &answered
        && error.contains("WRONGTYPE")
    {
        let removed = connection.call(&membership::repair(&shared.keys, shared.me)).await.ok();
        tracing::error!(
            error,
            ?removed,
            "keys of the cluster in Redis had another type: they are removed and made anew"
        );
        answered = connection.call(&heartbeat_command(shared)).await;
    }
    let reply = match answered {
        Ok(reply) => reply,
        // The last known membership stays.
        Err(RedisError::Reply(error)) => {
            tracing::warn!(error, "Redis refused this node's heartbeat: others may count it as dead");
            let mut refused = shared.refused_heartbeats.lock();
            let since = refused.take().map_or_else(Instant::now, |(since, _)| since);
            *refused = Some((since, error));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    *shared.refused_heartbeats.lock() = None;
    let records_are_current = apply_heartbeat(shared, handler, &reply)?;
    if last_rewrite.is_some_and(|began| began.elapsed() < REWRITE_INTERVAL) {
        return Ok(());
    }
    let overflowed = shared.queue.take_overflow();
    if records_are_current && !overflowed {
        return Ok(());
    }
    // Redis may have old records of this node, and may not know that others took some of its sessions over.
    *last_rewrite = Some(Instant::now());
    match connection.call(&session_store::remove_all(&shared.keys, shared.me)).await {
        Ok(_) | Err(RedisError::Reply(_)) => {}
        Err(error) => return Err(error),
    }
    let round = shared.rewrite_round.fetch_add(1, Ordering::Relaxed) + 1;
    handler.on_rejoined();
    handler.on_rewrite_records(round);
    Ok(())
}

fn heartbeat_command(shared: &Shared) -> Cmd {
    membership::heartbeat(&shared.keys, shared.me, shared.record_lifetime, shared.key_lifetime, &shared.features)
}

/// Takes over what a heartbeat returned; whether this node's records in Redis are current.
fn apply_heartbeat(shared: &Shared, handler: &dyn RpcHandler, reply: &Value) -> Result<bool, RedisError> {
    let heartbeat = membership::read_heartbeat(reply).ok_or(RedisError::UnexpectedReply("a heartbeat"))?;
    shared.calls.set_keys(heartbeat.keys, heartbeat.redis_ms);
    shared.id_keys.write().set(&heartbeat.id_key);
    shared.with_lanes(|lanes| lanes.retain(|node| heartbeat.live.contains(&node)));
    shared.membership.lock().update(heartbeat.live, heartbeat.legacy, unix_ms());
    let had_joined = shared.has_joined.swap(true, Ordering::Relaxed);
    if had_joined && heartbeat.was_late {
        tracing::warn!("this node missed its heartbeats: other nodes may have taken over some of its sessions");
        handler.on_rejoined();
    }
    Ok(heartbeat.records_are_current)
}

/// What a reply of a pipeline is for.
enum ReplyTo {
    RecordsWritten(Vec<Id>),
    RecordsRemoved(Vec<Id>),
    MarkedCurrent,
    Left,
    Publish(oneshot::Sender<Sent>),
    Find(Vec<oneshot::Sender<Found>>),
    Heartbeat(Vec<oneshot::Sender<()>>),
    Command(oneshot::Sender<Result<Value, String>>),
}

/// The commands of a batch, and what their replies are for.
#[derive(Default)]
struct Commands {
    pipeline: Pipeline,
    replies: Vec<ReplyTo>,
    writes: Vec<PendingWrite>,
}

impl Commands {
    fn add(&mut self, command: Cmd, reply: ReplyTo) {
        self.pipeline.add_command(command);
        self.replies.push(reply);
    }

    fn of(shared: &Shared, jobs: Vec<Job>, changes: &[(Id, RecordChange)]) -> Self {
        let mut commands = Self::default();
        let (mut finds, mut heartbeats) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Publish { channel, message, reply } => {
                    let mut publish = redis::cmd("PUBLISH");
                    publish.arg(channel).arg(message);
                    commands.add(publish, ReplyTo::Publish(reply));
                }
                Job::Find { owner, pid, reply } => finds.push((owner, pid, reply)),
                Job::Heartbeat { reply } => heartbeats.push(reply),
                Job::Command { command, reply } => commands.add(command, ReplyTo::Command(reply)),
                Job::WriteRecord(write) => commands.writes.push(write),
            }
        }
        for RecordCommand { command, writes, pids } in session_store::write(&shared.keys, shared.me, changes) {
            commands.add(command, if writes { ReplyTo::RecordsWritten(pids) } else { ReplyTo::RecordsRemoved(pids) });
        }
        commands.add_finds(shared, finds);
        if !heartbeats.is_empty() {
            commands.add(heartbeat_command(shared), ReplyTo::Heartbeat(heartbeats));
        }
        commands
    }

    /// One script looks for many sessions.
    fn add_finds(&mut self, shared: &Shared, mut finds: Vec<(Owner, Id, oneshot::Sender<Found>)>) {
        let suspects = shared.membership.lock().suspects();
        while !finds.is_empty() {
            let rest = finds.split_off(finds.len().min(session_store::MAX_FIND));
            let sessions = finds.iter().map(|(owner, pid, _)| (owner, *pid));
            let find = session_store::find(&shared.keys, shared.me, &suspects, sessions);
            self.add(find, ReplyTo::Find(finds.into_iter().map(|(_, _, reply)| reply).collect()));
            finds = rest;
        }
    }
}

async fn send_batch(
    shared: &Shared,
    handler: &dyn RpcHandler,
    connection: &mut RedisConnection,
    batch: JobBatch,
) -> Result<(), RedisError> {
    let JobBatch { jobs, changes, finished_round, leaving } = batch;
    let mut commands = Commands::of(shared, jobs, &changes);
    if finished_round == Some(shared.rewrite_round.load(Ordering::Relaxed)) {
        let mark = session_store::mark_current(&shared.keys, shared.me, shared.record_lifetime);
        commands.add(mark, ReplyTo::MarkedCurrent);
    }
    if leaving {
        commands.add(membership::leave(&shared.keys, shared.me), ReplyTo::Left);
    }
    let replies = match connection.pipeline(&commands.pipeline).await {
        Ok(replies) => replies,
        Err(error) => {
            shared.queue.put_back(changes, commands.writes);
            return Err(error);
        }
    };
    let mut refused = RefusedRecords::default();
    let read = replies
        .into_iter()
        .zip(commands.replies)
        .try_for_each(|(reply, reply_to)| read_reply(shared, handler, reply, reply_to, &mut refused));
    refused.answer(&shared.queue, commands.writes);
    read?;
    if leaving {
        shared.queue.has_left();
    }
    Ok(())
}

/// Records that Redis refused to write or to remove.
#[derive(Default)]
struct RefusedRecords {
    /// Older ones may be there.
    not_written: HashSet<Id>,
    not_removed: HashSet<Id>,
}

impl RefusedRecords {
    /// Answers those who wait for records. A record that Redis refuses is removed, so that no older one is left of it:
    /// without a record, a client gets `recovered: false`.
    fn answer(self, queue: &Queue, writes: Vec<PendingWrite>) {
        let mut again = Vec::new();
        for write in writes {
            if self.not_written.contains(&write.pid) {
                again.push(write);
            } else if !self.not_removed.contains(&write.pid) {
                // The caller may be gone.
                let _ = write.reply.send(());
            }
        }
        if !again.is_empty() || !self.not_written.is_empty() {
            queue.put_back(self.not_written.iter().map(|pid| (*pid, RecordChange::Remove(0))).collect(), again);
        }
    }
}

fn read_reply(
    shared: &Shared,
    handler: &dyn RpcHandler,
    reply: Value,
    reply_to: ReplyTo,
    refused: &mut RefusedRecords,
) -> Result<(), RedisError> {
    let reply = reply.extract_error();
    // A caller may be gone; one whose reply is dropped here sees that there is none.
    let reply = match (reply, reply_to) {
        (reply, ReplyTo::Command(caller)) => {
            let _ = caller.send(reply.map_err(|error| error.to_string()));
            return Ok(());
        }
        (Ok(reply), reply_to) => (reply, reply_to),
        (Err(error), reply_to) => {
            note_refusal(shared, &error, reply_to, refused);
            return Ok(());
        }
    };
    match reply {
        (Value::Int(subscribers), ReplyTo::Publish(caller)) => {
            let _ = caller.send(if subscribers > 0 { Sent::Received } else { Sent::NoSubscriber });
        }
        (reply, ReplyTo::Find(callers)) => {
            let found = session_store::read_found(reply).ok_or(RedisError::UnexpectedReply("a search for sessions"))?;
            for (caller, found) in callers.into_iter().zip(found) {
                let _ = caller.send(found);
            }
        }
        (reply, ReplyTo::Heartbeat(callers)) => {
            apply_heartbeat(shared, handler, &reply)?;
            for caller in callers {
                let _ = caller.send(());
            }
        }
        _ => {}
    }
    Ok(())
}

/// Redis is out of memory, for example. Messages still pass, and records are tried again before long.
fn note_refusal(shared: &Shared, error: &redis::RedisError, reply_to: ReplyTo, refused: &mut RefusedRecords) {
    let lost = if let ReplyTo::RecordsWritten(pids) = &reply_to { pids.len() } else { 0 };
    shared.metrics.events.dropped(DropReason::Record, lost as u64);
    tracing::warn!(%error, records = lost, "Redis refused a write of this node");
    match reply_to {
        ReplyTo::RecordsWritten(pids) => refused.not_written.extend(pids),
        ReplyTo::RecordsRemoved(pids) => refused.not_removed.extend(pids),
        _ => {}
    }
}
