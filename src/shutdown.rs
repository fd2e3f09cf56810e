//! Graceful stop: its settings and phases.

use std::time::Duration;

/// `[shutdown]`: not ready, pause, stop accepting, drain, flush, exit (DESIGN 12).
#[derive(Clone, Debug)]
pub struct ShutdownConfig {
    /// Between "not ready" on `/health` and the first close, for load balancers to notice.
    pub pause: Duration,
    /// The window over which sessions are told, in random batches.
    pub drain: Duration,
    /// After this long in all, whatever is left is cut.
    pub timeout: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { pause: Duration::from_secs(1), drain: Duration::from_secs(10), timeout: Duration::from_secs(30) }
    }
}
