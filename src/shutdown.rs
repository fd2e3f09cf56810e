//! The graceful stop: its settings, and the signals that ask for it. `app` has its steps.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// `[shutdown]`.
#[derive(Clone, Debug)]
pub struct ShutdownConfig {
    /// From "not ready" on `/health` to the first close, so that load balancers notice.
    pub pause: Duration,
    /// The time over which the closing of sessions is spread.
    pub drain: Duration,
    /// The whole stop takes this long at most; then the remaining connections are cut.
    pub timeout: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { pause: Duration::from_secs(1), drain: Duration::from_secs(10), timeout: Duration::from_secs(30) }
    }
}

/// The signals that a node handles: SIGTERM and SIGINT stop it, SIGHUP makes it read its configuration again. SIGUSR1 and
/// SIGUSR2 would end the process by default; here they are logged and ignored.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Registers the handlers. Do it first, so that a signal during the start is not lost.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the first SIGTERM or SIGINT, and passes each SIGHUP on.
    pub async fn wait(mut self, hangups: &Notify) {
        loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    hangups.notify_one();
                    continue;
                }
                _ = self.user1.recv() => "SIGUSR1",
                _ = self.user2.recv() => "SIGUSR2",
            };
            tracing::warn!(signal = ignored, "signal ignored");
        }
    }
}
