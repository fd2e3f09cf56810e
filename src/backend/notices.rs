//! The queue of notices for many threads, and what its changes cost.

use crate::backend::config::BackendConfig;
use crate::backend::notice_queue::{Lost, Next, Notice, NoticeQueue};
use crate::backend::request::{EncodedRequest, RequestKind};
use crate::backend::{Source, Subject};
use crate::budget::{Holding, MemoryBudget};
use crate::metrics::Metrics;
use crate::model::close::DropReason;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// The queue of notices.
pub(super) struct Notices {
    /// `backend.notify`.
    wanted: ArcSwap<Vec<String>>,
    queue: Mutex<NoticeQueue>,
    started: Instant,
    arrival: Notify,
    /// How many wait or are being sent.
    pending: watch::Sender<usize>,
    metrics: Arc<Metrics>,
    memory: Arc<MemoryBudget>,
}

impl Notices {
    pub(super) fn new(config: &BackendConfig, metrics: Arc<Metrics>, memory: Arc<MemoryBudget>) -> Self {
        Self {
            wanted: ArcSwap::from_pointee(config.notify.clone()),
            queue: Mutex::new(NoticeQueue::new(config.notices_bytes)),
            started: Instant::now(),
            arrival: Notify::new(),
            pending: watch::Sender::new(0),
            metrics,
            memory,
        }
    }

    pub(super) fn wants(&self, kind: RequestKind) -> bool {
        self.wanted.load().iter().any(|wanted| wanted == kind.label())
    }

    /// Other kinds and bytes from now on. What waits is sent, as far as there is still room for it.
    pub(super) fn allow(&self, config: &BackendConfig) {
        self.wanted.store(Arc::new(config.notify.clone()));
        self.change(|queue| queue.allow(config.notices_bytes));
    }

    /// Queues a notice; what it replaces or pushes out is counted.
    pub(super) fn push(&self, source: &Source, subject: Subject, notice: EncodedRequest) {
        self.change(|queue| {
            // Under the lock, so that it is counted before it can be sent.
            self.pending.send_modify(|pending| *pending += 1);
            queue.push(source, subject, notice)
        });
        self.arrival.notify_one();
    }

    /// Changes the queue, and counts what that costs.
    fn change(&self, change: impl FnOnce(&mut NoticeQueue) -> Lost) {
        let mut queue = self.queue.lock();
        let before = queue.bytes();
        let lost = change(&mut queue);
        self.memory.adjust(Holding::Notices, before, queue.bytes());
        self.metrics.events.dropped(DropReason::NoticeMerged, lost.merged);
        self.metrics.events.dropped(DropReason::NoticeFull, lost.dropped);
        let gone = usize::try_from(lost.merged + lost.dropped).unwrap_or(usize::MAX);
        if gone > 0 {
            self.pending.send_modify(|pending| *pending = pending.saturating_sub(gone));
        }
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

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The next notice whose time has come.
    pub(super) async fn next(&self) -> Notice {
        loop {
            let arrival = self.arrival.notified();
            let mut next = Next::Nothing;
            self.change(|queue| {
                next = queue.next(self.now_ms());
                Lost::default()
            });
            match next {
                Next::Send(notice) => return notice,
                Next::At(ms) => {
                    let at = self.started + Duration::from_millis(ms);
                    let _ = tokio::time::timeout_at(at, arrival).await;
                }
                Next::Nothing => arrival.await,
            }
        }
    }

    /// A notice is given up.
    pub(super) fn give_up(&self, notice: &Notice) {
        self.metrics.events.dropped(DropReason::Notice, 1);
        self.done(notice);
    }

    /// A notice arrived.
    pub(super) fn done(&self, notice: &Notice) {
        self.queue.lock().done(notice);
        self.pending.send_modify(|pending| *pending -= 1);
    }

    /// A notice is to be sent again, after a pause.
    pub(super) fn retry(&self, notice: Notice, pause: Duration) {
        let at_ms = self.now_ms() + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.change(|queue| queue.retry(notice, at_ms));
    }
}
