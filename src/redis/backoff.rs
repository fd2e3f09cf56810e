//! When to try again.

use crate::redis::connection::{Connector, LinkError};
use std::time::Duration;

/// Reconnections are at most this far apart.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// Pauses between attempts to connect: doubling, with jitter so that nodes do not come all at once.
pub(crate) struct Backoff {
    next: Duration,
    reported: String,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST_BACKOFF, reported: String::new() }
    }
}

impl Backoff {
    /// After a success.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Logs why something is interrupted, once for each reason in a row.
    pub(crate) fn report(&mut self, what: &str, connector: &Connector, error: &LinkError) {
        let error = error.to_string();
        if error != self.reported {
            tracing::warn!(error, redis = connector.address(), "{what} is interrupted; trying again");
            self.reported = error;
        }
    }

    /// Waits before the next attempt.
    pub(crate) async fn wait(&mut self) {
        let pause = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(LONGEST_BACKOFF);
        tokio::time::sleep(pause).await;
    }
}
