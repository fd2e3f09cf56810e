//! What comes before an entry on other lines: its field `after` names positions there. Sans-IO.
//!
//! Lines are read side by side, so order holds between two of them only where an entry asks for it. A node asks for it
//! where it acknowledged something on the other line a moment ago that concerns the same partition. It may name only what
//! was acknowledged before, so entries never wait for each other in a circle.
//!
//! Where a line was emptied, replaced, or fell back to an old replica, a node names only what is left of what it had acknowledged
//! there (`Lines::fall_back`) as soon as it notices, within about a second. What was written until then can name a position that the
//! line never comes to: it is waited for once, a second at most, and counted. A reader waits by position alone, because it may be the
//! one that has not noticed. If the line's ids went back, it may hold a position of before for one that is later, and not wait:
//! sessions of a line that lost entries get a gap signal then, and where the stream was only renewed, order with other lines is
//! not promised around that.
//!
//! A replay compares positions only to choose which line goes on: it leaves nothing out. Where ids went back, an entry from before
//! can seem to come after what was published behind it on the line's new stream, which names the entry in turn. There the
//! epochs decide: positions of another one count less than those of the line's own.

use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::{Line, Partitions};
use std::fmt::Write as _;

/// Bytes of the longest field: one position for each line.
const MAX_BYTES: usize = (Partitions::MAX as usize + 1) * 53;

/// Positions on other lines, at most one on each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct After(Vec<Offset>);

impl After {
    /// Adds a position.
    pub fn add(&mut self, offset: Offset) {
        self.0.push(offset);
    }

    /// The field's value; `None` where nothing comes before.
    pub fn text(&self) -> Option<String> {
        let mut text = String::new();
        for Offset { epoch, position, line } in &self.0 {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{comma}{line}:{position}@{:x}", epoch.0);
        }
        (!text.is_empty()).then_some(text)
    }

    /// Reads what [`After::text`] writes. Anything else asks for nothing: it may be of a newer release, and order is all
    /// that it could ask for.
    pub fn parse(text: &[u8]) -> Self {
        let one = |item: &str| {
            let (line, position) = item.split_once(':')?;
            let line = line.bytes().all(|digit| digit.is_ascii_digit()).then(|| line.parse().ok()).flatten()?;
            let (position, epoch) = match position.split_once('@') {
                None => (position, Epoch::default()),
                Some((position, epoch)) => (position, generation(epoch)?),
            };
            Some(Offset { epoch, position: Position::parse(position)?, line: Line::new(line)? })
        };
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= MAX_BYTES);
        Self(text.and_then(|text| text.split(',').map(one).collect()).unwrap_or_default())
    }

    /// Comes also after this.
    pub fn join(&mut self, other: &Self) {
        for offset in other.iter() {
            match self.0.iter_mut().find(|known| known.line == offset.line) {
                Some(known) if known.position < offset.position => *known = offset,
                Some(_) => {}
                None => self.0.push(offset),
            }
        }
    }

    /// For an event. Nothing before it takes no memory.
    pub fn boxed(self) -> Option<Box<Self>> {
        (!self.is_empty()).then(|| Box::new(self))
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.0.capacity() * size_of::<Offset>()
    }

    /// Whether nothing comes before.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The positions.
    pub fn iter(&self) -> impl Iterator<Item = Offset> {
        self.0.iter().copied()
    }
}

fn generation(text: &str) -> Option<Epoch> {
    let plain = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok().map(Epoch)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_back_and_nothing_else_is() {
        let line = |number| Line::new(number).unwrap();
        let mut after = After::default();
        assert_eq!((after.text(), after.clone().boxed()), (None, None));
        let on =
            |number, ms, seq, epoch| Offset { epoch: Epoch(epoch), position: Position { ms, seq }, line: line(number) };
        after.add(on(0, 5, 1, 0xab));
        after.add(on(64, u64::MAX, u64::MAX, u32::MAX));
        assert_eq!(after.text().unwrap(), "0:5-1@ab,64:18446744073709551615-18446744073709551615@ffffffff");
        assert_eq!(After::parse(after.text().unwrap().as_bytes()), after);
        assert_eq!(After::parse(b"0:5-1"), After(vec![on(0, 5, 1, 0)]));
        for bad in [
            "",
            "0",
            "0:5",
            "65:1-1",
            "+1:1-1",
            "0:1-1,",
            "0:1-1;1:1-1",
            "a:1-1",
            "0:1-1@",
            "0:1-1@+1",
            &"1:1-1,".repeat(10_000),
        ] {
            assert_eq!(After::parse(bad.as_bytes()), After::default(), "{bad}");
        }
    }
}
