//! The lines of the log, and which of them has the events of a room (sans-IO).
//!
//! A *line* is one stream with an order of its own. A log of one partition has only the control line. One of K > 1
//! partitions has K lines beside it: the partition of a room has what is published to this room, or to rooms of the same
//! partition. What concerns several partitions, everybody or one session is on the control line. Publishers that write to a
//! partition themselves compute it as [`Partitions::of`] does; `tests/vectors/partitions.json` has examples.

use crate::model::id::Id;
use crate::model::names::{EVERYBODY, Room, first_segments};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use std::fmt;

/// One line of the log. The control line is before all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(u8);

impl Line {
    /// The line that every log has.
    pub const CONTROL: Self = Self(0);

    /// The line with this number, where there can be one: 0 is the control line, the partitions follow.
    pub fn new(number: u8) -> Option<Self> {
        (number <= Partitions::MAX).then_some(Self(number))
    }

    /// Its number, and its index in a list of all lines.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The same for lists.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u8::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("there are at most 64 partitions"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How rooms are spread over lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions {
    count: u8,
    segments: u8,
}

impl Default for Partitions {
    fn default() -> Self {
        Self::ONE
    }
}

impl Partitions {
    /// At most so many partitions.
    pub const MAX: u8 = 64;
    /// A log that is one line.
    pub const ONE: Self = Self { count: 1, segments: 0 };

    /// So many partitions, at least 1 and at most [`Self::MAX`]. Rooms whose first `segments` parts, split at `:`, are the
    /// same have the same partition; with 0 the whole name counts.
    pub fn new(count: u8, segments: u8) -> Self {
        Self { count: count.clamp(1, Self::MAX), segments }
    }

    /// The number of partitions.
    pub fn count(self) -> u8 {
        self.count
    }

    /// How many parts of a room's name count.
    pub fn segments(self) -> u8 {
        self.segments
    }

    /// Whether the control line is the only one.
    pub fn is_one(self) -> bool {
        self.count == 1
    }

    /// All lines, the control line first.
    pub fn lines(self) -> impl ExactSizeIterator<Item = Line> + DoubleEndedIterator {
        (0..if self.is_one() { 1 } else { self.count + 1 }).map(Line)
    }

    /// The line that has what is published to this room alone: CRC-32 (IEEE) of the name's bytes, modulo the number of
    /// partitions, plus one. A session's own room and everybody's are on the control line.
    pub fn of(self, room: &str) -> Line {
        let is_control = || room == EVERYBODY || Id::parse(room).is_some_and(|id| id.is_session());
        if self.is_one() || is_control() {
            return Line::CONTROL;
        }
        // The remainder is below 64.
        Line((crc32(first_segments(room, self.segments).as_bytes()) % u32::from(self.count)) as u8 + 1)
    }

    /// The line of an event to these rooms: their partition if they have the same one. The rooms that it excepts must have it
    /// too, because a session knows on each line only how its rooms of that line changed; a session's own room is known
    /// everywhere.
    pub fn of_event(self, rooms: &[Room], except: &[Room]) -> Line {
        let Some(first) = rooms.first().filter(|_| !self.is_one()) else { return Line::CONTROL };
        let line = self.of(first);
        if self.may_have(line, rooms, except) { line } else { Line::CONTROL }
    }

    /// Whether an event to these rooms may be on a line. What others wrote to a partition of another room reaches nobody as it
    /// should.
    pub fn may_have(self, line: Line, rooms: &[Room], except: &[Room]) -> bool {
        let of_session = |room: &Room| Id::parse(room).is_some_and(|id| id.is_session());
        line == Line::CONTROL
            || rooms.iter().all(|room| self.of(room) == line)
                && except.iter().all(|room| self.of(room) == line || of_session(room))
    }

    /// All lines that may have events to these rooms, the control line first.
    pub fn of_all<R: AsRef<str>>(self, rooms: &[R]) -> impl Iterator<Item = Line> + use<R> {
        let lines: BTreeSet<_> = match self.is_one() {
            true => BTreeSet::new(),
            false => rooms.iter().map(|room| self.of(room.as_ref())).collect(),
        };
        std::iter::once(Line::CONTROL).chain(lines.into_iter().filter(|line| *line != Line::CONTROL))
    }

    /// Whether a line may have events to this room.
    pub fn may_bring(self, line: Line, room: &str) -> bool {
        line == Line::CONTROL || self.of(room) == line
    }
}

/// CRC-32 as zlib, Ethernet and PNG have it.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc: u32, byte| (crc >> 8) ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)])
}

const fn table() -> [u32; 256] {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Vector {
        room: String,
        partitions: u8,
        segments: u8,
        line: u8,
    }

    #[test]
    fn rooms_are_where_the_vectors_say() {
        let text = include_str!("../../tests/vectors/partitions.json");
        let vectors: Vec<Vector> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() > 20);
        for Vector { room, partitions, segments, line } in vectors {
            let found = Partitions::new(partitions, segments).of(&room);
            assert_eq!(found.number(), line, "{room:?} of {partitions} partitions, {segments} segments");
        }
    }

    #[test]
    fn an_event_is_on_the_one_line_of_its_rooms() {
        let partitions = Partitions::new(8, 1);
        let rooms = |names: &[&str]| names.iter().map(|room| Room::from(*room)).collect::<Vec<_>>();
        let of = |names: &[&str]| partitions.of_event(&rooms(names), &[]);
        assert_eq!(of(&["a:1", "a:2"]), partitions.of("a:3"));
        assert_ne!(partitions.of("a:1"), partitions.of("c:1"));
        assert_eq!([of(&["a:1", "c:1"]), of(&[]), of(&[EVERYBODY])], [Line::CONTROL; 3]);
        let session = Id::random_session().to_string();
        assert_eq!(of(&[&session]), Line::CONTROL);
        let except = |names: &[&str]| partitions.of_event(&rooms(&["a:1"]), &rooms(names));
        assert_eq!([except(&["a:2", &session]), except(&["c:1"])], [partitions.of("a"), Line::CONTROL]);
        assert_eq!(Partitions::ONE.of("a:1"), Line::CONTROL);
        assert!(partitions.may_bring(Line::CONTROL, "a:1") && partitions.may_bring(partitions.of("a"), "a:1"));
    }

    #[test]
    fn every_partition_gets_rooms() {
        for count in [2, 3, 8, 64] {
            let partitions = Partitions::new(count, 0);
            let mut rooms = vec![0; partitions.lines().len()];
            (0..6_400).for_each(|n| rooms[partitions.of(&format!("room:{n}")).index()] += 1);
            let fair = 6_400 / usize::from(count);
            assert!(rooms[0] == 0 && rooms[1..].iter().all(|n| (fair / 2..fair * 2).contains(n)), "{rooms:?}");
        }
    }
}
