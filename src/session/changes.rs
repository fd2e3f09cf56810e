//! Which rooms a session was in at which position of the log, back to the oldest position that its client may resume from
//! (sans-IO). Events of a room before it joined are not replayed; events before it left are.

use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::model::partition::{Line, Partitions};
use crate::model::place::Place;
use std::collections::VecDeque;

/// At most so many changes are known; a resume from before them cannot be proven.
const MAX_CHANGES: usize = 64;

/// A room was joined or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The last position on the control line before the change.
    pub after: Position,
    /// The same moment in the room's partition, where the log has several.
    pub partition: Option<Offset>,
    /// The room.
    pub room: Room,
    /// Joined, or left.
    pub joined: bool,
}

impl Change {
    /// The last position on a line before the change; `None` where that line has no events of the room.
    pub fn on(&self, line: Line) -> Option<Position> {
        match line {
            Line::CONTROL => Some(self.after),
            line => self.partition.filter(|partition| partition.line == line).map(|partition| partition.position),
        }
    }
}

/// The changes of a session's rooms since it began, oldest first. Holds no heap memory while there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(Option<Box<Kept>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    /// Those after this are known. Of a partition that it does not name nothing was forgotten.
    floor: Place,
    list: VecDeque<Change>,
    /// Rooms that were lost with a token, as the changes by which they were left.
    lost: Vec<Change>,
}

impl Changes {
    /// Reads back what [`Self::floor`] and [`Self::list`] gave.
    pub fn known(floor: Place, list: impl IntoIterator<Item = Change>) -> Self {
        let kept = Kept { floor, list: list.into_iter().collect(), lost: Vec::new() };
        Self((kept != Kept::default()).then(|| Box::new(kept)))
    }

    /// A room is lost with the session's token: it was in it until this change, and gets nothing more of it. What is known of
    /// it decides only about events that except the room.
    pub fn lose(&mut self, left: Change) {
        let kept = self.0.get_or_insert_default();
        let is_known = kept.list.iter().rev().find(|change| change.room == left.room) == Some(&left);
        kept.lost.retain(|lost| lost.room != left.room);
        if !is_known {
            kept.list.push_back(left.clone());
        }
        kept.lost.push(left);
    }

    /// The changes that are known, but for those of rooms that were lost later.
    pub fn of_kept(&self) -> impl Iterator<Item = &Change> {
        self.list().filter(|change| !self.is_of_lost(change))
    }

    /// The others.
    pub fn of_lost(&self) -> impl Iterator<Item = &Change> {
        self.list().filter(|change| self.is_of_lost(change))
    }

    fn is_of_lost(&self, change: &Change) -> bool {
        self.lost().any(|lost| lost.room == change.room && change.after <= lost.after)
    }

    /// Reads back what [`Self::of_lost`] gave, besides what [`Self::of_kept`] did.
    pub fn with_lost(mut self, of_lost: Vec<Change>) -> Self {
        if of_lost.is_empty() {
            return self;
        }
        let kept = self.0.get_or_insert_default();
        for change in of_lost {
            kept.lost.retain(|lost| lost.room != change.room);
            if !change.joined {
                kept.lost.push(change.clone());
            }
            kept.list.push_back(change);
        }
        kept.list.make_contiguous().sort_by_key(|change| change.after);
        self
    }

    /// The changes by which rooms were left that are lost.
    pub fn lost(&self) -> impl Iterator<Item = &Change> {
        self.0.iter().flat_map(|kept| &kept.lost)
    }

    /// Whether events of a room after `at` are not for the session, because it lost the room later.
    pub fn is_lost(&self, room: &Room, at: Offset) -> bool {
        self.lost().any(|lost| lost.room == *room && lost.on(at.line).is_some_and(|after| after >= at.position))
    }

    /// The place after which all changes are known. On the control line only its position counts.
    pub fn floor(&self) -> Place {
        self.0.as_ref().map_or_else(Place::default, |kept| kept.floor.clone())
    }

    /// The changes that are known.
    pub fn list(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.0.iter().flat_map(|kept| &kept.list)
    }

    /// Where the session first was in a room of a partition, as far as that is known; `Err` where it was forgotten.
    pub fn first_on(&self, line: Line) -> Result<Option<Offset>, Forgotten> {
        if self.0.as_ref().is_some_and(|kept| kept.floor.on(line).is_some()) {
            return Err(Forgotten);
        }
        Ok(self.list().find_map(|change| change.partition.filter(|partition| partition.line == line)))
    }

    /// Takes note of the next change. Those of `keep_ms` before it and older are forgotten: nobody resumes from there.
    pub fn note(&mut self, change: Change, keep_ms: u64) {
        let kept = self.0.get_or_insert_default();
        let oldest_ms = change.after.ms.saturating_sub(keep_ms);
        if kept.list.back().is_some_and(|last| *last == Change { joined: !change.joined, ..change.clone() }) {
            // Undone, and nothing came in between.
            kept.list.pop_back();
            if **kept == Kept::default() {
                self.0 = None;
            }
            return;
        }
        kept.list.push_back(change);
        while let Some(first) = kept.list.front()
            && (first.after.ms < oldest_ms || kept.list.len() > MAX_CHANGES)
        {
            let position = kept.floor.control().position.max(first.after);
            kept.floor.set(Offset { position, ..Offset::default() });
            first.partition.iter().for_each(|partition| kept.floor.set(*partition));
            kept.list.pop_front();
        }
        let floor = kept.floor.control().position;
        kept.lost.retain(|lost| lost.after > floor);
    }

