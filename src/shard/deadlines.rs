//! The one table of deadlines of a shard (sans-IO): heartbeats, connect timeouts, token expiries, cuts.

use crate::model::millis::Millis;
use std::collections::BTreeSet;

/// Deadlines by key, at most one each; exact to the millisecond, so that a client which sleeps to the very
/// ping timeout finds its session gone (docs/protocol/socketio.md section 6).
#[derive(Debug)]
pub(super) struct Deadlines<K> {
    table: BTreeSet<(Millis, K)>,
}

impl<K: Ord + Copy> Default for Deadlines<K> {
    fn default() -> Self {
        Self { table: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Moves `key` from its deadline `old` to `new`.
    pub(super) fn change(&mut self, key: K, old: Option<Millis>, new: Option<Millis>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.table.remove(&(old, key));
        }
        if let Some(new) = new {
            self.table.insert((new, key));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Millis> {
        self.table.first().map(|(at, _)| *at)
    }

    /// Takes one key whose deadline has come. The caller sets its next deadline from `None`.
    pub(super) fn pop(&mut self, now: Millis) -> Option<K> {
        let (at, key) = *self.table.first()?;
        if at > now {
            return None;
        }
        self.table.pop_first();
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Millis = Millis::new;

    #[test]
    fn fires_in_order_and_only_what_is_due() {
        let mut deadlines = Deadlines::default();
        deadlines.change('a', None, Some(AT(30)));
        deadlines.change('b', None, Some(AT(10)));
        deadlines.change('c', None, Some(AT(10)));
        deadlines.change('a', Some(AT(30)), Some(AT(20)));
        deadlines.change('c', Some(AT(10)), None);
        assert_eq!(deadlines.next(), Some(AT(10)));
        assert_eq!(deadlines.pop(AT(9)), None);
        assert_eq!(deadlines.pop(AT(25)), Some('b'));
        assert_eq!(deadlines.pop(AT(25)), Some('a'));
        assert_eq!((deadlines.pop(AT(25)), deadlines.next()), (None, None));
    }
}
