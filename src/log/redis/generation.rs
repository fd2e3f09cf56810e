//! The life of the log: a key beside the stream names it, and the stream itself shows whether it is still the same.
//! Sans-IO: `tests/simulation.rs` runs it against a log that forgets.

use crate::model::offset::{Epoch, Position};

/// What the epoch key and the stream look like at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The epoch key's text; empty where it is missing.
    pub epoch_text: String,
    /// The stream, where it exists.
    pub life: Option<StreamGeneration>,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamGeneration {
    /// The newest id ever given.
    pub last: Position,
    /// Entries in it.
    pub length: i64,
    /// Entries ever added; Redis tells it from 7.0 on.
    pub added: Option<i64>,
    /// Its oldest entry.
    pub first: Option<Position>,
    /// The oldest of the entries asked for that is not in it.
    pub missing: Option<Position>,
}

impl StreamGeneration {
    /// Whether every entry that was ever added is still there.
    pub fn is_whole(&self) -> bool {
        self.added == Some(self.length)
    }

    /// An entry that was read or acknowledged is not there, though it is not trimmed: older ones are there, or it is
    /// newer than all that ever were. So it never was here (a failover to a replica that did not have it). Clocks of
    /// masters differ, so newer ids may exist all the same.
    fn lost_entry(&self) -> bool {
        self.missing.is_some_and(|id| id > self.last || self.first.is_some_and(|first| first <= id))
    }
}

/// What a tail knows of the log's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The epoch.
    pub epoch: Epoch,
    /// Everything up to here was read.
    pub position: Position,
    /// The last entry that was read.
    pub last_read: Option<Position>,
    /// [`StreamGeneration::added`] is at least this: it was when last looked at, or so many were read.
    pub added: i64,
    /// Entries added up to the position, as far as they were counted.
    pub counted: Option<i64>,
}

/// Why the log is not the one it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discontinuity {
    /// The epoch key is missing or another: a flush, an empty restart, or another node saw a loss.
    EpochChanged,
    /// The stream is gone, began anew, or lacks what was read from it.
    EntriesLost,
    /// Entries were trimmed before this tail could read them; only this node missed them.
    FellBehind,
}

impl Known {
    /// A tail that has read up to `position` of the life it looked at.
    pub fn new(epoch: Epoch, position: Position, life: Option<&StreamGeneration>) -> Self {
        let mut known = Self { epoch, position, last_read: None, added: 0, counted: None };
        match life {
            Some(life) => {
                known.note(life);
                // What lies before the position is not claimed, so all that is there counts as added after it.
                let all_unread = life.first.is_none_or(|first| first > position);
                let before = life.added.filter(|_| all_unread).map(|added| added - life.length);
                known.counted = known.counted.or(before);
            }
            None => known.counted = Some(0),
        }
        known
    }

    /// Takes note of an unbroken life.
    pub fn note(&mut self, life: &StreamGeneration) {
        let Some(added) = life.added else { return };
        self.added = self.added.max(added);
        if life.last == self.position {
            self.counted = Some(added);
        }
    }

    /// Takes note of entries read, up to `position`.
    pub fn read(&mut self, entries: usize, position: Position) {
        self.position = position;
        self.last_read = Some(position);
        // Counted along, so that a stream that began anew within a second of its loss shows, too.
        self.counted = self.counted.map(|counted| counted + entries as i64);
        self.added = self.added.max(self.counted.unwrap_or(0));
    }

    /// Compares with what is there now.
    pub fn broken_by(&self, now: &Observed) -> Option<Discontinuity> {
        if parse(&now.epoch_text) != Some(self.epoch) {
            return Some(Discontinuity::EpochChanged);
        }
        let Some(life) = &now.life else {
            return (self.position > Position::default()).then_some(Discontinuity::EntriesLost);
        };
        let fewer = life.added.is_some_and(|now| now < self.added);
        if life.last < self.position || fewer || life.lost_entry() || self.counts_less_than(life) {
            return Some(Discontinuity::EntriesLost);
        }
        self.fell_behind(life).then_some(Discontinuity::FellBehind)
    }

    /// All that is there is unread, and more than was added since: some of what was read never was here.
    fn counts_less_than(&self, life: &StreamGeneration) -> bool {
        let all_unread = life.first.is_some_and(|first| first > self.position);
        let unread = life.added.zip(self.counted).map(|(added, counted)| added - counted);
        all_unread && unread.is_some_and(|unread| unread < life.length)
    }

    /// More was added since than can be unread, so some of it was trimmed before it was read.
    fn fell_behind(&self, life: &StreamGeneration) -> bool {
        let advanced_to = life.last == self.position;
        match (life.added, self.counted) {
            (Some(added), Some(counted)) => added - counted > if advanced_to { 0 } else { life.length },
            // Nothing is left of what was read, and nobody knows how much came after it.
            (Some(_), None) => !advanced_to && life.first.is_none_or(|first| first > self.position),
            (None, _) => false,
        }
    }
}

/// The epoch in the key's text, if it is one.
pub fn parse(text: &str) -> Option<Epoch> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok().map(Epoch)).flatten()
}

/// From where a tail goes on when a life begins for it: what came after a loss and was not read yet is still delivered.
pub fn head(known: Option<&Known>, life: Option<&StreamGeneration>) -> Position {
    let last = life.map_or(Position::default(), |life| life.last);
    let head = known.map_or(last, |known| known.position.min(last));
    // But nothing is claimed of what lies before the first entry, where some were trimmed; it may be that none is left.
    let trimmed = life.filter(|life| !life.is_whole());
    trimmed.map_or(head, |life| head.max(life.first.map_or(life.last, Position::predecessor)))
}

