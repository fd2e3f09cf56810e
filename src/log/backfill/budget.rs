//! The bytes that passes over several lines may hold together (sans-IO).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Each line may always have an equal part of it, and otherwise what passes over other lines do not need at that time.
#[derive(Debug)]
pub struct PassBudget {
    bytes: usize,
    lines: usize,
    used: AtomicUsize,
}

/// What one pass uses of it, until dropped.
#[derive(Debug)]
pub(super) struct Used {
    budget: Arc<PassBudget>,
    bytes: usize,
}

impl PassBudget {
    /// So many bytes for so many lines.
    pub fn new(bytes: usize, lines: usize) -> Arc<Self> {
        Arc::new(Self { bytes, lines, used: AtomicUsize::new(0) })
    }
}

impl Used {
    pub(super) fn new(budget: Arc<PassBudget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Notes how many bytes the pass holds now. Answers how many it may.
    pub(super) fn note(&mut self, bytes: usize) -> usize {
        let PassBudget { bytes: all, lines, used } = &*self.budget;
        let before = match bytes >= self.bytes {
            true => used.fetch_add(bytes - self.bytes, Ordering::Relaxed),
            false => used.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        };
        let others = before.saturating_sub(self.bytes);
        self.bytes = bytes;
        all.saturating_sub(others).max(all / lines)
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.note(0);
    }
}
