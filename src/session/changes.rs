//! Which rooms a session was in at which position of the log, back to the oldest position that its client may resume from
//! (sans-IO). Events of a room before it joined are not replayed; events before it left are.

use crate::model::names::Room;
use crate::model::offset::Position;
use std::collections::VecDeque;

/// At most so many changes are known; a resume from before them cannot be proven.
const MAX_CHANGES: usize = 64;

/// A room was joined or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The last position in the log before the change.
    pub after: Position,
    /// The room.
    pub room: Room,
    /// Joined, or left.
    pub joined: bool,
}

/// The changes of a session's rooms since it began, oldest first. Holds no heap memory while there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(Option<Box<Kept>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    /// Those after this are known.
    floor: Position,
    list: VecDeque<Change>,
}

impl Changes {
    /// Reads back what [`Self::floor`] and [`Self::list`] gave.
    pub fn known(floor: Position, list: impl IntoIterator<Item = Change>) -> Self {
        let list: VecDeque<_> = list.into_iter().collect();
        Self((floor != Position::default() || !list.is_empty()).then(|| Box::new(Kept { floor, list })))
    }

    /// The position after which all changes are known.
    pub fn floor(&self) -> Position {
        self.0.as_ref().map_or(Position::default(), |kept| kept.floor)
    }

    /// The changes that are known.
    pub fn list(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.0.iter().flat_map(|kept| &kept.list)
    }

    /// Takes note of the next change. Those of `keep_ms` before it and older are forgotten: nobody resumes from there.
    pub fn note(&mut self, change: Change, keep_ms: u64) {
        let kept = self.0.get_or_insert_default();
        let oldest_ms = change.after.ms.saturating_sub(keep_ms);
        if let Some(last) = kept.list.back()
            && (last.after, &last.room, last.joined) == (change.after, &change.room, !change.joined)
        {
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
            kept.floor = kept.floor.max(first.after);
            kept.list.pop_front();
        }
    }

    /// The rooms at `position`, when they are `rooms` after all changes; `None` where that is not known any more.
    pub fn rooms_at(&self, position: Position, rooms: &[Room]) -> Option<Vec<Room>> {
        let mut rooms = rooms.to_vec();
        if position < self.floor() {
            return None;
        }
        for change in self.after(position).rev() {
            set(&mut rooms, &change.room, !change.joined);
        }
        Some(rooms)
    }

    /// What changed for events after `position`.
    pub fn after(&self, position: Position) -> impl DoubleEndedIterator<Item = &Change> {
        self.list().filter(move |change| change.after >= position)
    }

    /// Bytes that it holds, near enough for limits.
    pub fn size(&self) -> usize {
        self.list().map(|change| change.room.len() + 64).sum()
    }
}

/// What turns the rooms `before` into those of `now`.
pub fn difference(after: Position, before: &[Room], now: &[Room]) -> Vec<Change> {
    let left = before.iter().filter(|room| !now.contains(room)).map(|room| (room, false));
    let new = now.iter().filter(|room| !before.contains(room)).map(|room| (room, true));
    left.chain(new).map(|(room, joined)| Change { after, room: room.clone(), joined }).collect()
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

    fn note(changes: &mut Changes, ms: u64, room: &str, joined: bool) {
        changes.note(Change { after: at(ms), room: room.into(), joined }, 100);
    }

    #[test]
    fn rooms_are_known_at_each_place() {
        let mut changes = Changes::default();
        note(&mut changes, 10, "a", true);
        note(&mut changes, 20, "b", true);
        note(&mut changes, 30, "a", false);
        let rooms = |ms| changes.rooms_at(at(ms), &["b".into()]).unwrap().join(" ");
        assert_eq!([10, 11, 20, 21, 30, 31].map(rooms), ["", "a", "a", "b a", "b a", "b"]);
        let read = Changes::known(changes.floor(), changes.list().cloned());
        assert_eq!(read, changes);
    }

    #[test]
    fn what_is_forgotten_is_not_claimed() {
        let mut changes = Changes::default();
        note(&mut changes, 10, "a", true);
        note(&mut changes, 111, "b", true);
        assert_eq!((changes.floor(), changes.rooms_at(at(9), &[])), (at(10), None));
        assert!(changes.rooms_at(at(10), &[]).is_some());
        for _ in 0..100 {
            note(&mut changes, 112, "b", false);
        }
        assert!(changes.list().count() <= MAX_CHANGES && changes.floor() == at(112));
        assert_eq!(Changes::known(Position::default(), []), Changes::default());
        let mut undone = Changes::default();
        note(&mut undone, 10, "a", true);
        note(&mut undone, 10, "a", false);
        assert_eq!(undone, Changes::default(), "holds nothing for a change that was undone");
    }
}