/// After which position a history that was read backwards from `head` is complete. `left_out` is the newest entry that
/// it does not have, where the stream had more.
pub fn floor(left_out: Option<Position>, life: &StreamGeneration, head: Position) -> Position {
    match (left_out, life.first) {
        (Some(left_out), _) => left_out,
        (None, _) if life.is_whole() => Position::default(),
        // Something was trimmed or deleted before the first entry, and nobody knows what.
        (None, first) => first.map_or(head, |first| first.predecessor().min(head)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Position {
        Position { ms, seq: 0 }
    }

    fn known() -> Known {
        Known { epoch: Epoch(0xab), position: at(10), last_read: Some(at(10)), added: 5, counted: Some(5) }
    }

    fn observed() -> Observed {
        let life = StreamGeneration { last: at(12), length: 7, added: Some(7), first: Some(at(1)), missing: None };
        Observed { epoch_text: "ab".into(), life: Some(life) }
    }

    fn with(change: impl FnOnce(&mut StreamGeneration)) -> Observed {
        let mut observed = observed();
        change(observed.life.as_mut().unwrap());
        observed
    }

    #[test]
    fn the_same_log_is_the_same() {
        assert_eq!(known().broken_by(&observed()), None);
        assert_eq!(known().broken_by(&with(|life| life.added = None)), None, "before Redis 7");
        let trimmed = with(|life| (life.first, life.missing, life.length) = (Some(at(11)), Some(at(10)), 2));
        assert_eq!(known().broken_by(&trimmed), None);
        let emptied = with(|life| (life.first, life.last, life.length, life.added) = (None, at(10), 0, Some(5)));
        assert_eq!(known().broken_by(&Observed { life: emptied.life, ..observed() }), None);
        let nothing_yet = Known::new(Epoch(0xab), Position::default(), None);
        assert_eq!(nothing_yet.broken_by(&Observed { life: None, ..observed() }), None);
    }

    #[test]
    fn entries_are_counted_from_where_that_is_possible() {
        let life = |last, added| StreamGeneration { last: at(last), added: Some(added), ..observed().life.unwrap() };
        let mut behind = Known::new(Epoch(0xab), at(8), Some(&life(10, 5)));
        behind.read(1, at(9));
        assert_eq!((behind.added, behind.counted), (5, None));
        behind.read(1, at(10));
        behind.note(&life(10, 5));
        behind.read(2, at(12));
        assert_eq!((behind.added, behind.counted), (7, Some(7)));
        assert_eq!(behind.broken_by(&with(|life| life.added = Some(6))), Some(Discontinuity::EntriesLost));
        let emptied = StreamGeneration { first: None, length: 0, ..life(12, 7) };
        assert_eq!(head(Some(&behind), Some(&emptied)), at(12), "nothing is left to be read");
        // Began behind a trim, and trimmed again before it had caught up once.
        let trimmed = StreamGeneration { length: 3, first: Some(at(8)), ..life(10, 7) };
        let mut again = Known::new(Epoch(0xab), at(7), Some(&trimmed));
        assert_eq!(again.counted, Some(4));
        let trimmed_again = StreamGeneration { length: 2, first: Some(at(9)), ..trimmed };
        let now = |life| Observed { life: Some(life), ..observed() };
        assert_eq!(again.broken_by(&now(trimmed)), None);
        assert_eq!(again.broken_by(&now(trimmed_again)), Some(Discontinuity::FellBehind));
        again.read(1, at(10));
        assert_eq!(
            again.broken_by(&now(StreamGeneration { length: 1, ..trimmed_again })),
            Some(Discontinuity::FellBehind),
            "read on before it looked"
        );
        (again.counted, again.position) = (None, at(7));
        assert_eq!(again.broken_by(&now(trimmed_again)), Some(Discontinuity::FellBehind));
        let mut fresh = Known::new(Epoch(0xab), Position::default(), None);
        fresh.read(3, at(12));
        assert_eq!(fresh.added, 3);
    }

    #[test]
    fn each_loss_is_seen() {
        for text in ["", "ac", "xyz", "+ab", "100000000ab"] {
            let now = Observed { epoch_text: text.into(), ..observed() };
            assert_eq!(known().broken_by(&now), Some(Discontinuity::EpochChanged), "{text}");
        }
        for now in [
            Observed { life: None, ..observed() },
            with(|life| life.last = at(9)),
            with(|life| life.added = Some(4)),
            with(|life| life.missing = Some(at(10))),
            with(|life| life.missing = Some(at(11))),
            with(|life| (life.missing, life.first) = (Some(at(13)), None)),
        ] {
            assert_eq!(known().broken_by(&now), Some(Discontinuity::EntriesLost), "{now:?}");
        }
        let all_unread = with(|life| (life.first, life.length, life.added) = (Some(at(11)), 5, Some(9)));
        assert_eq!(known().broken_by(&all_unread), Some(Discontinuity::EntriesLost), "4 were added, 5 are there");
        let unread = with(|life| (life.first, life.length) = (Some(at(12)), 1));
        assert_eq!(known().broken_by(&unread), Some(Discontinuity::FellBehind));
    }
}