    /// The rooms that a line has events of, as of `at`, when they are `rooms` after all changes; `None` where that is not
    /// known any more.
    pub fn rooms_at(&self, at: Offset, rooms: &[Room], partitions: Partitions) -> Option<Vec<Room>> {
        let floor = self.0.as_ref().and_then(|kept| kept.floor.on(at.line)).unwrap_or_default();
        if at.position < floor.position {
            return None;
        }
        let mut rooms: Vec<_> = rooms.iter().filter(|room| partitions.may_bring(at.line, room)).cloned().collect();
        for change in self.after(at).rev() {
            set(&mut rooms, &change.room, !change.joined);
        }
        Some(rooms)
    }

    /// What changed for events after `at` on its line.
    pub fn after(&self, at: Offset) -> impl DoubleEndedIterator<Item = &Change> {
        self.list().filter(move |change| change.on(at.line).is_some_and(|after| after >= at.position))
    }

    /// Bytes that it holds, near enough for limits.
    pub fn size(&self) -> usize {
        self.list().chain(self.lost()).map(|change| change.room.len() + 64).sum()
    }
}

/// The changes of a line are not known back to where the session first was on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten;

/// What turns the rooms `before` into those of `now`: each room, and whether it was joined.
pub fn difference<'a>(before: &'a [Room], now: &'a [Room]) -> impl Iterator<Item = (&'a Room, bool)> {
    let left = before.iter().filter(|room| !now.contains(room)).map(|room| (room, false));
    let new = now.iter().filter(|room| !before.contains(room)).map(|room| (room, true));
    left.chain(new)
}

/// Puts a room into a list, or takes it out.
pub fn set(rooms: &mut Vec<Room>, room: &Room, inside: bool) {
    if !inside {
        rooms.retain(|other| other != room);
    } else if !rooms.contains(room) {
        rooms.push(room.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Position {
        Position { ms, seq: 0 }
    }

    fn offset(ms: u64) -> Offset {
        Offset { position: at(ms), ..Offset::default() }
    }

    fn note(changes: &mut Changes, ms: u64, room: &str, joined: bool) {
        changes.note(Change { after: at(ms), partition: None, room: room.into(), joined }, 100);
    }

    #[test]
    fn rooms_are_known_at_each_place() {
        let mut changes = Changes::default();
        note(&mut changes, 10, "a", true);
        note(&mut changes, 20, "b", true);
        note(&mut changes, 30, "a", false);
        let rooms = |ms| changes.rooms_at(offset(ms), &["b".into()], Partitions::ONE).unwrap().join(" ");
        assert_eq!([10, 11, 20, 21, 30, 31].map(rooms), ["", "a", "a", "b a", "b a", "b"]);
        let read = Changes::known(changes.floor(), changes.list().cloned());
        assert_eq!(read, changes);
    }

    #[test]
    fn what_is_forgotten_is_not_claimed() {
        let mut changes = Changes::default();
        note(&mut changes, 10, "a", true);
        note(&mut changes, 111, "b", true);
        let known = |changes: &Changes, ms| changes.rooms_at(offset(ms), &[], Partitions::ONE).is_some();
        assert_eq!((changes.floor(), known(&changes, 9), known(&changes, 10)), (offset(10).into(), false, true));
        for _ in 0..100 {
            note(&mut changes, 112, "b", false);
        }
        assert!(changes.list().count() <= MAX_CHANGES && changes.floor() == offset(112).into());
        assert_eq!(Changes::known(Place::default(), []), Changes::default());
        let mut undone = Changes::default();
        note(&mut undone, 10, "a", true);
        note(&mut undone, 10, "a", false);
        assert_eq!(undone, Changes::default(), "holds nothing for a change that was undone");
    }

    #[test]
    fn each_partition_has_its_own_changes() {
        let partitions = Partitions::new(8, 0);
        let (a, b) = (partitions.of("a"), partitions.of("b"));
        assert_ne!(a, b);
        let mut changes = Changes::default();
        for (control, line, ms, room, joined) in
            [(10, a, 50, "a", true), (11, b, 7, "b", true), (11, a, 60, "a", false)]
        {
            let partition = Some(Offset { line, position: at(ms), ..Offset::default() });
            changes.note(Change { after: at(control), partition, room: room.into(), joined }, 100);
        }
        let rooms = |line, ms| {
            let at = Offset { line, ..offset(ms) };
            changes.rooms_at(at, &["b".into()], partitions).unwrap().join(" ")
        };
        assert_eq!([50, 51, 60, 61].map(|ms| rooms(a, ms)), ["", "a", "a", ""]);
        assert_eq!([7, 8, 99].map(|ms| rooms(b, ms)), ["", "b", "b"]);
        assert_eq!([10, 11, 12].map(|ms| rooms(Line::CONTROL, ms)), ["", "a", "b"]);
        assert_eq!(changes.first_on(b).unwrap().unwrap().position, at(7));
        let partition = Some(Offset { line: b, position: at(9), ..Offset::default() });
        changes.note(Change { after: at(111), partition, room: "b".into(), joined: false }, 100);
        assert!(changes.first_on(a) == Err(Forgotten) && changes.first_on(b).is_ok());
        let before = Offset { line: a, ..offset(49) };
        assert_eq!(changes.rooms_at(before, &[], partitions), None);
    }
}
