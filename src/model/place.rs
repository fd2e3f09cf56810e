//! Where a client is in the log: an offset on each line that may bring events to it, in one opaque text (sans-IO).
//!
//! With one partition that is one offset, and its text is the offset's. Otherwise one offset comes first and those of other
//! lines follow, in base 36 and relative to it: `e7a2-1795225216959-0.3_1a2b3c_2s_0`. The first one is the control line's, or
//! where the place is that of an event, the event's own: `b3-1795225217052-0_3.0_1a2b3c_2t_0` is on partition 3. So what is
//! before the first `.` is the same wherever an event is named, and differs for different events.

use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::{Line, Partitions};
use std::fmt;

/// No text of a place is longer: an offset, and the longest part of each partition.
pub const MAX_TEXT: usize = 64 + 40 * Partitions::MAX as usize;

/// Partitions, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LineSet(u64);

impl LineSet {
    /// Adds a line. The control line is in every set.
    pub fn insert(&mut self, line: Line) {
        self.0 |= Self::of(line).0;
    }

    /// Whether a line is in it.
    pub fn contains(self, line: Line) -> bool {
        line == Line::CONTROL || self.0 & Self::of(line).0 != 0
    }

    /// Whether only the control line is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its partitions.
    pub fn partitions(self) -> impl Iterator<Item = Line> {
        (1..=Partitions::MAX).filter_map(Line::new).filter(move |line| self.contains(*line))
    }

    fn of(line: Line) -> Self {
        Self(line.number().checked_sub(1).map_or(0, |bit| 1 << bit))
    }
}

impl FromIterator<Line> for LineSet {
    fn from_iter<T: IntoIterator<Item = Line>>(lines: T) -> Self {
        let mut set = Self::default();
        lines.into_iter().for_each(|line| set.insert(line));
        set
    }
}

/// An offset on the control line, and on some partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    control: Offset,
    /// In order of their lines. Empty, and without heap memory, where the control line is the only one.
    partitions: Vec<Offset>,
}

impl From<Offset> for Place {
    /// Where only this line is known. Of a partition's offset, the control line's is none.
    fn from(offset: Offset) -> Self {
        let mut place = Self::default();
        place.set(offset);
        place
    }
}

impl Place {
    /// The start of a node: nothing of any line is read.
    pub fn unread(partitions: Partitions) -> Self {
        let lines = partitions.lines().skip(1);
        let partitions = lines.map(|line| Offset { line, ..Offset::default() }).collect();
        Self { control: Offset::default(), partitions }
    }

    /// Where it is on the control line.
    pub fn control(&self) -> Offset {
        self.control
    }

    /// Where it is on a line, if that is known.
    pub fn on(&self, line: Line) -> Option<Offset> {
        if line == Line::CONTROL {
            return Some(self.control);
        }
        self.find(line).ok().map(|at| self.partitions[at])
    }

    /// Moves to an offset on its line.
    pub fn set(&mut self, offset: Offset) {
        if offset.line == Line::CONTROL {
            self.control = offset;
            return;
        }
        match self.find(offset.line) {
            Ok(at) => self.partitions[at] = offset,
            Err(at) => self.partitions.insert(at, offset),
        }
    }

