//! The node's errands to Redis: one connection carries all that waits as one pipeline at a time, another listens for
//! letters.

use crate::cluster::envelope::{Body, Signer};
use crate::cluster::jobs::{Job, JobBatch, Queue, Sent};
use crate::cluster::membership;
use crate::cluster::session_store;
use crate::cluster::session_store::{Found, Keep};
use crate::cluster::{Cluster, RpcHandler};
use crate::model::close::DropReason;
use crate::model::id::Id;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use redis::{Cmd, Pipeline, PushInfo, PushKind, Value};
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Letters that may wait to be read.
const UNREAD: usize = 10_000;
/// After how long records that could not all be written anew are tried again.
const REWRITE_AGAIN: Duration = Duration::from_secs(10);
/// How often the subscription is asked whether it still leads to the right place.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Carries errands and beats, until dropped.
pub(super) async fn carry(cluster: &Cluster) {
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = connected(cluster, &mut reconnect).await;
        reconnect.wait("the connection to other nodes", &cluster.connector, &error).await;
    }
}

async fn connected(cluster: &Cluster, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
    let mut connection = RedisConnection::open(&cluster.connector, cluster.timeout).await?;
    let mut begun = None;
    heartbeat(cluster, &mut connection, &mut begun).await?;
    reconnect.reset();
    let mut beaten = Instant::now();
    loop {
        if beaten.elapsed() >= membership::BEAT {
            connection.check().await?;
            heartbeat(cluster, &mut connection, &mut begun).await?;
            beaten = Instant::now();
        }
        if let Ok(load) = tokio::time::timeout_at(beaten + membership::BEAT, cluster.queue.next()).await {
            deliver(cluster, &mut connection, load).await?;
        }
    }
}

