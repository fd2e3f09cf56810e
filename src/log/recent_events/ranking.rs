//! Who holds most (sans-IO).

use std::collections::BTreeSet;

/// From how many bytes on one is among the large ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Large {
    /// Is listed. Several lines have a part of what one holds, each for itself.
    pub(super) listed: usize,
    /// Loses its events before others.
    pub(super) stands_out: usize,
}

/// Those that are listed, by the power of two of their bytes. For nearly all changes nothing is to be done.
#[derive(Debug)]
pub(super) struct Ranking<K> {
    sizes: BTreeSet<(u32, K)>,
    /// Who has fewer bytes is not listed.
    from: usize,
}

impl<K: Ord> Ranking<K> {
    /// Empty. Who has at least so many bytes is listed.
    pub(super) fn new(from: usize) -> Self {
        Self { sizes: BTreeSet::new(), from: from.max(1) }
    }

    /// From how many bytes on one is listed.
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

    /// One of the largest, within a factor of two, if it has at least about so many bytes.
    pub(super) fn largest(&self, from: usize) -> Option<&K> {
        self.sizes.last().filter(|(class, _)| *class >= from.max(1).ilog2()).map(|(_, key)| key)
    }

    /// The largest, within a factor of two.
    pub(super) fn first(&self, max: usize) -> impl Iterator<Item = &K> {
        self.sizes.iter().rev().take(max).map(|(_, key)| key)
    }

    fn class(&self, bytes: usize) -> Option<u32> {
        (bytes >= self.from).then(|| bytes.ilog2())
    }
}
