//! Sends notices to the backend: several at once, those of one user or session in order. They are retried for about five
//! minutes and never block a client.

use crate::backend::client::Backend;
use crate::backend::{BackendError, MAX_SENDING};
use crate::backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a notice is retried, from its first attempt.
const RETRY_MS: u64 = 300_000;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Doublings of the pause, after which it is `MAX_PAUSE` anyway.
const MAX_DOUBLINGS: u32 = 8;

/// Sends notices and feeds the stream, until dropped.
pub async fn run(backend: Arc<Backend>) {
    let mut tasks = JoinSet::new();
    for _ in 0..MAX_SENDING {
        let backend = backend.clone();
        tasks.spawn(async move { send_one_by_one(&backend).await });
    }
    if backend.is_stream() {
        tasks.spawn(async move { backend.feed_stream().await });
    }
    // None of them ends by itself.
    while tasks.join_next().await.is_some() {}
}

async fn send_one_by_one(backend: &Backend) {
    let notices = &backend.notices;
    loop {
        backend.circuit_rested().await;
        let mut notice = notices.next().await;
        let first_ms = *notice.first_ms.get_or_insert(notices.now_ms());
        match backend.send_notice(notice.lane.source(), notice.request.clone()).await {
            // It was not attempted.
            Err(BackendError::CircuitOpen) => notices.retry(notice, FIRST_PAUSE),
            Err(error) if error.is_retryable() && notices.now_ms() < first_ms + RETRY_MS => {
                notice.failures += 1;
                let pause = pause_after(notice.failures);
                notices.retry(notice, pause);
            }
            Err(_) => notices.give_up(&notice),
            Ok(()) => notices.done(&notice),
        }
    }
}

fn pause_after(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE * 2_u32.pow(failures.saturating_sub(1).min(MAX_DOUBLINGS));
    Backoff::new(doubled.min(MAX_PAUSE), MAX_PAUSE).next_pause()
}
