//! What the backend is told and need not answer: in order, again until it has heard, and never in anybody's way.

use crate::backend::BackendError;
use crate::backend::call::{Call, Request};
use crate::backend::requests::Backend;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Notices that may wait; over it the oldest are dropped.
const MOST: usize = 10_000;
/// A notice is tried so often, over some five minutes.
const ATTEMPTS: u32 = 14;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Those that wait.
pub(super) struct Notices {
    wanted: Vec<String>,
    waiting: Mutex<VecDeque<Request>>,
    arrival: Notify,
    /// How many wait or are being told.
    untold: watch::Sender<usize>,
}

impl Notices {
    /// Of the kinds in `backend.notify`.
    pub(super) fn new(wanted: &[String]) -> Self {
        Self {
            wanted: wanted.to_vec(),
            waiting: Mutex::default(),
            arrival: Notify::new(),
            untold: watch::Sender::new(0),
        }
    }

    fn pop(&self) -> Option<Request> {
        self.waiting.lock().pop_front()
    }
}

impl Backend {
    /// Whether the backend wants to hear of this.
    pub fn wants(&self, kind: &str) -> bool {
        self.notices.wanted.iter().any(|wanted| wanted == kind)
    }

    /// Tells the backend, in time; answers how many older notices had to go for it.
    pub fn notify(&self, call: &Call<'_>) -> usize {
        let mut waiting = self.notices.waiting.lock();
        waiting.push_back(call.request());
        let dropped = usize::from(waiting.len() > MOST && waiting.pop_front().is_some());
        // Under the lock, so that it is counted before it can be told.
        self.notices.untold.send_modify(|untold| *untold += 1 - dropped);
        drop(waiting);
        self.notices.arrival.notify_one();
        dropped
    }

    /// How many notices wait or are being told.
    pub fn untold(&self) -> usize {
        *self.notices.untold.borrow()
    }

    /// Tells what waits, one after the other, until dropped. Answers `given_up` for each that was tried in vain.
    pub(super) async fn tell_all(&self, given_up: impl Fn(&'static str)) {
        loop {
            let Some(request) = self.notices.pop() else {
                self.notices.arrival.notified().await;
                continue;
            };
            let kind = request.kind;
            if self.tell(request).await.is_err() {
                given_up(kind);
            }
            self.notices.untold.send_modify(|untold| *untold -= 1);
        }
    }

    /// Waits until everything is told, or for so long; answers how much is not.
    pub async fn told(&self, patience: Duration) -> usize {
        let mut untold = self.notices.untold.subscribe();
        // The sender is ours, so only time can end this early.
        let _ = tokio::time::timeout(patience, untold.wait_for(|untold| *untold == 0)).await;
        *self.notices.untold.borrow()
    }

    async fn tell(&self, request: Request) -> Result<(), BackendError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.send(request.clone(), |_| Ok(())).await {
                Err(error) if error.may_pass() => {}
                told => return told,
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.send(request, |_| Ok(())).await
    }
}
