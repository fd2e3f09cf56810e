//! How many bytes the stream has in Redis, counted by what a tail reads, and where to cut it so that it has no more than
//! `redis.max_stream_bytes`. Sans-IO.

use crate::log::redis::generation::StreamInfo;
use crate::model::offset::Position;
use std::collections::VecDeque;

/// The stream is cut at the end of a segment, so this many cuts pass before everything was cut.
const SEGMENTS: u64 = 128;
/// Of the maximum, in eighths, is left by a cut, so that not every entry makes one.
const EIGHTHS_LEFT: u64 = 7;
/// Bytes that Redis needs for an entry, and for a field, besides names and values.
const ENTRY_OVERHEAD: usize = 32;
const FIELD_OVERHEAD: usize = 4;

/// See the module.
pub(super) struct StreamSize {
    max: u64,
    /// Counted entries, oldest first.
    segments: VecDeque<Segment>,
    /// Bytes of the segments.
    bytes: u64,
    /// Entries of the segments.
    entries: u64,
    /// Bytes of entries that were in the stream and not counted when it was measured: those before the first read, or more
    /// than can be read. `None` before it was measured.
    uncounted: Option<u64>,
    /// Whether there are such entries.
    has_uncounted: bool,
}

struct Segment {
    last: Position,
    bytes: u64,
    entries: u64,
}

/// How the stream is cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Entries before this position go, with this many bytes.
    Before(Position, u64),
    /// This many of the newest entries stay, and about this many bytes go.
    Keep(u64, u64),
}

impl StreamSize {
    pub(super) fn new(max: u64) -> Self {
        Self { max, segments: VecDeque::new(), bytes: 0, entries: 0, uncounted: None, has_uncounted: true }
    }

    /// The tail starts over, at a place before which entries may be.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.max);
    }

    /// Counts an entry that was read, with so many bytes in so many fields.
    pub(super) fn read(&mut self, position: Position, bytes: usize, fields: usize) {
        let bytes = (bytes + ENTRY_OVERHEAD + FIELD_OVERHEAD * fields) as u64;
        match self.segments.back_mut().filter(|segment| segment.bytes < self.max / SEGMENTS) {
            Some(segment) => {
                segment.last = position;
                segment.bytes += bytes;
                segment.entries += 1;
            }
            None => self.segments.push_back(Segment { last: position, bytes, entries: 1 }),
        }
        self.bytes += bytes;
        self.entries += 1;
    }

    /// Forgets what is no longer in the stream. `is_behind`: more was added than is read.
    pub(super) fn observe(&mut self, stream: Option<&StreamInfo>, is_behind: bool) {
        let first = stream.and_then(|stream| stream.first);
        while let Some(oldest) = self.segments.front()
            && first.is_none_or(|first| oldest.last < first)
        {
            self.drop_oldest();
        }
        let length = stream.map_or(0, |stream| u64::try_from(stream.length).unwrap_or(0));
        self.has_uncounted = is_behind || length > self.entries;
        if !self.has_uncounted {
            self.uncounted = Some(0);
        }
    }

    /// Whether counting says too little about a stream of this length, so that it must be measured.
    pub(super) fn is_to_be_measured(&self, length: u64) -> bool {
        self.has_uncounted && (self.uncounted.is_none() || self.estimate(length) > self.max / 2)
    }

    /// Takes note of the bytes that the whole stream has.
    pub(super) fn note_measured(&mut self, bytes: u64) {
        self.uncounted = Some(bytes.saturating_sub(self.bytes));
    }

    /// Bytes that a stream of this length has, about.
    pub(super) fn estimate(&self, length: u64) -> u64 {
        let counted = self.bytes + self.uncounted.unwrap_or(0);
        counted.max(length.saturating_mul(self.bytes / self.entries.max(1)))
    }

    /// The cut of a stream that was measured. It may cut entries that were not read, so the tail first has the time in which
    /// a quarter more is added.
    pub(super) fn cut_measured(&self, bytes: u64, length: u64) -> Option<Cut> {
        let left = self.max / 8 * EIGHTHS_LEFT;
        (bytes > self.max + self.max / 4).then(|| {
            let kept = u128::from(length) * u128::from(left) / u128::from(bytes);
            Cut::Keep(u64::try_from(kept).unwrap_or(length), bytes - left)
        })
    }

    /// The cut of a stream of which all entries were counted.
    pub(super) fn cut(&mut self) -> Option<Cut> {
        if self.bytes <= self.max {
            return None;
        }
        let before = self.bytes;
        let mut last = None;
        while self.bytes > self.max / 8 * EIGHTHS_LEFT
            && let Some(dropped) = self.drop_oldest()
        {
            last = Some(dropped);
        }
        last.map(|last| Cut::Before(last.successor(), before - self.bytes))
    }

    fn drop_oldest(&mut self) -> Option<Position> {
        let oldest = self.segments.pop_front()?;
        self.bytes -= oldest.bytes;
        self.entries -= oldest.entries;
        Some(oldest.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Position {
        Position { ms, seq: 0 }
    }

    /// Entries of so many bytes in all.
    fn read(size: &mut StreamSize, entries: impl IntoIterator<Item = (u64, usize)>) {
        entries.into_iter().for_each(|(ms, bytes)| size.read(at(ms), bytes - ENTRY_OVERHEAD - FIELD_OVERHEAD, 1));
    }

    fn stream(first: u64, length: i64) -> StreamInfo {
        StreamInfo { last: at(1000), length, added: None, first: Some(at(first)), newest: None, missing: None }
    }

    #[test]
    fn a_stream_over_the_maximum_is_cut_below_it() {
        let mut size = StreamSize::new(12_800);
        read(&mut size, (1..=128).map(|ms| (ms, 100)));
        assert_eq!((size.bytes, size.cut()), (12_800, None));
        read(&mut size, [(129, 100)]);
        assert_eq!(size.cut(), Some(Cut::Before(Position { ms: 17, seq: 1 }, 1700)));
        assert_eq!(size.bytes, 11_200);
        read(&mut size, [(130, 50_000)]);
        assert_eq!(size.cut(), Some(Cut::Before(Position { ms: 130, seq: 1 }, 61_200)), "one that is larger itself");
        assert_eq!(size.cut(), None);
    }

    #[test]
    fn what_was_trimmed_by_age_no_longer_counts() {
        let mut size = StreamSize::new(12_800);
        assert!(size.is_to_be_measured(0), "it never was");
        read(&mut size, (1..=10).map(|ms| (ms, 100)));
        size.observe(Some(&stream(6, 5)), false);
        assert_eq!((size.bytes, size.has_uncounted), (500, false));
        size.observe(Some(&stream(6, 9)), false);
        assert!(size.has_uncounted && !size.is_to_be_measured(9), "few entries that are there from before");
        assert!(size.is_to_be_measured(65), "many");
        size.note_measured(7_000);
        assert!(size.is_to_be_measured(9) && size.estimate(9) == 7_000);
        size.observe(None, false);
        assert_eq!((size.bytes, size.has_uncounted, size.estimate(0)), (0, false, 0));
    }

    #[test]
    fn a_measured_stream_keeps_its_newest_entries() {
        let mut size = StreamSize::new(8_000);
        assert_eq!(size.cut_measured(10_000, 500), None);
        assert_eq!(size.cut_measured(70_000, 500), Some(Cut::Keep(50, 63_000)));
        assert_eq!(size.estimate(500), 0, "nothing was read yet");
        read(&mut size, [(1, 100), (2, 300)]);
        assert_eq!(size.estimate(500), 100_000);
    }
}
