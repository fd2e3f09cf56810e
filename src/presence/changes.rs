//! Changes of this node that wait to be written, and callers that wait until the store has them.

use crate::presence::tracker::{Millis, Table};
use crate::presence::{Change, Fact, Known, LeaveReason, Messages, Ticket};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Changes in one step of the store: some 10 µs each there.
const AT_ONCE: usize = 200;

/// Completes when a ticket is written, or with `false` at once for a leave while no fact is removed (`Table::is_holding`).
pub(super) struct Waiting<'a> {
    changes: &'a Changes,
    ticket: Ticket,
    receiver: oneshot::Receiver<()>,
    is_over: bool,
}

impl Future for Waiting<'_> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let written = ready!(Pin::new(&mut self.receiver).poll(context)).is_ok();
        self.is_over = true;
        Poll::Ready(written)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.receiver.close();
            self.changes.forget(self.ticket);
        }
    }
}

/// Changes of this node, from all of its threads.
pub(super) struct Changes {
    state: Mutex<State>,
    /// The newest ticket that is in the store.
    written: AtomicU64,
    started: Instant,
}

struct State {
    table: Table,
    waiting: BTreeMap<Ticket, Vec<Waiter>>,
}

struct Waiter {
    is_leave: bool,
    done: oneshot::Sender<()>,
}

impl Changes {
    /// Nobody is there yet.
    pub(super) fn new(grace: Duration) -> Self {
        let table = Table::new(u64::try_from(grace.as_millis()).unwrap_or(Millis::MAX));
        let state = Mutex::new(State { table, waiting: BTreeMap::new() });
        Self { state, written: AtomicU64::new(0), started: Instant::now() }
    }

    /// On the clock of all that is counted here.
    pub(super) fn now(&self) -> Millis {
        Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// One connection more makes a fact true.
    pub(super) fn enter(&self, fact: Fact, messages: impl FnOnce() -> Option<Messages>) -> Ticket {
        let mut state = self.state();
        if state.table.is_true(&fact) {
            return state.table.enter(fact, None);
        }
        drop(state);
        // All shards share the lock: the templates are filled without it.
        let messages = messages();
        self.state().table.enter(fact, messages)
    }

    /// One connection less.
    pub(super) fn exit(&self, fact: &Fact, reason: LeaveReason) -> Ticket {
        self.state().table.exit(fact, self.now(), reason)
    }

    /// Whether the store has every change up to this ticket.
    pub(super) fn is_written(&self, ticket: Ticket) -> bool {
        ticket.0 <= self.written.load(Ordering::Acquire)
    }

    /// Waits for this ticket; `None` where the store has it already.
    pub(super) fn wait_for(&self, ticket: Ticket, is_leave: bool) -> Option<Waiting<'_>> {
        let (done, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.table.is_written(ticket) {
            return None;
        }
        if !(is_leave && state.table.is_holding(self.now())) {
            state.waiting.entry(ticket).or_default().push(Waiter { is_leave, done });
        }
        Some(Waiting { changes: self, ticket, receiver, is_over: false })
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

    /// How long until the next grace ends, so that there is something to write.
    pub(super) fn next(&self) -> Duration {
        let next = self.state().table.next();
        next.map_or(Duration::MAX, |next| Duration::from_millis(next.saturating_sub(self.now())))
    }

    /// The changes of the next step.
    pub(super) fn take(&self) -> Vec<Change> {
        self.state().table.take(self.now(), AT_ONCE)
    }

    /// What was last taken is in the store, and what it announced is in the log.
    pub(super) fn confirm(&self, changes: &[Change]) {
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
            // The caller may have given up.
            let _ = waiter.done.send(());
        }
    }

    /// What was last taken is not in the store.
    pub(super) fn put_back(&self, changes: Vec<Change>) {
        self.state().table.put_back(changes);
    }

    /// All facts are to be written again: of this node, the store has only what is `known`.
    pub(super) fn write_again(&self, known: Known) {
        let lost = known.lost;
        let mut state = self.state();
        state.table.write_again(known, self.now());
        if lost {
            // No fact is removed for a while.
            state.waiting.values_mut().for_each(|waiting| waiting.retain(|waiter| !waiter.is_leave));
        }
    }

    /// Whether anybody waits.
    #[cfg(test)]
    pub(super) fn is_waited_for(&self) -> bool {
        !self.state().waiting.is_empty()
    }
}
