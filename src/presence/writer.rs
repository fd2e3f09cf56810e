//! This node's part in presence: what its connections make true, and the one writer that brings it into the store.
//!
//! A change gets a [`Ticket`] at once, on whichever thread it happens. [`Presence::written`] completes when the store has
//! it, and what was announced with it is in the log: whoever is to be answered waits for that. Changes that come while a
//! step is on its way go with the next one, so that a storm costs few steps. Changes that nobody waits for are gathered
//! for a moment.

use crate::metrics::Metrics;
use crate::model::draft::Source;
use crate::presence::config::PresenceConfig;
use crate::presence::tracker::{Millis, Table};
use crate::presence::{Applied, Change, Fact, ImmediateStore, LeaveReason, Messages, Store, StoreError, Ticket, Turn};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// How long a client waits until the store has what it is to be told. It waits for its session's record no longer.
pub const WRITTEN_WITHIN: Duration = Duration::from_millis(1_500);
/// Changes in one step of the store: some 10 µs each there.
const AT_ONCE: usize = 200;
/// The store hears that this node lives so often, at least four times in a lease.
const TICK: Duration = Duration::from_secs(1);
/// Changes that nobody waits for are gathered for so long: each step has a cost of its own.
const GATHER: Duration = Duration::from_millis(3);
/// Between two attempts while the store does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// Hears what changes mean to the whole cluster. Called by whichever thread writes: it takes notes and returns.
pub trait Listener: Send + Sync + 'static {
    /// A user or a room has turned.
    fn turned(&self, turn: &Turn);

    /// Whether so much waits that what dead nodes have left is to be removed a part at a time.
    fn is_behind(&self) -> bool;
}

/// What this node knows of who is there.
pub struct Presence {
    /// What all nodes know together.
    pub store: Arc<dyn Store>,
    state: Mutex<State>,
    /// Held while a step is on its way.
    writer: tokio::sync::Mutex<Writer>,
    /// The newest ticket that is in the store.
    written: AtomicU64,
    started: Instant,
    tick: Duration,
    /// Somebody waits.
    now: Notify,
    /// Something has changed.
    soon: Notify,
    /// Whether `soon` was said since the last step.
    gathering: AtomicBool,
    /// Whether the last step failed.
    failing: AtomicBool,
    leaving: AtomicBool,
    left: Notify,
}

struct State {
    table: Table,
    waiting: BTreeMap<Ticket, Vec<Waiter>>,
}

struct Waiter {
    is_leave: bool,
    done: oneshot::Sender<()>,
}

