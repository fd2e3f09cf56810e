//! Notices to the backend: sent one at a time, in order, and retried for about five minutes. They never block a client.

use crate::backend::request::{EncodedRequest, RequestKind};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Notices that may wait. Above it the oldest is dropped and counted for each new one.
const MAX_WAITING: usize = 10_000;

/// The queue of notices.
pub(super) struct Notices {
    /// `backend.notify`.
    wanted: Vec<String>,
    waiting: Mutex<VecDeque<EncodedRequest>>,
    arrival: Notify,
    /// How many wait or are being sent.
    pending: watch::Sender<usize>,
}

impl Notices {
    pub(super) fn new(wanted: &[String]) -> Self {
        Self {
            wanted: wanted.to_vec(),
            waiting: Mutex::default(),
            arrival: Notify::new(),
            pending: watch::Sender::new(0),
        }
    }

    pub(super) fn wants(&self, kind: RequestKind) -> bool {
        self.wanted.iter().any(|wanted| wanted == kind.label())
    }

    /// Queues a notice; returns how many older ones were dropped for it.
    pub(super) fn push(&self, notice: EncodedRequest) -> usize {
        let mut waiting = self.waiting.lock();
        waiting.push_back(notice);
        let dropped = usize::from(waiting.len() > MAX_WAITING && waiting.pop_front().is_some());
        // Under the lock, so that it is counted before it can be sent.
        self.pending.send_modify(|pending| *pending += 1 - dropped);
        drop(waiting);
        self.arrival.notify_one();
        dropped
    }

    /// How many notices wait or are being sent.
    pub(super) fn pending(&self) -> usize {
        *self.pending.borrow()
    }

    /// Waits until all are sent, at most for `timeout`; returns how many are not.
    pub(super) async fn wait_until_sent(&self, timeout: Duration) -> usize {
        let mut pending = self.pending.subscribe();
        // The sender lives as long as `self`, so only the timeout can end this early.
        let _ = tokio::time::timeout(timeout, pending.wait_for(|pending| *pending == 0)).await;
        self.pending()
    }

    /// The next notice, oldest first. [`Notices::done`] follows.
    pub(super) async fn next(&self) -> EncodedRequest {
        loop {
            let next = self.waiting.lock().pop_front();
            match next {
                Some(notice) => return notice,
                None => self.arrival.notified().await,
            }
        }
    }

    /// The notice that [`Notices::next`] returned last was sent, or given up.
    pub(super) fn done(&self) {
        self.pending.send_modify(|pending| *pending -= 1);
    }
}
