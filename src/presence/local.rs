//! This node's part in presence: what its connections make true, and the one task that brings it into the store.
//!
//! A change gets a [`Ticket`] at once, on whichever thread it happens. [`Presence::written`] completes when the store has
//! it and its announcement is in the log; an answer to a client waits for that. Changes that arrive while a step is on
//! its way go with the next one, so that a storm costs few steps. Changes that no caller waits for are gathered a moment. [`run`] writes until [`Presence::leave`]; a store in this process is written on the thread that waits.

use crate::metrics::Metrics;
use crate::presence::changes::{Changes, Waiting};
use crate::presence::config::PresenceConfig;
use crate::presence::writer::{Listener, Writer};
use crate::presence::{Fact, LeaveReason, Messages, RoomStatus, Store, StoreError, Ticket, UserStatus};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long the answer to a client waits for the store to have its change. It waits equally long for the session's record.
pub const WRITTEN_WITHIN: Duration = Duration::from_millis(1_500);
/// How often this node writes to show that it is up; at least four times in a lease.
const TICK: Duration = Duration::from_secs(1);
/// How long changes that no caller waits for are gathered, because each step has a cost of its own.
const GATHER: Duration = Duration::from_millis(3);
/// Between two attempts while the store does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// Presence as this node's shards use it.
pub struct Presence {
    /// What all nodes know together.
    pub store: Arc<dyn Store>,
    changes: Changes,
    /// Held while a step is on its way.
    writer: tokio::sync::Mutex<Writer>,
    tick: Duration,
    /// Somebody waits.
    now: Notify,
    /// Something has changed.
    soon: Notify,
    /// Whether `soon` was said since the last step.
    gathering: AtomicBool,
    /// Since when, and why, each step has failed.
    failing: Mutex<Option<(Instant, StoreError)>>,
    leaving: AtomicBool,
    left: Notify,
}

impl Presence {
    /// Nobody is there yet.
    pub fn new(
        config: &PresenceConfig,
        store: Arc<dyn Store>,
        listener: Box<dyn Listener>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            changes: Changes::new(config.grace),
            writer: tokio::sync::Mutex::new(Writer::new(listener, metrics)),
            tick: (config.lease / 4).min(TICK),
            now: Notify::new(),
            soon: Notify::new(),
            gathering: AtomicBool::new(false),
            failing: Mutex::default(),
            leaving: AtomicBool::new(false),
            left: Notify::new(),
        })
    }

    /// One connection more makes a fact true.
    pub fn enter(&self, fact: Fact, messages: impl FnOnce() -> Option<Messages>) -> Ticket {
        let ticket = self.changes.enter(fact, messages);
        self.write_soon();
        ticket
    }

    /// One connection less.
    pub fn exit(&self, fact: &Fact, reason: LeaveReason) -> Ticket {
        let ticket = self.changes.exit(fact, reason);
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
        self.changes.is_written(ticket)
    }

    /// Completes when the store has every change up to this ticket; `false` where it does not take them within
    /// [`WRITTEN_WITHIN`]. With `is_leave` also `false` if the store has just lost its data: no fact is removed then for a
    /// while.
    #[must_use]
    pub async fn written(&self, ticket: Ticket, is_leave: bool) -> bool {
        if self.is_written(ticket) {
            return true;
        }
        let Some(waiting) = self.wait_for(ticket, is_leave) else { return true };
        tokio::time::timeout(WRITTEN_WITHIN, waiting).await.unwrap_or(false)
    }

    /// The same for a connection, which is let in even if the store does not answer. Does not wait while the store is known
    /// to fail.
    pub async fn written_unless_failing(&self, ticket: Ticket) {
        if self.failing().is_none() {
            let _ = self.written(ticket, false).await;
        }
    }

    /// Completes when the store has every change up to this ticket, however long that takes.
    pub async fn written_at_last(&self, ticket: Ticket, is_leave: bool) {
        while !self.is_written(ticket)
            && let Some(waiting) = self.wait_for(ticket, is_leave)
        {
            if waiting.await {
                return;
            }
            // No fact is removed for a while.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// `None` where the store has it already.
    fn wait_for(&self, ticket: Ticket, is_leave: bool) -> Option<Waiting<'_>> {
        // The wake-up of another thread costs more than the step.
        if let Some(store) = self.store.immediate()
            && let Ok(mut writer) = self.writer.try_lock()
        {
            writer.write_here(&self.changes, store);
            if self.is_written(ticket) {
                return None;
            }
        }
        let waiting = self.changes.wait_for(ticket, is_leave)?;
        self.now.notify_one();
        Some(waiting)
    }

    /// Writes what waits and says that this node stops: its users have the grace to come elsewhere. `false` where the store
    /// does not answer.
    pub async fn leave(&self) -> bool {
        self.leaving.store(true, Ordering::Relaxed);
        self.now.notify_one();
        self.left.notified().await;
        self.failing().is_none()
    }

    /// For how long no change of this node has come into the store, and why; `None` where the last step succeeded.
    pub fn failing(&self) -> Option<(Duration, StoreError)> {
        self.failing.lock().as_ref().map(|(since, error)| (since.elapsed(), error.clone()))
    }

    /// Users, in order.
    ///
    /// # Errors
    /// When the store does not answer, or lacks what this node has acknowledged.
    pub async fn users(&self, users: &[String]) -> Result<Vec<UserStatus>, StoreError> {
        self.check()?;
        self.store.users(users).await
    }

    /// A room that presence is kept of.
    ///
    /// # Errors
    /// When the store does not answer, or lacks what this node has acknowledged.
    pub async fn room(&self, namespace: &str, room: &str) -> Result<RoomStatus, StoreError> {
        self.check()?;
        self.store.room(namespace, room).await
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failing().map_or(Ok(()), |(_, StoreError(why))| Err(StoreError(format!("it could not be written: {why}"))))
    }

    fn note(&self, failure: Option<StoreError>) {
        let mut failing = self.failing.lock();
        *failing = failure.map(|error| (failing.as_ref().map_or_else(Instant::now, |(since, _)| *since), error));
    }
}