/// Beats. `begun` is when all records were last begun to be written anew over this connection.
async fn heartbeat(
    cluster: &Cluster,
    connection: &mut RedisConnection,
    begun: &mut Option<Instant>,
) -> Result<(), RedisError> {
    let answer = match connection.call(&new_beat(cluster)).await {
        Ok(answer) => answer,
        // What was known last must do.
        Err(RedisError::Reply(error)) => {
            tracing::warn!(error, "Redis refused this node's beat: others may take it for gone");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if note_beat(cluster, &answer)? || begun.is_some_and(|begun| begun.elapsed() < REWRITE_AGAIN) {
        return Ok(());
    }
    // What an old replica has of this node's records is worth nothing, and of what others took of it it may know nothing.
    *begun = Some(Instant::now());
    match connection.call(&session_store::forget(&cluster.keys, cluster.me)).await {
        Ok(_) | Err(RedisError::Reply(_)) => {}
        Err(error) => return Err(error),
    }
    let round = cluster.round.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(inbox) = cluster.inbox.get() {
        inbox.returned();
        inbox.rewrite(round);
    }
    Ok(())
}

fn new_beat(cluster: &Cluster) -> Cmd {
    let fresh_seal = format!("{}{}", Id::random(), Id::random());
    membership::heartbeat(&cluster.keys, cluster.me, cluster.record_life, &fresh_seal)
}

/// Takes over what a beat brought; whether this node's records in Redis are its own.
fn note_beat(cluster: &Cluster, answer: &Value) -> Result<bool, RedisError> {
    let heartbeat = membership::read_beat(answer).ok_or(RedisError::UnexpectedReply("the roster of nodes"))?;
    let mut signer = cluster.signer.lock();
    if signer.as_ref().is_none_or(|signer| !signer.is_of(&heartbeat.signer)) {
        *signer = Some(Arc::new(Signer::new(&heartbeat.signer)));
    }
    drop(signer);
    cluster.membership().update(heartbeat.live);
    let again = cluster.beaten.swap(true, Ordering::Relaxed);
    if let (true, true, Some(inbox)) = (again, heartbeat.late, cluster.inbox.get()) {
        tracing::warn!("this node was away from the others: some of its sessions may have been taken up there");
        inbox.returned();
    }
    Ok(heartbeat.whole)
}

/// What the answers of a pipeline are for.
enum Awaited {
    /// These records are written.
    Write(Vec<Id>),
    /// These records are removed.
    Remove(Vec<Id>),
    /// All records were written anew.
    Mark,
    /// This node has left.
    Leave,
    Envelope(oneshot::Sender<Sent>),
    Finds(Vec<oneshot::Sender<Found>>),
    Beats(Vec<oneshot::Sender<()>>),
    Call(oneshot::Sender<Result<Value, String>>),
}

async fn deliver(cluster: &Cluster, connection: &mut RedisConnection, load: JobBatch) -> Result<(), RedisError> {
    let JobBatch { errands, changes, mark, leaving } = load;
    let (mut pipeline, mut awaited) = (Pipeline::new(), Vec::new());
    let mut add = |command: Cmd, what| {
        pipeline.add_command(command);
        awaited.push(what);
    };
    let (mut sought, mut replies, mut beats, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for errand in errands {
        match errand {
            Job::Envelope { channel, letter, reply } => {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(channel).arg(letter);
                add(publish, Awaited::Envelope(reply));
            }
            Job::Find { owner, pid, reply } => {
                sought.push((owner, pid));
                replies.push(reply);
            }
            Job::Heartbeat { reply } => beats.push(reply),
            Job::Call { command, reply } => add(command, Awaited::Call(reply)),
            Job::Keep { pid, until, reply } => kept.push((pid, until, reply)),
        }
    }
    for Keep { command, writes, pids } in session_store::keep(&cluster.keys, cluster.me, &changes) {
        add(command, if writes { Awaited::Write(pids) } else { Awaited::Remove(pids) });
    }
    if mark == Some(cluster.round.load(Ordering::Relaxed)) {
        add(session_store::mark(&cluster.keys, cluster.me, cluster.record_life), Awaited::Mark);
    }
    let suspects = cluster.membership().suspects();
    let mut replies = replies.into_iter();
    for some in sought.chunks(session_store::MAX_SOUGHT) {
        let find =
            session_store::find(&cluster.keys, cluster.me, &suspects, some.iter().map(|(owner, pid)| (owner, *pid)));
        add(find, Awaited::Finds(replies.by_ref().take(some.len()).collect()));
    }
    if !beats.is_empty() {
        add(new_beat(cluster), Awaited::Beats(beats));
    }
    if leaving {
        add(membership::leave(&cluster.keys, cluster.me), Awaited::Leave);
    }
    let answers = match connection.pipeline(&pipeline).await {
        Ok(answers) => answers,
        Err(error) => {
            cluster.queue.put_back(changes);
            cluster.queue.keep_again(kept);
            return Err(error);
        }
    };
    let mut refused = Refused::default();
    let settled =
        answers.into_iter().zip(awaited).try_for_each(|(answer, what)| settle(cluster, answer, what, &mut refused));
    refused.answer(&cluster.queue, kept);
    settled?;
    if leaving {
        cluster.queue.has_left();
    }
    Ok(())
}

/// Records that Redis did not take.
#[derive(Default)]
struct Refused {
    /// Older ones may be there.
    written: HashSet<Id>,
    /// They are there still.
    removed: HashSet<Id>,
}

impl Refused {
    /// Tells those who wait for records. One that Redis does not take is removed, so that no older one is left of it:
    /// without a record a client is told.
    fn answer(self, queue: &Queue, kept: Vec<(Id, Instant, oneshot::Sender<()>)>) {
        queue.put_back(self.written.iter().map(|pid| (*pid, None)).collect());
        let mut again = Vec::new();
        for (pid, until, reply) in kept {
            if self.written.contains(&pid) {
                again.push((pid, until, reply));
            } else if !self.removed.contains(&pid) {
                // Whoever waits may have gone.
                let _ = reply.send(());
            }
        }
        if !again.is_empty() || !self.written.is_empty() {
            queue.keep_again(again);
        }
    }
}

fn settle(cluster: &Cluster, answer: Value, what: Awaited, refused: &mut Refused) -> Result<(), RedisError> {
    // Whoever waits for a reply may have gone; a dropped one tells that there is none.
    let (answer, what) = match (answer.extract_error(), what) {
        (answer, Awaited::Call(reply)) => {
            let _ = reply.send(answer.map_err(|error| error.to_string()));
            return Ok(());
        }
        (Ok(answer), what) => (answer, what),
        (Err(error), what) => {
            // Out of memory, say: letters still go. Records are written again before long.
            let lost = if let Awaited::Write(records) = &what { records.len() } else { 0 };
            cluster.metrics.dropped(DropReason::Record, lost as u64);
            tracing::warn!(%error, lost, "Redis refused to keep what this node shares with others");
            match what {
                Awaited::Write(pids) => refused.written.extend(pids),
                Awaited::Remove(pids) => refused.removed.extend(pids),
                _ => {}
            }
            return Ok(());
        }
    };
    match (what, answer) {
        (Awaited::Envelope(reply), Value::Int(listeners)) => {
            let _ = reply.send(if listeners > 0 { Sent::Heard } else { Sent::Unheard });
        }
        (Awaited::Finds(replies), answer) => {
            let found = session_store::read_found(answer).ok_or(RedisError::UnexpectedReply("records of sessions"))?;
            for (reply, found) in replies.into_iter().zip(found) {
                let _ = reply.send(found);
            }
        }
        (Awaited::Beats(replies), answer) => {
            note_beat(cluster, &answer)?;
            for reply in replies {
                let _ = reply.send(());
            }
        }
        _ => {}
    }
    Ok(())
}

/// Listens for letters to this node, until dropped.
pub(super) async fn listen(cluster: &Arc<Cluster>, inbox: &Arc<dyn RpcHandler>) {
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = subscribed(cluster, inbox, &mut reconnect).await;
        inbox.reachable(false);
        // Answers that are on their way will not be heard.
        cluster.calls().clear();
        reconnect.wait("listening to other nodes", &cluster.connector, &error).await;
    }
}

async fn subscribed(
    cluster: &Arc<Cluster>,
    inbox: &Arc<dyn RpcHandler>,
    reconnect: &mut Reconnect,
) -> Result<Infallible, RedisError> {
    let (letters, mut unread) = mpsc::channel(UNREAD);
    let on_push = move |push: PushInfo| -> Result<(), Infallible> {
        if push.kind == PushKind::Message
            && let Some(Value::BulkString(letter)) = push.data.into_iter().nth(1)
            // Over the bound: whoever wrote it sees that no answer comes.
            && letters.try_send(letter).is_err()
        {
            tracing::warn!("letters of other nodes come faster than they are read; one is dropped");
        }
        Ok(())
    };
    let mut connection = RedisConnection::open_subscriber(&cluster.connector, cluster.timeout, on_push).await?;
    connection.subscribe(&cluster.keys.channel_of(cluster.me)).await?;
    inbox.reachable(true);
    reconnect.reset();
    loop {
        let checked_again = Instant::now() + CHECK_EVERY;
        while let Ok(letter) = tokio::time::timeout_at(checked_again, unread.recv()).await {
            let letter = letter.ok_or_else(|| RedisError::Disconnected("the subscription ended".into()))?;
            open(cluster, inbox, &letter);
        }
        connection.check().await?;
    }
}

fn open(cluster: &Cluster, inbox: &Arc<dyn RpcHandler>, sealed: &[u8]) {
    let Some(signer) = cluster.signer.lock().clone() else { return };
    let letter = match signer.read(sealed, cluster.me) {
        Ok(letter) => letter,
        Err(problem) => {
            cluster.metrics.dropped(DropReason::Malformed, 1);
            return tracing::debug!(%problem, "a letter on this node's channel is not read");
        }
    };
    let before = cluster.read.lock().insert(letter.from, letter.number);
    if let Some(before) = before.filter(|before| letter.number <= *before) {
        cluster.read.lock().insert(letter.from, before);
        return tracing::warn!(from = %letter.from, "a letter came a second time and is not read again");
    }
    match letter.body {
        Body::Request(call, question) => inbox.asked(letter.from, call, question),
        Body::OneWay(notice) => inbox.told(letter.from, notice),
        Body::Response(call, answer) => {
            if let Some(reply) = cluster.calls().remove(&call) {
                let _ = reply.send(answer);
            }
        }
    }
}
