//! What comes and goes on this node's shards.

use crate::presence::config::PresenceConfig;
use crate::presence::tracker::{Millis, Table};
use crate::presence::{Fact, Messages, Store};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The store hears that this node lives so often, at least four times in a lease.
const TICK: Duration = Duration::from_secs(1);

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// What this node knows of who is there.
pub struct Presence {
    /// What all nodes know together.
    pub store: Arc<dyn Store>,
    pub(crate) table: Mutex<Table>,
    pub(crate) started: Instant,
    pub(crate) tick: Duration,
    pub(crate) wake: Notify,
    pub(crate) leaving: AtomicBool,
    pub(crate) left: Notify,
}

impl Presence {
    /// Nobody is there yet.
    pub fn new(config: &PresenceConfig, store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            table: Mutex::new(Table::new(millis(config.grace))),
            started: Instant::now(),
            tick: (config.lease / 4).min(TICK),
            wake: Notify::new(),
            leaving: AtomicBool::new(false),
            left: Notify::new(),
        })
    }

    pub(crate) fn now(&self) -> Millis {
        millis(self.started.elapsed())
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// One connection more makes a fact true.
    pub fn enter(&self, fact: Fact, messages: impl FnOnce() -> Option<Messages>) {
        if self.table().enter(fact, messages) {
            self.wake.notify_one();
        }
    }

    /// One connection less.
    pub fn exit(&self, fact: &Fact, lost: bool) {
        if self.table().exit(fact, self.now(), lost) {
            self.wake.notify_one();
        }
    }

    /// Writes what waits and says that this node stops: its users have the grace to come elsewhere.
    pub async fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.wake.notify_one();
        self.left.notified().await;
    }
}
