//! Graceful stop: its settings, and the signals that ask for it. `app` has the order of its phases.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

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

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on, so that a signal during the start is not lost.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Until the first of them.
    pub async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
