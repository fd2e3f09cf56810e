//! Whether the stream is still the log that was read: a key beside it names the epoch, and the stream's counters show what
//! it lost. Sans-IO: `tests/simulation.rs` runs it against a log that loses entries.

use crate::model::offset::{Epoch, Position};

/// The epoch key and the stream at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The text of the epoch key; empty where there is none.
    pub epoch_text: String,
    /// `None` where the stream does not exist.
    pub stream: Option<StreamInfo>,
}

/// What `XINFO STREAM` says of the stream, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// The highest id ever used.
    pub last: Position,
    /// Entries in it.
    pub length: i64,
    /// Entries ever added. Redis before 7.0 does not know.
    pub added: Option<i64>,
    /// The oldest entry.
    pub first: Option<Position>,
    /// The newest entry.
    pub newest: Option<Position>,
    /// The oldest of the entries looked for that is not in the stream.
    pub missing: Option<Position>,
}

impl StreamInfo {
    /// Whether every entry ever added is still there.
    pub fn is_whole(&self) -> bool {
        self.added == Some(self.length)
    }

    /// Whether an entry that was read or acknowledged never was in this stream: it is missing, but was not trimmed, because
    /// older entries are there or it is newer than all that ever were. A failover to a replica without it does that. Clocks
    /// of masters differ, so entries with higher ids may exist all the same.
    fn lost_entry(&self) -> bool {
        self.missing.is_some_and(|id| id > self.last || self.first.is_some_and(|first| first <= id))
    }
}

/// What a tail knows about the stream it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailState {
    /// The epoch.
    pub epoch: Epoch,
    /// Everything up to here was read.
    pub position: Position,
    /// The last entry that was read, with the history or after it.
    pub last_read: Option<Position>,
    /// [`StreamInfo::added`] is at least this: it was observed, or that many entries were read.
    pub added: i64,
    /// Entries ever added up to the position, where that could be counted.
    pub counted: Option<i64>,
}

/// Why the stream is not the log that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discontinuity {
    /// The epoch key is missing or different: a flush, an empty restart, or another node saw a loss.
    EpochChanged,
    /// The stream is gone, started over, or lacks entries that were read from it.
    EntriesLost,
    /// Entries were trimmed before this tail read them. Only this node missed them.
    FellBehind,
}

impl TailState {
    /// A tail that has read the stream up to `position`.
    pub fn new(epoch: Epoch, position: Position, stream: Option<&StreamInfo>) -> Self {
        let mut state = Self { epoch, position, last_read: None, added: 0, counted: None };
        match stream {
            Some(stream) => {
                state.observe(stream);
                // Nothing is known of entries before the position, so all that are there count as added after it.
                let all_unread = stream.first.is_none_or(|first| first > position);
                let before = stream.added.filter(|_| all_unread).map(|added| added - stream.length);
                state.counted = state.counted.or(before);
                state.last_read = stream.newest.filter(|newest| *newest <= position);
            }
            None => state.counted = Some(0),
        }
        state
    }

    /// A tail at the beginning of a stream that was renewed. One entry was added to it, and trimmed at once.
    pub fn renewed(epoch: Epoch) -> Self {
        Self { epoch, position: Position::default(), last_read: None, added: 1, counted: Some(1) }
    }

    /// Takes note of a stream without discontinuity.
    pub fn observe(&mut self, stream: &StreamInfo) {
        let Some(added) = stream.added else { return };
        self.added = self.added.max(added);
        if stream.last == self.position {
            self.counted = Some(added);
        }
    }

    /// Takes note of entries that were read, up to `position`.
    pub fn read(&mut self, entries: usize, position: Position) {
        self.position = position;
        self.last_read = Some(position);
        // Counted, so that a stream that started over within a second of its loss is noticed too.
        self.counted = self.counted.map(|counted| counted + entries as i64);
        self.added = self.added.max(self.counted.unwrap_or(0));
    }

    /// Compares with what was observed.
    pub fn discontinuity(&self, now: &Observed) -> Option<Discontinuity> {
        if parse(&now.epoch_text) != Some(self.epoch) {
            return Some(Discontinuity::EpochChanged);
        }
        let Some(stream) = &now.stream else {
            return (self.position > Position::default()).then_some(Discontinuity::EntriesLost);
        };
        let fewer = stream.added.is_some_and(|now| now < self.added);
        if stream.last < self.position || fewer || stream.lost_entry() || self.counts_less_than(stream) {
            return Some(Discontinuity::EntriesLost);
        }
        self.fell_behind(stream).then_some(Discontinuity::FellBehind)
    }

