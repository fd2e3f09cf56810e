//! How many requests are being answered.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The requests that are being answered. The graceful stop waits for them.
#[derive(Default)]
pub struct Traffic {
    requests: AtomicUsize,
    idle: Notify,
}

/// Counts one request until it is dropped.
pub(super) struct Busy<'a>(&'a Traffic);

impl Traffic {
    pub(super) fn begin(&self) -> Busy<'_> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy(self)
    }

    /// Waits until no request is being answered.
    pub async fn wait_until_idle(&self) {
        while self.requests.load(Ordering::Relaxed) > 0 {
            self.idle.notified().await;
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_one();
        }
    }
}
