//! Who is closed when the node is over its memory: the largest connections of the owners that hold the most.

use crate::budget::Level;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Whoever holds less is never closed: closing it would give nothing back.
pub const MIN_HOLDING: usize = 1 << 10;
/// Whoever holds less is closed only where such small holdings are what there is too much of.
const SMALL_HOLDING: usize = 16 << 10;

/// When holders are closed: from [`Level::Over`] on, until [`Level::Calm`].
#[derive(Debug, Default)]
pub struct Relief {
    has_begun: bool,
}

impl Relief {
    /// Whether to close some now. What was closed frees less than the sums say, so only what the process itself has, `is_observed`,
    /// ends it. Otherwise a node whose holders stay right below [`Level::Over`] would refuse new work for good.
    pub fn is_due(&mut self, level: Level, is_observed: bool) -> bool {
        match level {
            Level::Over => self.has_begun = true,
            Level::Calm if is_observed => self.has_begun = false,
            Level::Tight | Level::Calm => {}
        }
        level == Level::Over || level == Level::Tight && self.has_begun && is_observed
    }
}

/// A connection, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder<K> {
    /// Its owner: [`crate::budget::Account::id`], or a number of its own.
    pub owner: u64,
    /// Which connection it is.
    pub key: K,
    /// Bytes that it holds.
    pub bytes: usize,
}

/// Those that may be closed for `excess` bytes. Small holdings are spared, unless there is nothing else and they are so many that
/// closing them helps.
pub fn closable<K>(holders: Vec<Holder<K>>, excess: usize) -> Vec<Holder<K>> {
    let (large, small): (Vec<_>, Vec<_>) = holders.into_iter().partition(|holder| holder.bytes >= SMALL_HOLDING);
    let is_much = small.iter().map(|holder| holder.bytes).sum::<usize>() >= excess / 2;
    if large.is_empty() && is_much { small } else { large }
}

/// The connections to close until `excess` bytes are free. What an owner holds on many connections counts together, so that
/// nobody is spared by being many; the largest of the largest owner is always next.
pub fn largest<K: Copy>(holders: Vec<Holder<K>>, excess: usize) -> Vec<K> {
    let mut owners: HashMap<u64, (usize, Vec<Holder<K>>)> = HashMap::new();
    for holder in holders {
        let (total, held) = owners.entry(holder.owner).or_default();
        *total += holder.bytes;
        held.push(holder);
    }
    for (_, held) in owners.values_mut() {
        held.sort_unstable_by_key(|holder| holder.bytes);
    }
    let mut heap: BinaryHeap<(usize, Reverse<u64>)> =
        owners.iter().map(|(owner, (total, _))| (*total, Reverse(*owner))).collect();
    let (mut freed, mut chosen) = (0, Vec::new());
    while freed < excess
        && let Some((total, owner)) = heap.pop()
        && let Some((_, held)) = owners.get_mut(&owner.0)
        && let Some(holder) = held.pop()
    {
        freed += holder.bytes;
        chosen.push(holder.key);
        if !held.is_empty() {
            heap.push((total - holder.bytes, owner));
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(all: &[(u64, usize)]) -> Vec<Holder<usize>> {
        all.iter().enumerate().map(|(key, (owner, bytes))| Holder { owner: *owner, key, bytes: *bytes }).collect()
    }

    #[test]
    fn relief_goes_on_until_the_process_is_below_what_refuses_new_work() {
        let mut relief = Relief::default();
        let looks = [
            (Level::Tight, true, false),
            (Level::Over, false, true),
            (Level::Calm, false, false),
            (Level::Tight, false, false),
            (Level::Tight, true, true),
            (Level::Calm, true, false),
            (Level::Tight, true, false),
        ];
        for (look, (level, is_observed, due)) in looks.into_iter().enumerate() {
            assert_eq!(relief.is_due(level, is_observed), due, "look {look}");
        }
    }

    #[test]
    fn the_largest_of_the_largest_owner_is_next() {
        let all = [(1, 50), (2, 30), (2, 40), (3, 60), (2, 20)];
        assert_eq!(largest(holders(&all), 1), [2], "three of 90 together before one of 60");
        assert_eq!(largest(holders(&all), 100), [2, 3]);
        assert_eq!(largest(holders(&all), 101), [2, 3, 0]);
        assert_eq!(largest(holders(&all), 1_000).len(), all.len());
        assert_eq!(largest(holders(&[]), 1), [0; 0]);
    }

    #[test]
    fn small_holdings_are_spared_unless_they_are_the_problem() {
        let count = |all: &[(u64, usize)], excess| closable(holders(all), excess).len();
        assert_eq!(count(&[(1, 20_000), (2, 2_000), (3, 3_000)], 1_000_000), 1);
        assert_eq!(count(&[(2, 2_000), (3, 3_000)], 10_001), 2);
        assert_eq!(count(&[(2, 2_000), (3, 3_000)], 10_002), 0, "something else is");
    }
}
