//! `[recovery]`.

use std::time::Duration;

/// `[recovery]`.
#[derive(Clone, Debug)]
pub struct RecoveryConfig {
    /// How far back a client may resume. Zero: recovery off, no pid, no offsets.
    pub window: Duration,
    /// Bytes of events a node keeps for it.
    pub window_bytes: usize,
}

impl RecoveryConfig {
    /// How long events are kept for it: a session that was lost with its node is known as it was up to a fifth of the
    /// window before.
    pub fn kept(&self) -> Duration {
        self.window * 5 / 4
    }
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self { window: Duration::from_secs(120), window_bytes: 64_000_000 }
    }
}
