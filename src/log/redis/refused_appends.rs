//! Whether Redis refuses every append: it is full, or the stream's key has another type. A refusal may be about one entry
//! only, so an append of this node's own decides.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// After this long a node that cannot append is not ready.
const MAX_REFUSING: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct RefusedAppends {
    is_suspected: AtomicBool,
    /// Since when this node's own appends are refused, and why.
    refused: Mutex<Option<(Instant, String)>>,
}

impl RefusedAppends {
    /// An append was refused, or the tail makes no progress: an entry of this node's own shows whether Redis takes it, and
    /// puts an end to a very large one being the last.
    pub(super) fn suspect(&self) {
        self.is_suspected.store(true, Ordering::Relaxed);
    }

    /// Whether an append of this node is to find out.
    pub(super) fn is_suspected(&self) -> bool {
        self.is_suspected.load(Ordering::Relaxed)
    }

    /// What an append of this node found.
    pub(super) fn found(&self, refusal: Option<String>) {
        self.is_suspected.store(refusal.is_some(), Ordering::Relaxed);
        let mut refused = self.refused.lock();
        let since = refused.take().map_or_else(Instant::now, |(since, _)| since);
        *refused = refusal.map(|why| (since, why));
    }

    /// Why appends are refused, if they are for so long that they will not recover by themselves.
    pub(super) fn problem(&self) -> Option<String> {
        let refused = self.refused.lock();
        let lasting = refused.as_ref().filter(|(since, _)| since.elapsed() >= MAX_REFUSING);
        lasting.map(|(_, why)| format!("appending is refused: {why}"))
    }
}
