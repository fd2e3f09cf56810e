//! The settings of a node's shards that may change while it runs.

use crate::budget::account::AccountLimits;
use crate::rules::Rules;
use crate::session::config::LimitsConfig;
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a reload replaces as a whole.
pub struct Settings {
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[[rooms]]` and `[[on]]`.
    pub rules: Rules,
    /// What users, addresses and tenants may use.
    pub accounts: AccountLimits,
    /// Whether the backend wants to hear of every session that ends.
    pub notify_disconnects: bool,
}

/// The settings in force. Shards read them without a lock; whoever has read them keeps them until it lets go.
pub struct LiveSettings {
    all: ArcSwap<Settings>,
    /// `limits.outbox_bytes`, which is read for every delivery.
    outbox_bytes: AtomicUsize,
}

impl LiveSettings {
    /// Begins with these.
    pub fn new(settings: Settings) -> Self {
        let outbox_bytes = AtomicUsize::new(settings.limits.outbox_bytes);
        Self { all: ArcSwap::from_pointee(settings), outbox_bytes }
    }

    /// Those in force.
    pub fn get(&self) -> Guard<Arc<Settings>> {
        self.all.load()
    }

    /// `limits.outbox_bytes`.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox_bytes.load(Ordering::Relaxed)
    }

    /// Puts others in force, on all shards at once.
    pub fn replace(&self, settings: Settings) {
        self.outbox_bytes.store(settings.limits.outbox_bytes, Ordering::Relaxed);
        self.all.store(Arc::new(settings));
    }
}