    /// Its offsets, the control line's first.
    pub fn offsets(&self) -> impl Iterator<Item = Offset> + '_ {
        std::iter::once(self.control).chain(self.partitions.iter().copied())
    }

    /// The partitions that it names.
    pub fn lines(&self) -> LineSet {
        self.partitions.iter().map(|offset| offset.line).collect()
    }

    /// Only these lines of it.
    pub fn only(&self, lines: LineSet) -> Self {
        let partitions = match lines.is_empty() {
            true => Vec::new(),
            false => self.partitions.iter().filter(|offset| lines.contains(offset.line)).copied().collect(),
        };
        Self { control: self.control, partitions }
    }

    /// Whether every line has begun: before a node has read a line's history it can prove nothing of it.
    pub fn has_begun(&self) -> bool {
        self.offsets().all(|offset| offset.epoch != Epoch::default())
    }

    /// Whether everything up to `other` is before it, on all lines of that, by positions alone.
    pub fn is_at_least(&self, other: &Self) -> bool {
        let has = |other: Offset| self.on(other.line).is_some_and(|own| own.position >= other.position);
        other.offsets().all(has)
    }

    /// Bytes of memory besides itself.
    pub fn size(&self) -> usize {
        self.partitions.capacity() * size_of::<Offset>()
    }

    /// The index of a partition. In a list of all partitions it is known without a search.
    fn find(&self, line: Line) -> Result<usize, usize> {
        let dense = line.index().wrapping_sub(1);
        match self.partitions.get(dense) {
            Some(offset) if offset.line == line => Ok(dense),
            _ => self.partitions.binary_search_by_key(&line, |offset| offset.line),
        }
    }

    /// Reads what a [`Place`] prints, also as that of an event; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let mut parts = text.split('.');
        let first = Offset::parse(parts.next()?)?;
        let mut place = Self::from(first);
        let mut last = None;
        for part in parts {
            let offset = parse_part(part, first.position.ms)?;
            if last.is_some_and(|last| last >= offset.line) || offset.line == first.line {
                return None;
            }
            last = Some(offset.line);
            place.set(offset);
        }
        Some(place)
    }

    /// The offset of an event, as the text of this place once a client has the event.
    pub fn at(&self, event: Offset) -> EventOffset<'_> {
        EventOffset { place: self, event }
    }
}

/// The event that a place names first: the offset of an event in any of its forms. A place that is not that of an event has
/// the control line's offset there.
pub fn event_of(text: &str) -> Option<Offset> {
    let _ = Place::parse(text)?;
    Offset::parse(text.split('.').next()?)
}

/// See [`Place::at`].
pub struct EventOffset<'a> {
    place: &'a Place,
    event: Offset,
}

impl fmt::Display for EventOffset<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event.fmt(f)?;
        for other in
            self.place.offsets().filter(|other| other.line != self.event.line && other.epoch != Epoch::default())
        {
            write_part(f, other, self.event.position.ms)?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.control.fmt(f)?;
        self.partitions.iter().try_for_each(|partition| write_part(f, *partition, self.control.position.ms))
    }
}

/// The offset of another line than that of the first offset, which is of `first_ms`.
fn write_part(f: &mut fmt::Formatter<'_>, offset: Offset, first_ms: u64) -> fmt::Result {
    let Offset { line, epoch, position } = offset;
    let later = position.ms.wrapping_sub(first_ms);
    // Small for what is a little earlier, too.
    let zigzag = (later << 1) ^ (0u64.wrapping_sub(later >> 63));
    // Written from its end, as one piece: the answer to a publish has a part for each of the other lines.
    let (mut text, mut at) = ([0; MAX_PART], MAX_PART);
    for (mark, number) in [(b'_', position.seq), (b'_', zigzag), (b'_', epoch.0.into()), (b'.', line.number().into())] {
        at = put_base36(&mut text, at, number) - 1;
        text[at] = mark;
    }
    f.write_str(std::str::from_utf8(&text[at..]).map_err(|_| fmt::Error)?)
}

/// Bytes of four numbers in base 36, each with a mark before it.
const MAX_PART: usize = 4 * (13 + 1);

/// Puts digits and small letters before `end`. Answers where they begin.
fn put_base36(text: &mut [u8], end: usize, number: u64) -> usize {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let (mut at, mut left) = (end, number);
    loop {
        at -= 1;
        // The remainder is below 36.
        text[at] = DIGITS[(left % 36) as usize];
        left /= 36;
        if left == 0 {
            return at;
        }
    }
}

fn parse_part(part: &str, first_ms: u64) -> Option<Offset> {
    let mut numbers = part.split('_').map(parse_base36);
    let mut next = || numbers.next().flatten();
    let line = Line::new(u8::try_from(next()?).ok()?)?;
    let epoch = Epoch(u32::try_from(next()?).ok()?);
    let (zigzag, seq) = (next()?, next()?);
    if numbers.next().is_some() {
        return None;
    }
    let later = (zigzag >> 1) ^ 0u64.wrapping_sub(zigzag & 1);
    Some(Offset { line, epoch, position: Position { ms: first_ms.wrapping_add(later), seq } })
}

