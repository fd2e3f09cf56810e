//! The node's errands to Redis: one connection carries all that waits as one pipeline at a time, another listens for
//! letters.

use super::letter::{Body, Seal};
use super::records::{self, Found, Keep, Owner, Record};
use super::roster;
use super::{Cluster, Inbox, lock};
use crate::close::DropReason;
use crate::id::Id;
use crate::log::redis::connection::{Backoff, Link, LinkError};
use redis::{Cmd, Pipeline, PushInfo, PushKind, Value};
use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

/// Bytes of letters and questions that may wait; over it they fail at once.
const WAITING_BYTES: usize = 32 << 20;
/// Changes of records that may wait while Redis is away. Over it those of sessions that ended are forgotten: what is
/// left of them in Redis goes with this node.
const MOST_CHANGES: usize = 500_000;
/// Letters that may wait to be read.
const UNREAD: usize = 10_000;
/// Records in one pipeline.
const RECORDS_AT_ONCE: usize = 5_000;
/// A pipeline takes no further errand once it has so many.
const AT_ONCE: usize = 2_000;
/// After how long records that could not all be written anew are tried again.
const REWRITE_AGAIN: Duration = Duration::from_secs(10);
/// How often the subscription is asked whether it still leads to the right place.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Somebody listened.
    Heard,
    /// Nobody listens on that channel.
    Unheard,
    /// It could not be sent.
    Failed,
}

/// Something to be done in Redis.
pub(super) enum Errand {
    /// Publish a sealed letter.
    Letter { channel: String, letter: Vec<u8>, reply: oneshot::Sender<Sent> },
    /// Look for a session.
    Find { owner: Owner, pid: Id, reply: oneshot::Sender<Found> },
    /// Beat now, and see who else does.
    Beat { reply: oneshot::Sender<()> },
    /// A command of another part of the node, and what Redis answers to it or refuses it with.
    Call { command: Cmd, reply: oneshot::Sender<Result<Value, String>> },
    /// Write what waits of this record now, and say when it is written.
    Keep { pid: Id, until: Instant, reply: oneshot::Sender<()> },
}

/// Errands that wait.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
    left: Notify,
}

#[derive(Default)]
struct Waiting {
    errands: VecDeque<(Instant, usize, Errand)>,
    bytes: usize,
    /// The newest change of each record; one for each session of this node at most.
    changes: HashMap<Id, Option<Record>>,
    /// All records were given anew, for this round: to be noted in Redis once none waits any more.
    mark: Option<u64>,
    leaving: bool,
}

/// What one pipeline carries.
struct Load {
    errands: Vec<Errand>,
    changes: Vec<(Id, Option<Record>)>,
    mark: Option<u64>,
    leaving: bool,
}

impl Queue {
    /// Puts an errand in; over the bound it is dropped, and whoever waits for its reply sees that.
    pub fn push(&self, errand: Errand, bytes: usize, patience: Duration) {
        lock(&self.waiting).push(errand, bytes, patience);
        self.wake.notify_one();
    }

    /// Has a record written with the errands that wait, and not an older one after it.
    pub fn keep_now(&self, pid: Id, record: Option<Record>, patience: Duration) -> oneshot::Receiver<()> {
        let (reply, kept) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        waiting.changes.insert(pid, record);
        waiting.push(Errand::Keep { pid, until: Instant::now() + patience, reply }, 100, patience);
        drop(waiting);
        self.wake.notify_one();
        kept
    }

