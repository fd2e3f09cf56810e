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

/// The signals that a node answers: SIGTERM and SIGINT stop it. SIGHUP, SIGUSR1 and SIGUSR2, whose default is to end
/// the process at once, only leave a line in the log.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Listens from now on, so that a signal during the start is not lost.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Until the first SIGTERM or SIGINT.
    pub async fn wait(mut self) {
        loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => "SIGHUP",
                _ = self.user1.recv() => "SIGUSR1",
                _ = self.user2.recv() => "SIGUSR2",
            };
            tracing::warn!(signal = ignored, "signal ignored; restart the node to apply a changed configuration");
        }
    }
}
