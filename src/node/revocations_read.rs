//! Whether a node knows what is revoked: before that it lets nobody in.

use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long a client waits for a node that has just started.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// How far this node knows what is revoked.
pub struct RevocationsRead {
    is_known: watch::Sender<bool>,
    again: Notify,
}

impl RevocationsRead {
    /// `is_known` from the start where nothing is kept outside this process.
    pub fn new(is_known: bool) -> Self {
        Self { is_known: watch::Sender::new(is_known), again: Notify::new() }
    }

    /// Waits until what is kept was read, but not for ever; whether it was.
    pub async fn known(&self) -> bool {
        if *self.is_known.borrow() {
            return true;
        }
        let mut known = self.is_known.subscribe();
        matches!(tokio::time::timeout(READ_WITHIN, known.wait_for(|known| *known)).await, Ok(Ok(_)))
    }

    /// The log starts anew: some may have been missed, or Redis may have lost some.
    pub fn read_again(&self) {
        self.again.notify_one();
    }

    /// What is kept was read.
    pub(super) fn done(&self) {
        self.is_known.send_replace(true);
    }

    /// Waits for [`RevocationsRead::read_again`].
    pub(super) async fn wanted_again(&self) {
        self.again.notified().await;
    }
}
