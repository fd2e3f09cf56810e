//! Pauses and log lines between attempts to connect to Redis.

use crate::backoff::Backoff;
use crate::logging::Repeats;
use crate::redis::connection::Connector;
use crate::redis::error::RedisError;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// One task's attempts to connect again.
pub(crate) struct Reconnect {
    backoff: Backoff,
    /// The error that was logged last: a repeat is not logged again.
    logged: String,
    /// The task, if this one logged that it is interrupted.
    interrupted: Option<&'static str>,
    /// What others of its kind have logged.
    repeats: Arc<Repeats>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self::among(Arc::default())
    }
}

impl Reconnect {
    /// Of a task that has others of its kind: they share what they have logged, so that one outage is logged once.
    pub(crate) fn among(repeats: Arc<Repeats>) -> Self {
        Self { backoff: Backoff::new(FIRST_PAUSE, MAX_PAUSE), logged: String::new(), interrupted: None, repeats }
    }

    /// The connection works again, which is logged where the interruption was.
    pub(crate) fn reset(&mut self) {
        if let Some(task) = self.interrupted {
            tracing::info!("{task} goes on");
        }
        *self = Self::among(self.repeats.clone());
    }

    /// Logs why `task` is interrupted, unless the same error was logged last or by another of its kind a moment ago, and waits
    /// before the next attempt.
    pub(crate) async fn wait(&mut self, task: &'static str, connector: &Connector, error: &RedisError) {
        let error = error.to_string();
        if error != self.logged {
            if self.repeats.is_news(format!("{task}: {error}"), Instant::now()) {
                tracing::warn!(error, redis = connector.describe(), "{task} is interrupted; trying again");
                self.interrupted = Some(task);
            }
            self.logged = error;
        }
        tokio::time::sleep(self.backoff.next_pause()).await;
    }
}