/// As it is printed: no sign, no capitals, no leading zeros.
fn parse_base36(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    let is_short = text == "0" || !text.starts_with('0');
    (is_plain && is_short).then(|| u64::from_str_radix(text, 36).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(line: u8, ms: u64, seq: u64) -> Offset {
        Offset {
            epoch: Epoch(0xbeef + u32::from(line)),
            position: Position { ms, seq },
            line: Line::new(line).unwrap(),
        }
    }

    #[test]
    fn places_are_read_back_and_nothing_else_is() {
        let mut place = Place::from(offset(0, 1_795_225_216_959, 3));
        assert_eq!(place.to_string(), offset(0, 1_795_225_216_959, 3).to_string());
        for other in [offset(64, 1_795_225_216_000, 0), offset(1, 1_795_225_217_000, 5), offset(7, 0, u64::MAX)] {
            place.set(other);
            assert_eq!(Place::parse(&place.to_string()), Some(place.clone()));
            assert_eq!(place.on(other.line), Some(other));
        }
        assert_eq!(place.offsets().map(|offset| offset.line.number()).collect::<Vec<_>>(), [0, 1, 7, 64]);
        let some = place.only([Line::new(7).unwrap()].into_iter().collect());
        assert_eq!((some.lines().partitions().count(), some.on(Line::new(1).unwrap())), (1, None));
        let good = "beef-5-0.1_a_2_0";
        assert_eq!(Place::parse(good).unwrap().to_string(), good);
        for bad in [
            "",
            "beef-5-0.",
            ".1_a_2_0",
            "beef-5-0.0_a_2_0",
            "beef-5-0_0.1_a_2_0",
            "beef-5-0_01.1_a_2_0",
            "beef-5-0_65",
            "beef-5-0_2.2_a_2_0",
            "beef-5-0_2.1_a_2_0.0_a_2_0",
            "beef-5-0.1t_a_2_0",
            "beef-5-0.1_a_2",
            "beef-5-0.1_a_2_0_0",
            "beef-5-0.1_A_2_0",
            "beef-5-0.1_+a_2_0",
            "beef-5-0.1_a_02_0",
            "beef-5-0.1__2_0",
            "beef-5-0.2_a_2_0.1_a_2_0",
            "beef-5-0.1_a_2_0.1_a_2_0",
            &format!("beef-5-0{}", ".1_a_2_0".repeat(10_000)),
        ] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_offset_of_an_event_names_the_event_first() {
        let mut place = Place::from(offset(0, 1_000, 3));
        [offset(2, 900, 0), offset(5, 1_200, 1)].into_iter().for_each(|other| place.set(other));
        let texts: Vec<_> = place.offsets().map(|event| place.at(event).to_string()).collect();
        for (text, event) in texts.iter().zip(place.offsets()) {
            assert_eq!((Place::parse(text), event_of(text)), (Some(place.clone()), Some(event)), "{text}");
            assert_eq!(text.split('.').next(), Some(&*event.to_string()));
        }
        assert_eq!(texts[0], place.to_string());
        let elsewhere = place.at(offset(7, 1_300, 0)).to_string();
        assert_eq!(Place::parse(&elsewhere).unwrap().offsets().count(), 4);
        let alone = Place::default().at(offset(7, 5, 0)).to_string();
        assert_eq!((alone.as_str(), Place::parse(&alone)), ("bef6-5-0_7", Some(offset(7, 5, 0).into())));
        assert_eq!(event_of("poison"), None);
    }

    #[test]
    fn the_longest_place_is_read_back() {
        let mut place = Place::from(offset(0, u64::MAX, u64::MAX));
        let lines = Partitions::new(64, 0).lines().skip(1);
        lines.for_each(|line| place.set(offset(line.number(), u64::MAX / 2, u64::MAX)));
        assert_eq!(Place::parse(&place.to_string()), Some(place.clone()));
        let event = offset(64, u64::MAX / 2, u64::MAX);
        assert_eq!(event_of(&place.at(event).to_string()), Some(event));
    }
}
