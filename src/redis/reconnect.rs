//! Pauses and log lines between attempts to connect to Redis.

use crate::backoff::Backoff;
use crate::redis::connection::Connector;
use crate::redis::error::RedisError;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// One task's attempts to connect again.
pub(crate) struct Reconnect {
    backoff: Backoff,
    /// The error that was logged last: a repeat is not logged again.
    logged: String,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { backoff: Backoff::new(FIRST_PAUSE, MAX_PAUSE), logged: String::new() }
    }
}

impl Reconnect {
    /// The connection works again.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Logs why `task` is interrupted, unless the same error was logged last, and waits before the next attempt.
    pub(crate) async fn wait(&mut self, task: &str, connector: &Connector, error: &RedisError) {
        let error = error.to_string();
        if error != self.logged {
            tracing::warn!(error, redis = connector.describe(), "{task} is interrupted; trying again");
            self.logged = error;
        }
        tokio::time::sleep(self.backoff.next_pause()).await;
    }
}
