//! Positions in the log, and the offsets that clients and publishers see.

use crate::model::partition::Line;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A position in the log, in the form of a Redis stream id: Unix milliseconds and a sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Unix milliseconds by the log's clock.
    pub ms: u64,
    /// Counts within one millisecond.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("a position is `<ms>-<seq>`"))
    }
}

impl Position {
    /// Reads the form `<ms>-<seq>` of a Redis stream id.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: decimal(ms)?, seq: decimal(seq)? })
    }

    /// The position right before this one; the first position is its own predecessor.
    pub fn predecessor(self) -> Self {
        match (self.ms, self.seq) {
            (ms, 1..) => Self { ms, seq: self.seq - 1 },
            (1.., 0) => Self { ms: self.ms - 1, seq: u64::MAX },
            (0, 0) => self,
        }
    }

    /// The position right after this one; the last position is its own successor.
    pub fn successor(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => Self { seq, ..self },
            None => self.ms.checked_add(1).map_or(self, |ms| Self { ms, seq: 0 }),
        }
    }
}

/// `u64::from_str` also takes a leading `+`; a position does not.
fn decimal(text: &str) -> Option<u64> {
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The generation of a log. It changes when accepted entries may be lost. No log has the epoch 0: that is the epoch of a node
/// that has not read its log yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// That of a new log.
    pub fn random() -> Self {
        Self(rand::random_range(1..=u32::MAX))
    }

    /// The one after it.
    pub fn successor(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(1))
    }
}

/// The opaque resume token that clients and publishers see: epoch and position, `e7a2-1795225216959-0`, and the line where
/// that is not the control line: `e7a2-1795225216959-0_3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offset {
    /// The generation that the position belongs to.
    pub epoch: Epoch,
    /// The position in it.
    pub position: Position,
    /// The line of the log that has this generation and this position.
    pub line: Line,
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.epoch.0, self.position)?;
        if self.line == Line::CONTROL {
            return Ok(());
        }
        write!(f, "_{}", self.line)
    }
}

impl Offset {
    /// Reads what [`Offset`] prints; anything else (garbage, foreign tokens, a megabyte) is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let (epoch, position) = text.split_once('-')?;
        if epoch.starts_with('+') {
            return None;
        }
        let epoch = Epoch(u32::from_str_radix(epoch, 16).ok()?);
        let (position, line) = match position.split_once('_') {
            None => (position, Line::CONTROL),
            Some((position, line)) => (position, partition(line)?),
        };
        Some(Self { epoch, position: Position::parse(position)?, line })
    }
}

/// The number of a partition as it is printed.
fn partition(text: &str) -> Option<Line> {
    let line = Line::new(text.parse().ok()?).filter(|line| *line != Line::CONTROL)?;
    text.starts_with(|c: char| matches!(c, '1'..='9')).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_back_and_nothing_else_is() {
        let offset =
            Offset { epoch: Epoch(0xbeef), position: Position { ms: 1_795_225_216_959, seq: 3 }, line: Line::CONTROL };
        let partition = Offset { line: Line::new(64).unwrap(), ..offset };
        assert_eq!(partition.to_string(), "beef-1795225216959-3_64");
        for offset in [offset, partition] {
            assert_eq!(Offset::parse(&offset.to_string()), Some(offset));
        }
        let long = "9".repeat(1 << 20);
        for bad in ["", "poison", "1795225216959-0", "beef-1-", "beef--1-2", "+1-1-1", "beef-+1-1", &long] {
            assert_eq!(Offset::parse(bad), None, "{bad}");
        }
        for bad in ["beef-1-2_", "beef-1-2_0", "beef-1-2_03", "beef-1-2_+3", "beef-1-2_65", "beef-1-2_3_3"] {
            assert_eq!(Offset::parse(bad), None, "{bad}");
        }
    }
}
