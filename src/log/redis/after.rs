//! What comes before an entry on other lines: its field `after` names positions there. Sans-IO.
//!
//! Lines are read side by side, so order holds between two of them only where an entry asks for it. A node asks for it
//! where it acknowledged something on the other line a moment ago that concerns the same partition. It may name only what
//! was acknowledged before, so entries never wait for each other in a circle.

use crate::model::offset::Position;
use crate::model::partition::{Line, Partitions};
use std::fmt::Write as _;

/// Bytes of the longest field: one position for each line.
const MAX_BYTES: usize = (Partitions::MAX as usize + 1) * 44;

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

/// Positions on other lines, at most one on each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct After(Vec<(Line, Position)>);

impl After {
    pub(super) fn add(&mut self, line: Line, position: Position) {
        self.0.push((line, position));
    }

    /// The field's value; `None` where nothing comes before.
    pub(super) fn text(&self) -> Option<String> {
        let mut text = String::new();
        for (line, position) in &self.0 {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{comma}{line}:{position}");
        }
        (!text.is_empty()).then_some(text)
    }

    /// Reads what [`After::text`] writes. Anything else asks for nothing: it may be of a newer release, and order is all
    /// that it could ask for.
    pub(super) fn parse(text: &[u8]) -> Self {
        let one = |item: &str| {
            let (line, position) = item.split_once(':')?;
            let line = line.bytes().all(|digit| digit.is_ascii_digit()).then(|| line.parse().ok()).flatten()?;
            Some((Line::new(line)?, Position::parse(position)?))
        };
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= MAX_BYTES);
        Self(text.and_then(|text| text.split(',').map(one).collect()).unwrap_or_default())
    }

    /// Whether nothing comes before.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Line, Position)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u8) -> Line {
        Line::new(number).unwrap()
    }

    #[test]
    fn positions_are_read_back_and_nothing_else_is() {
        let mut after = After::default();
        assert_eq!(after.text(), None);
        after.add(Line::CONTROL, Position { ms: 5, seq: 1 });
        after.add(line(64), Position { ms: u64::MAX, seq: u64::MAX });
        assert_eq!(after.text().unwrap(), "0:5-1,64:18446744073709551615-18446744073709551615");
        assert_eq!(After::parse(after.text().unwrap().as_bytes()), after);
        for bad in ["", "0", "0:5", "65:1-1", "+1:1-1", "0:1-1,", "0:1-1;1:1-1", "a:1-1", &"1:1-1,".repeat(10_000)] {
            assert_eq!(After::parse(bad.as_bytes()), After::default(), "{bad}");
        }
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