/// Writes what changes, until the node stops.
pub async fn run(presence: Arc<Presence>) {
    let mut due = Instant::now() + presence.tick;
    loop {
        let wait = due.saturating_duration_since(Instant::now()).min(presence.changes.next());
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
        let written = writer.write_all(&presence.changes, &*presence.store, due <= Instant::now()).await;
        presence.note(written.as_ref().err().cloned());
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
            // A store that has just not answered is not asked again: the stop would wait for it.
            if presence.failing().is_none()
                && let Err(error) = presence.store.leave().await
            {
                tracing::debug!(%error, "the others find out by themselves that this node has gone");
                presence.note(Some(error));
            }
            return presence.left.notify_one();
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
        // The caller waits for the ticket, which wakes the writer.
        let ticket = presence.changes.enter(fact.clone(), messages);
        self.ticket = self.ticket.max(ticket);
        self.facts.push(fact);
    }

    /// Hands a fact over: it is counted for the session already, under this ticket.
    pub fn take(&mut self, is_it: impl FnMut(&Fact) -> bool) -> Option<Ticket> {
        let at = self.facts.iter().position(is_it)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory::{MemoryLimits, MemoryLog};
    use crate::presence::memory::MemoryStore;
    use crate::presence::{Transition, TransitionKind};

    /// Keeps what it hears.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<String>>>);

    impl Listener for Recorder {
        fn on_transition(&self, transition: &Transition) {
            let text = match &transition.kind {
                TransitionKind::Online(user) => format!("{user}+"),
                TransitionKind::Offline(user, _) => format!("{user}-"),
                TransitionKind::Occupied(_, room) => format!("{room}+"),
                TransitionKind::Vacated(_, room) => format!("{room}-"),
            };
            self.0.lock().push(text);
        }

        fn is_behind(&self) -> bool {
            false
        }
    }

    fn embedded() -> (Arc<Presence>, Recorder) {
        let metrics = Arc::new(Metrics::new("test").unwrap());
        let (config, recorder) = (PresenceConfig::default(), Recorder::default());
        let store = MemoryStore::new(MemoryLog::new(MemoryLimits::default()), &config, metrics.clone());
        (Presence::new(&config, store, Box::new(recorder.clone()), metrics), recorder)
    }

    fn user(name: &str) -> Fact {
        Fact::Online(name.into())
    }

    async fn is_online(presence: &Presence, name: &str) -> bool {
        presence.store.users(&[name.to_owned()]).await.unwrap()[0].online
    }

    #[tokio::test]
    async fn what_is_waited_for_is_written_on_the_waiting_thread() {
        let (presence, recorder) = embedded();
        let ticket = presence.enter(user("a"), || None);
        assert!(!presence.is_written(ticket) && !is_online(&presence, "a").await);
        assert!(presence.written(ticket, false).await, "and nobody runs the writer");
        assert!(is_online(&presence, "a").await);
        let gone = presence.exit(&user("a"), LeaveReason::Left);
        presence.written_at_last(gone, true).await;
        assert_eq!(*recorder.0.lock(), ["a+", "a-"]);
    }

    #[tokio::test]
    async fn a_reservation_that_nobody_takes_is_as_if_it_had_not_been() {
        let (presence, recorder) = embedded();
        let mut reserved = Reservation::new(&presence);
        reserved.enter(user("a"), || None);
        drop(reserved);
        let mut reserved = Reservation::new(&presence);
        reserved.enter(user("b"), || None);
        assert!(presence.written(reserved.ticket(), false).await);
        assert!(reserved.take(|fact| fact.is_online("b")).is_some_and(|ticket| presence.is_written(ticket)));
        assert_eq!(reserved.take(|fact| fact.is_online("b")), None);
        drop(reserved);
        assert!(!is_online(&presence, "a").await && is_online(&presence, "b").await);
        assert_eq!(*recorder.0.lock(), ["b+"]);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_store_that_is_busy_gives_up_in_time() {
        let (presence, _) = embedded();
        let writing = presence.writer.lock().await;
        let ticket = presence.enter(user("a"), || None);
        assert!(!presence.written(ticket, false).await);
        assert!(!presence.changes.is_waited_for());
        drop(writing);
        assert!(presence.written(ticket, false).await);
    }
}
