//! Recent idempotency ids, with their first results. Sans-IO.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A repeat of an idempotency id within this time gets the first offset (docs/http-api.md, "POST /publish").
pub const ID_LIFETIME: Duration = Duration::from_secs(300);

/// Bytes of a remembered id besides its text.
const OVERHEAD: usize = 96;

/// Ids and their first results, oldest first, bounded by [`ID_LIFETIME`] and in bytes.
#[derive(Debug)]
pub(super) struct RecentIds<T> {
    limit: usize,
    bytes: usize,
    answers: HashMap<Arc<str>, T>,
    order: VecDeque<(u64, Arc<str>)>,
}

impl<T: Copy> RecentIds<T> {
    /// Above `limit` bytes the oldest are forgotten early.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, answers: HashMap::new(), order: VecDeque::new() }
    }

    /// The first result of this id, if it is remembered.
    pub(super) fn first(&mut self, id: &str, now_ms: u64) -> Option<T> {
        while self.order.front().is_some_and(|(until, _)| *until <= now_ms) || self.bytes > self.limit {
            self.forget_oldest();
        }
        self.answers.get(id).copied()
    }

    /// The same, without forgetting any.
    pub(super) fn known(&self, id: &str) -> Option<T> {
        self.answers.get(id).copied()
    }

    /// Remembers an id that [`Self::first`] did not know.
    pub(super) fn remember(&mut self, id: &str, answer: T, now_ms: u64) {
        let id: Arc<str> = id.into();
        self.bytes += id.len() + OVERHEAD;
        self.answers.insert(id.clone(), answer);
        self.order.push_back((now_ms + ID_LIFETIME.as_millis() as u64, id));
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.bytes -= id.len() + OVERHEAD;
            self.answers.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgotten_after_five_minutes() {
        let mut ids = RecentIds::new(10_000);
        ids.remember("a", 1, 1000);
        assert_eq!(ids.first("a", 300_999), Some(1));
        assert_eq!(ids.first("a", 301_000), None);
        assert_eq!((ids.bytes, ids.answers.len()), (0, 0));
    }

    #[test]
    fn forgotten_when_there_are_too_many() {
        let mut ids = RecentIds::new(10_000);
        for n in 0..1000 {
            assert_eq!(ids.first(&n.to_string(), 0), None);
            ids.remember(&n.to_string(), n, 0);
            assert!(ids.bytes <= 10_100);
        }
        assert_eq!((ids.first("0", 0), ids.first("999", 0)), (None, Some(999)));
        assert_eq!(ids.answers.len(), ids.order.len());
    }
}