    /// Tries again to write records that somebody waits for.
    fn keep_again(&self, kept: Vec<(Id, Instant, oneshot::Sender<()>)>) {
        let (mut waiting, now) = (lock(&self.waiting), Instant::now());
        for (pid, until, reply) in kept {
            let left = until.saturating_duration_since(now);
            waiting.push(Errand::Keep { pid, until, reply }, 100, left);
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// All records were given anew.
    pub fn mark(&self, round: u64) {
        lock(&self.waiting).mark = Some(round);
        self.wake.notify_one();
    }

    /// Puts a letter in that is made under the lock: letters are sent in the order of their numbers.
    pub fn push_letter(
        &self,
        patience: Duration,
        make: impl FnOnce(oneshot::Sender<Sent>) -> Errand,
    ) -> Option<oneshot::Receiver<Sent>> {
        let (reply, sent) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        let errand = make(reply);
        let bytes = if let Errand::Letter { letter, .. } = &errand { letter.len() + 200 } else { 0 };
        waiting.push(errand, bytes, patience);
        drop(waiting);
        self.wake.notify_one();
        Some(sent)
    }

    /// Puts changes of records in.
    pub fn keep(&self, changes: Vec<(Id, Option<Record>)>) {
        let mut waiting = lock(&self.waiting);
        waiting.changes.extend(changes);
        if waiting.changes.len() > MOST_CHANGES {
            waiting.changes.retain(|_, record| record.is_some());
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Asks for the last words, behind everything that waits.
    pub fn leave(&self) {
        lock(&self.waiting).leaving = true;
        self.wake.notify_one();
    }

    /// Completes when they are said.
    pub async fn left(&self) {
        self.left.notified().await;
    }

    fn take(&self) -> Option<Load> {
        let mut waiting = lock(&self.waiting);
        let now = Instant::now();
        let mut errands = Vec::new();
        while errands.len() < AT_ONCE
            && let Some((deadline, bytes, errand)) = waiting.errands.pop_front()
        {
            waiting.bytes -= bytes;
            // Nobody waits any more for what is over time; a dropped reply says so.
            if deadline > now {
                errands.push(errand);
            }
        }
        let mut changes = Vec::new();
        for errand in &errands {
            // What is not there any more was written with an earlier pipeline.
            if let Errand::Keep { pid, .. } = errand {
                changes.extend(waiting.changes.remove_entry(pid));
            }
        }
        changes.extend(waiting.take_changes());
        let mark = if waiting.changes.is_empty() { waiting.mark.take() } else { None };
        let leaving = waiting.leaving && waiting.errands.is_empty() && waiting.changes.is_empty();
        let any = leaving || mark.is_some() || !errands.is_empty() || !changes.is_empty();
        any.then_some(Load { errands, changes, mark, leaving })
    }

    async fn next(&self) -> Load {
        loop {
            if let Some(load) = self.take() {
                return load;
            }
            self.wake.notified().await;
        }
    }

    /// Changes that were not written; newer ones stay.
    fn put_back(&self, changes: Vec<(Id, Option<Record>)>) {
        let mut waiting = lock(&self.waiting);
        for (pid, record) in changes {
            waiting.changes.entry(pid).or_insert(record);
        }
    }
}

impl Waiting {
    /// As many as one pipeline can carry in its time.
    fn take_changes(&mut self) -> Vec<(Id, Option<Record>)> {
        if self.changes.len() <= RECORDS_AT_ONCE {
            return std::mem::take(&mut self.changes).into_iter().collect();
        }
        let some: Vec<Id> = self.changes.keys().take(RECORDS_AT_ONCE).copied().collect();
        some.into_iter().filter_map(|pid| self.changes.remove_entry(&pid)).collect()
    }

    fn push(&mut self, errand: Errand, bytes: usize, patience: Duration) {
        if self.bytes + bytes <= WAITING_BYTES {
            self.bytes += bytes;
            self.errands.push_back((Instant::now() + patience, bytes, errand));
        }
    }
}

/// Carries errands and beats, until dropped.
pub(super) async fn carry(cluster: &Cluster) {
    let mut backoff = Backoff::default();
    loop {
        let Err(error) = connected(cluster, &mut backoff).await;
        backoff.report("the connection to other nodes", &cluster.connector, &error);
        backoff.wait().await;
    }
}

async fn connected(cluster: &Cluster, backoff: &mut Backoff) -> Result<Infallible, LinkError> {
    let mut link = Link::open(&cluster.connector, cluster.timeout).await?;
    let mut begun = None;
    beat(cluster, &mut link, &mut begun).await?;
    backoff.reset();
    let mut beaten = Instant::now();
    loop {
        if beaten.elapsed() >= roster::BEAT {
            link.check().await?;
            beat(cluster, &mut link, &mut begun).await?;
            beaten = Instant::now();
        }
        if let Ok(load) = tokio::time::timeout_at(beaten + roster::BEAT, cluster.queue.next()).await {
            deliver(cluster, &mut link, load).await?;
        }
    }
}

/// Beats. `begun` is when all records were last begun to be written anew over this connection.
async fn beat(cluster: &Cluster, link: &mut Link, begun: &mut Option<Instant>) -> Result<(), LinkError> {
    let answer = match link.call(&new_beat(cluster)).await {
        Ok(answer) => answer,
        // What was known last must do.
        Err(LinkError::Server(error)) => {
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
    match link.call(&records::forget(&cluster.keys, cluster.me)).await {
        Ok(_) | Err(LinkError::Server(_)) => {}
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
    roster::beat(&cluster.keys, cluster.me, cluster.record_life, &fresh_seal)
}

/// Takes over what a beat brought; whether this node's records in Redis are its own.
fn note_beat(cluster: &Cluster, answer: &Value) -> Result<bool, LinkError> {
    let beat = roster::read_beat(answer).ok_or(LinkError::Unexpected("the roster of nodes"))?;
    let mut seal = lock(&cluster.seal);
    if seal.as_ref().is_none_or(|seal| !seal.is_of(&beat.seal)) {
        *seal = Some(Arc::new(Seal::new(&beat.seal)));
    }
    drop(seal);
    cluster.roster().update(beat.live);
    let again = cluster.beaten.swap(true, Ordering::Relaxed);
    if let (true, true, Some(inbox)) = (again, beat.late, cluster.inbox.get()) {
        tracing::warn!("this node was away from the others: some of its sessions may have been taken up there");
        inbox.returned();
    }
    Ok(beat.whole)
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
    Letter(oneshot::Sender<Sent>),
    Finds(Vec<oneshot::Sender<Found>>),
    Beats(Vec<oneshot::Sender<()>>),
    Call(oneshot::Sender<Result<Value, String>>),
}

async fn deliver(cluster: &Cluster, link: &mut Link, load: Load) -> Result<(), LinkError> {
    let Load { errands, changes, mark, leaving } = load;
    let (mut pipeline, mut awaited) = (Pipeline::new(), Vec::new());
    let mut add = |command: Cmd, what| {
        pipeline.add_command(command);
        awaited.push(what);
    };
    let (mut sought, mut replies, mut beats, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for errand in errands {
        match errand {
            Errand::Letter { channel, letter, reply } => {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(channel).arg(letter);
                add(publish, Awaited::Letter(reply));
            }
            Errand::Find { owner, pid, reply } => {
                sought.push((owner, pid));
                replies.push(reply);
            }
            Errand::Beat { reply } => beats.push(reply),
            Errand::Call { command, reply } => add(command, Awaited::Call(reply)),
            Errand::Keep { pid, until, reply } => kept.push((pid, until, reply)),
        }
    }
    for Keep { command, writes, pids } in records::keep(&cluster.keys, cluster.me, &changes) {
        add(command, if writes { Awaited::Write(pids) } else { Awaited::Remove(pids) });
    }
    if mark == Some(cluster.round.load(Ordering::Relaxed)) {
        add(records::mark(&cluster.keys, cluster.me, cluster.record_life), Awaited::Mark);
    }
    let suspects = cluster.roster().suspects();
    let mut replies = replies.into_iter();
    for some in sought.chunks(records::MOST_SOUGHT) {
        let find = records::find(&cluster.keys, cluster.me, &suspects, some.iter().map(|(owner, pid)| (owner, *pid)));
        add(find, Awaited::Finds(replies.by_ref().take(some.len()).collect()));
    }
    if !beats.is_empty() {
        add(new_beat(cluster), Awaited::Beats(beats));
    }
    if leaving {
        add(roster::leave(&cluster.keys, cluster.me), Awaited::Leave);
    }
    let answers = match link.pipeline(&pipeline).await {
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
        lock(&cluster.queue.waiting).leaving = false;
        cluster.queue.left.notify_one();
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

fn settle(cluster: &Cluster, answer: Value, what: Awaited, refused: &mut Refused) -> Result<(), LinkError> {
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
        (Awaited::Letter(reply), Value::Int(listeners)) => {
            let _ = reply.send(if listeners > 0 { Sent::Heard } else { Sent::Unheard });
        }
        (Awaited::Finds(replies), answer) => {
            let found = records::read_found(answer).ok_or(LinkError::Unexpected("records of sessions"))?;
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
pub(super) async fn listen(cluster: &Arc<Cluster>, inbox: &Arc<dyn Inbox>) {
    let mut backoff = Backoff::default();
    loop {
        let Err(error) = subscribed(cluster, inbox, &mut backoff).await;
        inbox.reachable(false);
        // Answers that are on their way will not be heard.
        cluster.calls().clear();
        backoff.report("listening to other nodes", &cluster.connector, &error);
        backoff.wait().await;
    }
}

async fn subscribed(
    cluster: &Arc<Cluster>,
    inbox: &Arc<dyn Inbox>,
    backoff: &mut Backoff,
) -> Result<Infallible, LinkError> {
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
    let mut link = Link::subscriber(&cluster.connector, cluster.timeout, on_push).await?;
    link.subscribe(&cluster.keys.channel_of(cluster.me)).await?;
    inbox.reachable(true);
    backoff.reset();
    loop {
        let checked_again = Instant::now() + CHECK_EVERY;
        while let Ok(letter) = tokio::time::timeout_at(checked_again, unread.recv()).await {
            let letter = letter.ok_or_else(|| LinkError::Lost("the subscription ended".into()))?;
            open(cluster, inbox, &letter);
        }
        link.check().await?;
    }
}

fn open(cluster: &Cluster, inbox: &Arc<dyn Inbox>, sealed: &[u8]) {
    let Some(seal) = lock(&cluster.seal).clone() else { return };
    let letter = match seal.read(sealed, cluster.me) {
        Ok(letter) => letter,
        Err(problem) => {
            cluster.metrics.dropped(DropReason::Malformed, 1);
            return tracing::debug!(%problem, "a letter on this node's channel is not read");
        }
    };
    let before = lock(&cluster.read).insert(letter.from, letter.number);
    if let Some(before) = before.filter(|before| letter.number <= *before) {
        lock(&cluster.read).insert(letter.from, before);
        return tracing::warn!(from = %letter.from, "a letter came a second time and is not read again");
    }
    match letter.body {
        Body::Ask(call, question) => inbox.asked(letter.from, call, question),
        Body::Tell(notice) => inbox.told(letter.from, notice),
        Body::Answer(call, answer) => {
            if let Some(reply) = cluster.calls().remove(&call) {
                let _ = reply.send(answer);
            }
        }
    }
}