    /// Whether all entries are unread, and more than were added since: some entries that were read never were here.
    fn counts_less_than(&self, stream: &StreamInfo) -> bool {
        let all_unread = stream.first.is_some_and(|first| first > self.position);
        let unread = stream.added.zip(self.counted).map(|(added, counted)| added - counted);
        all_unread && unread.is_some_and(|unread| unread < stream.length)
    }

    /// Whether more entries were added than are unread: some were trimmed before they were read.
    fn fell_behind(&self, stream: &StreamInfo) -> bool {
        let is_at_end = stream.last == self.position;
        match (stream.added, self.counted) {
            (Some(added), Some(counted)) => added - counted > if is_at_end { 0 } else { stream.length },
            // Nothing is left of what was read, and the number of entries after it is unknown.
            (Some(_), None) => !is_at_end && stream.first.is_none_or(|first| first > self.position),
            (None, _) => false,
        }
    }
}

/// The epoch in the text of the key, if it is one.
pub fn parse(text: &str) -> Option<Epoch> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let epoch = plain.then(|| u32::from_str_radix(text, 16).ok().map(Epoch)).flatten();
    epoch.filter(|epoch| *epoch != Epoch::default())
}

/// The epoch of the stream that replaces one of this epoch because its ids lie in the future.
pub fn successor(epoch: Epoch) -> Epoch {
    epoch.successor()
}

/// Where a tail starts or, after a discontinuity, goes on: entries after a loss that were not read yet are still delivered.
pub fn head(state: Option<&TailState>, stream: Option<&StreamInfo>) -> Position {
    let last = stream.map_or(Position::default(), |stream| stream.last);
    let head = state.map_or(last, |state| state.position.min(last));
    // Where entries were trimmed, nothing is known before the first entry that is left, if one is.
    let trimmed = stream.filter(|stream| !stream.is_whole());
    trimmed.map_or(head, |stream| head.max(stream.first.map_or(stream.last, Position::predecessor)))
}

