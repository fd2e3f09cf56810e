//! When the JWKS is fetched: at start, at intervals, and when a token names a key that is not known yet.

use rand::RngExt as _;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

/// The times of JWKS fetches.
#[derive(Clone, Copy, Debug)]
pub struct JwksTiming {
    /// Least time between the starts of two fetches. Default 3 s.
    pub min_interval: Duration,
    /// Time between fetches if the answer has no `max-age`. Default 10 min.
    pub refresh: Duration,
    /// Least and greatest `max-age` that is obeyed, so that a withdrawn key is noticed. Default 1 min and 1 h.
    pub max_age: (Duration, Duration),
    /// Longest pause after failures. Default 1 min.
    pub max_backoff: Duration,
    /// Timeout of a fetch, from connecting to the last byte. Default 5 s.
    pub timeout: Duration,
}

impl Default for JwksTiming {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_secs(3),
            refresh: Duration::from_secs(600),
            max_age: (Duration::from_secs(60), Duration::from_secs(3600)),
            max_backoff: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Fetches are numbered from 1.
#[derive(Clone, Copy, Default)]
struct Progress {
    started: u64,
    finished: u64,
}

/// Connects the tasks that wait for a key (on any runtime) with the one loop that fetches (on the control runtime). One
/// fetch serves all that wait.
pub(super) struct Refresher {
    timing: JwksTiming,
    progress: watch::Sender<Progress>,
    asked: Notify,
    /// The highest number of a fetch that a task waits for.
    needed: AtomicU64,
    waiting: AtomicUsize,
}

/// Counts one waiting task until it is dropped, for example because its client disconnects.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Refresher {
    pub(super) fn new(timing: JwksTiming) -> Self {
        Self {
            timing,
            progress: watch::Sender::default(),
            asked: Notify::new(),
            needed: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Asks for a fetch and calls `attempt` after it, until it has an answer or a fetch that started after this call is
    /// over. Takes at most `min_interval + timeout`.
    pub(super) async fn wait_for<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + self.timing.min_interval + self.timing.timeout;
        let mut progress = self.progress.subscribe();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        // A running fetch may have been answered before the key was published. Only a later one is proof.
        let need = progress.borrow_and_update().started + 1;
        // The key may have arrived since the caller looked.
        if let Some(answer) = attempt() {
            return Some(answer);
        }
        self.needed.fetch_max(need, Ordering::SeqCst);
        self.asked.notify_one();
        loop {
            let changed = timeout_at(deadline, progress.changed()).await;
            let finished = progress.borrow_and_update().finished;
            match attempt() {
                Some(answer) => return Some(answer),
                None if finished >= need || !matches!(changed, Ok(Ok(()))) => return None,
                None => {}
            }
        }
    }

    /// Fetches until dropped. `fetch` returns the `max-age` of the answer.
    pub(super) async fn run<F>(&self, mut fetch: impl FnMut() -> F)
    where
        F: Future<Output = Result<Option<Duration>, ()>>,
    {
        let mut failures = 0;
        loop {
            let start = Instant::now();
            self.progress.send_modify(|progress| progress.started += 1);
            let result = fetch().await;
            self.progress.send_modify(|progress| progress.finished = progress.started);
            let pause = match result {
                Ok(max_age) => {
                    failures = 0;
                    self.refresh_after(max_age)
                }
                Err(()) => {
                    failures += 1;
                    self.backoff(failures)
                }
            };
            self.pause(start, pause).await;
        }
    }

    async fn pause(&self, start: Instant, pause: Duration) {
        let earliest = start + self.timing.min_interval;
        let due = earliest.max(Instant::now() + pause);
        loop {
            tokio::select! {
                () = sleep_until(due) => return,
                () = self.asked.notified() => sleep_until(earliest).await,
            }
            // The tasks that asked may have got their answer meanwhile, or be gone.
            let needed = self.needed.load(Ordering::SeqCst) > self.progress.borrow().started;
            if needed && self.waiting.load(Ordering::SeqCst) > 0 {
                return;
            }
        }
    }

    /// Up to 10 % more or less, so that nodes that start together do not fetch together.
    fn refresh_after(&self, max_age: Option<Duration>) -> Duration {
        let (least, max) = self.timing.max_age;
        max_age.map_or(self.timing.refresh, |age| age.clamp(least, max)).mul_f64(rand::rng().random_range(0.9..1.1))
    }

    fn backoff(&self, failures: u32) -> Duration {
        let doubled = self.timing.min_interval.saturating_mul(1 << failures.min(16));
        doubled.min(self.timing.max_backoff).mul_f64(rand::rng().random_range(0.5..1.0))
    }
}
