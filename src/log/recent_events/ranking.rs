//! Who holds most (sans-IO).

use std::collections::BTreeSet;

/// Those that stand out, by the power of two of their bytes. For nearly all changes nothing is to be done.
#[derive(Debug)]
pub(super) struct Ranking<K> {
    sizes: BTreeSet<(u32, K)>,
    /// Who has fewer bytes does not stand out.
    from: usize,
}

impl<K: Ord> Ranking<K> {
    /// Empty. Who has at least so many bytes stands out.
    pub(super) fn new(from: usize) -> Self {
        Self { sizes: BTreeSet::new(), from: from.max(1) }
    }

    /// From how many bytes on one stands out.
    pub(super) fn from(&self) -> usize {
        self.from
    }

    /// Whether a change from so many bytes to so many is to be noted.
    pub(super) fn matters(&self, before: usize, now: usize) -> bool {
        self.class(before) != self.class(now)
    }

    /// Notes a change that matters.
    pub(super) fn note(&mut self, key: impl Fn() -> K, before: usize, now: usize) {
        if let Some(before) = self.class(before) {
            self.sizes.remove(&(before, key()));
        }
        if let Some(now) = self.class(now) {
            self.sizes.insert((now, key()));
        }
    }

    /// One of the largest, within a factor of two.
    pub(super) fn largest(&self) -> Option<&K> {
        self.sizes.last().map(|(_, key)| key)
    }

    fn class(&self, bytes: usize) -> Option<u32> {
        (bytes >= self.from).then(|| bytes.ilog2())
    }
}
