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
    /// Between the starts of two fetches, whoever asks for them.
    pub least_interval: Duration,
    /// Between refreshes, where the answer's `max-age` does not say otherwise.
    pub refresh: Duration,
    /// Bounds of `max-age`: a key that is withdrawn must go at some time.
    pub max_age: (Duration, Duration),
    /// Longest pause after failures.
    pub most_backoff: Duration,
    /// Of one fetch, from connecting to the last byte.
    pub timeout: Duration,
}

impl Default for JwksTiming {
    fn default() -> Self {
        Self {
            least_interval: Duration::from_secs(3),
            refresh: Duration::from_secs(600),
            max_age: (Duration::from_secs(60), Duration::from_secs(3600)),
            most_backoff: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
        }
    }
}

/// How far the fetching is; fetches are numbered from 1.
#[derive(Clone, Copy, Default)]
struct Progress {
    started: u64,
    finished: u64,
}

/// Brings those who wait for a key (on any runtime) and the one loop that fetches (on the control runtime)
/// together. However many wait, one fetch serves them.
pub(super) struct Refresher {
    timing: JwksTiming,
    progress: watch::Sender<Progress>,
    asked: Notify,
    /// The highest number of a fetch that somebody waits for.
    needed: AtomicU64,
    waiting: AtomicUsize,
}

/// Counts one who waits, also when their future is dropped (the client went away).
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

    /// Asks for a fetch and tries again after it: until `attempt` has an answer, or a fetch that started after the
    /// asking is over, or time is. Wait at most `least_interval + timeout`.
    pub(super) async fn wait_for<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + self.timing.least_interval + self.timing.timeout;
        let mut progress = self.progress.subscribe();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        // A fetch under way may have been answered before the key was published; only a later one is proof.
        let need = progress.borrow_and_update().started + 1;
        // The keys may have come since the caller looked.
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

    /// Fetches for ever. `fetch` gives the answer's `max-age`, or fails.
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
        let earliest = start + self.timing.least_interval;
        let due = earliest.max(Instant::now() + pause);
        loop {
            tokio::select! {
                () = sleep_until(due) => return,
                () = self.asked.notified() => sleep_until(earliest).await,
            }
            // Those who asked may have been served meanwhile, or gone.
            let needed = self.needed.load(Ordering::SeqCst) > self.progress.borrow().started;
            if needed && self.waiting.load(Ordering::SeqCst) > 0 {
                return;
            }
        }
    }

    /// A tenth more or less, so that nodes started together do not fetch together.
    fn refresh_after(&self, max_age: Option<Duration>) -> Duration {
        let (least, max) = self.timing.max_age;
        max_age.map_or(self.timing.refresh, |age| age.clamp(least, max)).mul_f64(rand::rng().random_range(0.9..1.1))
    }

    fn backoff(&self, failures: u32) -> Duration {
        let doubled = self.timing.least_interval.saturating_mul(1 << failures.min(16));
        doubled.min(self.timing.most_backoff).mul_f64(rand::rng().random_range(0.5..1.0))
    }
}
