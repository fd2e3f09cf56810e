//! Who waits for which pass over a line of the log.

use crate::log::backfill::{Needed, Needs, Waiting};
use crate::model::names::Namespace;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Sessions that wait for a pass.
pub struct BackfillQueue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// The number of the last pass that is over, and whether it read anything.
    done: watch::Sender<(u64, bool)>,
}

impl Default for BackfillQueue {
    fn default() -> Self {
        Self { waiting: Mutex::default(), arrived: Notify::new(), done: watch::Sender::new((0, false)) }
    }
}

impl BackfillQueue {
    /// Asks for a pass that looks for this. Answers its number.
    pub(super) fn ask(&self, namespace: &Namespace, needs: &Needs) -> u64 {
        let number = self.waiting.lock().add(namespace, needs);
        self.arrived.notify_one();
        number
    }

    /// Waits until the pass with this number is over. Whether it read anything.
    pub(super) async fn read(&self, number: u64) -> bool {
        // The sender lives as long as `self`.
        let done = self.done.subscribe().wait_for(|(done, _)| *done >= number).await.map(|done| *done);
        // A later one read for others: what it says of the log holds too.
        done.is_ok_and(|(_, has_read)| has_read)
    }

    /// Completes when somebody waits.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Begins the next pass, if anybody waits for one.
    pub(super) fn begin(&self) -> Option<(u64, Needed)> {
        self.waiting.lock().begin()
    }

    /// A pass is over.
    pub(super) fn finish(&self, number: u64, has_read: bool) {
        self.done.send_replace((number, has_read));
    }
}