impl Presence {
    /// Nobody is there yet.
    pub fn new(
        config: &PresenceConfig,
        store: Arc<dyn Store>,
        listener: Box<dyn Listener>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let table = Table::new(u64::try_from(config.grace.as_millis()).unwrap_or(Millis::MAX));
        Arc::new(Self {
            store,
            state: Mutex::new(State { table, waiting: BTreeMap::new() }),
            writer: tokio::sync::Mutex::new(Writer { listener, metrics, number: 0, again: None, complained: false }),
            written: AtomicU64::new(0),
            started: Instant::now(),
            tick: (config.lease / 4).min(TICK),
            now: Notify::new(),
            soon: Notify::new(),
            gathering: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            left: Notify::new(),
        })
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// One connection more makes a fact true.
    pub fn enter(&self, fact: Fact, messages: impl FnOnce() -> Option<Messages>) -> Ticket {
        let ticket = self.state().table.enter(fact, messages);
        self.write_soon();
        ticket
    }

    /// One connection less.
    pub fn exit(&self, fact: &Fact, reason: LeaveReason) -> Ticket {
        let ticket = self.state().table.exit(fact, self.now(), reason);
        self.write_soon();
        ticket
    }

    fn write_soon(&self) {
        // To wake another thread for each change would cost more than the change.
        if !self.gathering.swap(true, Ordering::Relaxed) {
            self.soon.notify_one();
        }
    }

    /// Whether the store has every change up to this ticket.
    pub fn is_written(&self, ticket: Ticket) -> bool {
        ticket.0 <= self.written.load(Ordering::Acquire)
    }

    /// Completes when the store has every change up to this ticket; `false` where it does not take them within
    /// [`WRITTEN_WITHIN`]. With `is_leave` also where it has just lost what it knew: nothing is taken back then for a
    /// while.
    #[must_use]
    pub async fn written(&self, ticket: Ticket, is_leave: bool) -> bool {
        if self.is_written(ticket) {
            return true;
        }
        let Some(done) = self.wait_for(ticket, is_leave) else { return true };
        let written = tokio::time::timeout(WRITTEN_WITHIN, done).await;
        if written.is_err() {
            self.forget(ticket);
        }
        matches!(written, Ok(Ok(())))
    }

    /// The same, of a connection, which is let in also where the store does not answer: it waits only where an answer can
    /// be hoped for.
    pub async fn written_unless_failing(&self, ticket: Ticket) {
        if !self.failing.load(Ordering::Relaxed) {
            let _ = self.written(ticket, false).await;
        }
    }

    /// Completes when the store has every change up to this ticket, however long that takes.
    pub async fn written_at_last(&self, ticket: Ticket, is_leave: bool) {
        while !self.is_written(ticket)
            && let Some(done) = self.wait_for(ticket, is_leave)
        {
            if done.await.is_ok() {
                return;
            }
            // Nothing is taken back as yet.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// `None` where the store has it already.
    fn wait_for(&self, ticket: Ticket, is_leave: bool) -> Option<oneshot::Receiver<()>> {
        if let Some(store) = self.store.immediate() {
            self.write_here(store);
        }
        let (done, waits) = oneshot::channel();
        let mut state = self.state();
        if state.table.is_written(ticket) {
            return None;
        }
        if !(is_leave && state.table.is_holding(self.now())) {
            state.waiting.entry(ticket).or_default().push(Waiter { is_leave, done });
        }
        drop(state);
        self.now.notify_one();
        Some(waits)
    }

    /// Forgets those that no longer wait for this ticket.
    fn forget(&self, ticket: Ticket) {
        let mut state = self.state();
        if let Some(waiting) = state.waiting.get_mut(&ticket) {
            waiting.retain(|waiter| !waiter.done.is_closed());
            if waiting.is_empty() {
                state.waiting.remove(&ticket);
            }
        }
    }

    /// Writes what waits on this thread: the wake-up of another one costs more. Not where another thread is writing.
    fn write_here(&self, store: &dyn ImmediateStore) {
        let Ok(mut writer) = self.writer.try_lock() else { return };
        loop {
            let changes = self.state().table.take(self.now(), AT_ONCE);
            if !changes.is_empty() {
                writer.note(store.apply_now(&changes));
            }
            self.confirm(&changes);
            if changes.is_empty() {
                return;
            }
        }
    }

    /// These changes are in the store, and what they announced is in the log.
    fn confirm(&self, changes: &[Change]) {
        let mut state = self.state();
        state.table.confirm(changes);
        let written = state.table.written();
        self.written.store(written.0, Ordering::Release);
        if state.waiting.is_empty() {
            return;
        }
        let later = state.waiting.split_off(&Ticket(written.0 + 1));
        let done = std::mem::replace(&mut state.waiting, later);
        drop(state);
        for waiter in done.into_values().flatten() {
            // Whoever waits may have gone.
            let _ = waiter.done.send(());
        }
    }

    /// Writes what waits and says that this node stops: its users have the grace to come elsewhere.
    pub async fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.now.notify_one();
        self.left.notified().await;
    }
}

/// Writes what changes, until the node stops.
pub async fn run(presence: Arc<Presence>) {
    let mut due = Instant::now() + presence.tick;
    loop {
        let next = presence.state().table.next().map_or(Millis::MAX, |next| next.saturating_sub(presence.now()));
        let wait = due.saturating_duration_since(Instant::now()).min(Duration::from_millis(next));
        tokio::select! {
            () = presence.now.notified() => {}
            () = presence.soon.notified() => {
                // Over, or cut short by somebody who waits.
                let _ = tokio::time::timeout(GATHER, presence.now.notified()).await;
            }
            () = tokio::time::sleep(wait) => {}
        }
        presence.gathering.store(false, Ordering::Relaxed);
        let leaving = presence.leaving.load(Ordering::Relaxed);
        let mut writer = presence.writer.lock().await;
        let written = writer.write_all(&presence, due <= Instant::now()).await;
        presence.failing.store(written.is_err(), Ordering::Relaxed);
        match written {
            Ok(true) => due = Instant::now() + presence.tick,
            Ok(false) => {}
            Err(error) => {
                writer.complain(&error);
                if !leaving {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(writer);
        if leaving {
            if let Err(error) = presence.store.leave().await {
                tracing::debug!(%error, "the others find out by themselves that this node has gone");
            }
            return presence.left.notify_one();
        }
    }
}

/// The steps of this node.
struct Writer {
    listener: Box<dyn Listener>,
    metrics: Arc<Metrics>,
    /// Of the last step.
    number: u64,
    /// A step whose answer was lost, and when it was taken.
    again: Option<(Vec<Change>, Millis)>,
    /// Whether the log says that the store does not answer.
    complained: bool,
}

impl Writer {
    /// Takes steps until nothing is left; one in any case where one `is_due`: it says that this node lives. Answers
    /// whether there was a step.
    async fn write_all(&mut self, presence: &Presence, mut is_due: bool) -> Result<bool, StoreError> {
        let mut stepped = false;
        loop {
            let now = presence.now();
            let changes = match self.again.take() {
                Some((mut changes, taken)) => {
                    changes.iter_mut().for_each(|change| change.age += now - taken);
                    changes
                }
                None => {
                    let changes = presence.state().table.take(now, AT_ONCE);
                    if changes.is_empty() && !is_due {
                        // What was taken came to nothing.
                        presence.confirm(&changes);
                        return Ok(stepped);
                    }
                    self.number += 1;
                    changes
                }
            };
            match presence.store.apply(self.number, &changes).await {
                Ok(Applied::Behind) => self.begin_again(presence, changes).await?,
                Ok(applied) => {
                    is_due = self.note(applied) && !self.listener.is_behind();
                    presence.confirm(&changes);
                    self.complained = false;
                    stepped = true;
                }
                Err(error) => {
                    self.again = Some((changes, now));
                    return Err(error);
                }
            }
        }
    }

    /// Notes what a step meant; whether users of nodes that died are still to be removed.
    fn note(&mut self, applied: Applied) -> bool {
        let Applied::Done { turns, events, more } = applied else { return false };
        self.metrics.accepted(Source::Client, events);
        turns.iter().for_each(|turn| self.listener.turned(turn));
        more
    }

    /// The store does not know what this node wrote before: all of it is to be written again.
    async fn begin_again(&mut self, presence: &Presence, changes: Vec<Change>) -> Result<(), StoreError> {
        presence.state().table.put_back(changes);
        self.number += 1;
        let known = presence.store.reset(self.number).await?;
        if !known.lost {
            // Who hung up while this node stood still is seen to be gone first.
            tokio::time::sleep(PAUSE).await;
        }
        let (lost, facts) = (known.lost, known.facts.len());
        tracing::warn!(lost, facts, "presence of this node is written again");
        let mut state = presence.state();
        state.table.write_again(known, presence.now());
        if lost {
            // Nothing is taken back as yet.
            state.waiting.values_mut().for_each(|waiting| waiting.retain(|waiter| !waiter.is_leave));
        }
        Ok(())
    }

    fn complain(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(error = error.0, "presence cannot be written to its store; it is tried again until it can");
        }
    }
}

/// Facts that are counted for a session before it is there, so that it can be acknowledged as soon as it is. What the
/// session does not take over is taken back when this is dropped.
#[derive(Default)]
pub struct Reservation {
    presence: Option<Arc<Presence>>,
    facts: Vec<Fact>,
    ticket: Ticket,
}

impl Reservation {
    /// Counts nothing yet.
    pub fn new(presence: &Arc<Presence>) -> Self {
        Self { presence: Some(presence.clone()), facts: Vec::new(), ticket: Ticket::default() }
    }

    /// Counts one connection for a fact.
    pub fn enter(&mut self, fact: Fact, messages: impl FnOnce() -> Option<Messages>) {
        let Some(presence) = &self.presence else { return };
        // Whoever reserves waits, and wakes the writer by it.
        let ticket = presence.state().table.enter(fact.clone(), messages);
        self.ticket = self.ticket.max(ticket);
        self.facts.push(fact);
    }

    /// Hands a fact over: it is counted for the session already, under this ticket.
    pub fn take(&mut self, fact: &Fact) -> Option<Ticket> {
        let at = self.facts.iter().position(|reserved| reserved == fact)?;
        self.facts.swap_remove(at);
        Some(self.ticket)
    }

    /// What is to be written.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Takes over what another one has reserved.
    pub fn append(&mut self, mut other: Self) {
        self.facts.append(&mut other.facts);
        self.ticket = self.ticket.max(other.ticket);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(presence) = &self.presence {
            for fact in &self.facts {
                presence.exit(fact, LeaveReason::Undone);
            }
        }
    }
}