/// The position after which a history that was read backwards from `head` is complete. `left_out` is the newest entry that
/// was not kept, where there were more.
pub fn floor(left_out: Option<Position>, stream: &StreamInfo, head: Position) -> Position {
    match (left_out, stream.first) {
        (Some(left_out), _) => left_out,
        (None, _) if stream.is_whole() => Position::default(),
        // Entries before the first one were trimmed or deleted.
        (None, first) => first.map_or(head, |first| first.predecessor().min(head)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Position {
        Position { ms, seq: 0 }
    }

    fn known() -> TailState {
        TailState { epoch: Epoch(0xab), position: at(10), last_read: Some(at(10)), added: 5, counted: Some(5) }
    }

    fn observed() -> Observed {
        let stream = StreamInfo {
            last: at(12),
            length: 7,
            added: Some(7),
            first: Some(at(1)),
            newest: Some(at(12)),
            missing: None,
        };
        Observed { epoch_text: "ab".into(), stream: Some(stream) }
    }

    fn with(change: impl FnOnce(&mut StreamInfo)) -> Observed {
        let mut observed = observed();
        change(observed.stream.as_mut().unwrap());
        observed
    }

    #[test]
    fn the_same_log_is_the_same() {
        assert_eq!(known().discontinuity(&observed()), None);
        assert_eq!(known().discontinuity(&with(|stream| stream.added = None)), None, "before Redis 7");
        let trimmed = with(|stream| (stream.first, stream.missing, stream.length) = (Some(at(11)), Some(at(10)), 2));
        assert_eq!(known().discontinuity(&trimmed), None);
        let emptied =
            with(|stream| (stream.first, stream.last, stream.length, stream.added) = (None, at(10), 0, Some(5)));
        assert_eq!(known().discontinuity(&Observed { stream: emptied.stream, ..observed() }), None);
        let nothing_yet = TailState::new(Epoch(0xab), Position::default(), None);
        assert_eq!(nothing_yet.discontinuity(&Observed { stream: None, ..observed() }), None);
    }

    #[test]
    fn entries_are_counted_from_where_that_is_possible() {
        let stream = |last, added| StreamInfo { last: at(last), added: Some(added), ..observed().stream.unwrap() };
        let mut behind = TailState::new(Epoch(0xab), at(8), Some(&stream(10, 5)));
        behind.read(1, at(9));
        assert_eq!((behind.added, behind.counted), (5, None));
        behind.read(1, at(10));
        behind.observe(&stream(10, 5));
        behind.read(2, at(12));
        assert_eq!((behind.added, behind.counted), (7, Some(7)));
        assert_eq!(behind.discontinuity(&with(|stream| stream.added = Some(6))), Some(Discontinuity::EntriesLost));
        let emptied = StreamInfo { first: None, length: 0, ..stream(12, 7) };
        assert_eq!(head(Some(&behind), Some(&emptied)), at(12), "nothing is left to be read");
        // Began behind a trim, and trimmed again before it had caught up once.
        let trimmed = StreamInfo { length: 3, first: Some(at(8)), ..stream(10, 7) };
        let mut again = TailState::new(Epoch(0xab), at(7), Some(&trimmed));
        assert_eq!(again.counted, Some(4));
        let trimmed_again = StreamInfo { length: 2, first: Some(at(9)), ..trimmed };
        let now = |stream| Observed { stream: Some(stream), ..observed() };
        assert_eq!(again.discontinuity(&now(trimmed)), None);
        assert_eq!(again.discontinuity(&now(trimmed_again)), Some(Discontinuity::FellBehind));
        again.read(1, at(10));
        assert_eq!(
            again.discontinuity(&now(StreamInfo { length: 1, ..trimmed_again })),
            Some(Discontinuity::FellBehind),
            "read on before it looked"
        );
        (again.counted, again.position) = (None, at(7));
        assert_eq!(again.discontinuity(&now(trimmed_again)), Some(Discontinuity::FellBehind));
        let mut fresh = TailState::new(Epoch(0xab), Position::default(), None);
        fresh.read(3, at(12));
        assert_eq!(fresh.added, 3);
    }

    #[test]
    fn the_last_entry_of_the_history_is_looked_for_like_one_that_was_read() {
        let begun = TailState::new(Epoch(0xab), at(12), observed().stream.as_ref());
        assert_eq!(begun.last_read, Some(at(12)));
        // Another master lacks the last two entries and has as many new ones, one with a lower id than the history ends with.
        let added = |stream: &mut StreamInfo| (stream.last, stream.newest) = (at(13), Some(at(13)));
        assert_eq!(begun.discontinuity(&with(|stream| added(stream))), None, "the counters do not show it");
        let looked_for = with(|stream| {
            added(stream);
            stream.missing = begun.last_read;
        });
        assert_eq!(begun.discontinuity(&looked_for), Some(Discontinuity::EntriesLost));
        let behind = TailState::new(Epoch(0xab), at(11), observed().stream.as_ref());
        assert_eq!(behind.last_read, None, "the newest entry is read next");
    }

    #[test]
    fn a_renewed_stream_is_read_from_its_beginning_unless_it_was_trimmed() {
        let begun = StreamInfo { last: at(100), length: 0, added: Some(1), first: None, newest: None, missing: None };
        let now = |stream| Observed { epoch_text: "ac".into(), stream: Some(stream) };
        let renewed = TailState::renewed(successor(Epoch(0xab)));
        assert_eq!(renewed.discontinuity(&now(begun)), None);
        assert_eq!(head(Some(&renewed), Some(&begun)), at(100));
        let grown = StreamInfo { last: at(103), length: 3, added: Some(4), first: Some(at(101)), ..begun };
        assert_eq!(renewed.discontinuity(&now(grown)), None);
        assert_eq!(head(Some(&renewed), Some(&grown)), at(101).predecessor());
        let trimmed = StreamInfo { length: 2, first: Some(at(102)), ..grown };
        assert_eq!(renewed.discontinuity(&now(trimmed)), Some(Discontinuity::FellBehind));
        assert_eq!(successor(Epoch(u32::MAX)), Epoch(1));
    }

    #[test]
    fn each_loss_is_seen() {
        for text in ["", "0", "00", "ac", "xyz", "+ab", "100000000ab"] {
            let now = Observed { epoch_text: text.into(), ..observed() };
            assert_eq!(known().discontinuity(&now), Some(Discontinuity::EpochChanged), "{text}");
        }
        for now in [
            Observed { stream: None, ..observed() },
            with(|stream| stream.last = at(9)),
            with(|stream| stream.added = Some(4)),
            with(|stream| stream.missing = Some(at(10))),
            with(|stream| stream.missing = Some(at(11))),
            with(|stream| (stream.missing, stream.first) = (Some(at(13)), None)),
        ] {
            assert_eq!(known().discontinuity(&now), Some(Discontinuity::EntriesLost), "{now:?}");
        }
        let all_unread = with(|stream| (stream.first, stream.length, stream.added) = (Some(at(11)), 5, Some(9)));
        assert_eq!(known().discontinuity(&all_unread), Some(Discontinuity::EntriesLost), "4 were added, 5 are there");
        let unread = with(|stream| (stream.first, stream.length) = (Some(at(12)), 1));
        assert_eq!(known().discontinuity(&unread), Some(Discontinuity::FellBehind));
    }
}
