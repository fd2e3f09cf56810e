//! Some of the partitions of the log. Sans-IO.

use crate::model::partition::Line;

/// Some of the partitions: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionSet(u64);

impl PartitionSet {
    /// Every partition that there can be.
    pub(super) const ALL: Self = Self(u64::MAX);

    /// Adds the partition of a line; the control line is none.
    pub(super) fn add(&mut self, line: Line) {
        if line != Line::CONTROL {
            self.0 |= 1 << (line.number() - 1);
        }
    }

    pub(super) fn has(self, line: Line) -> bool {
        line != Line::CONTROL && self.0 & (1 << (line.number() - 1)) != 0
    }

    pub(super) fn join(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u8) -> Line {
        Line::new(number).unwrap()
    }

    #[test]
    fn a_set_has_what_was_added() {
        let mut set = PartitionSet::default();
        set.add(Line::CONTROL);
        assert!(set == PartitionSet::default() && !set.has(Line::CONTROL));
        set.add(line(1));
        set.add(line(64));
        assert!(set.has(line(1)) && set.has(line(64)) && !set.has(line(2)));
        assert!(PartitionSet::ALL.has(line(33)) && !PartitionSet::ALL.has(Line::CONTROL));
    }
}
