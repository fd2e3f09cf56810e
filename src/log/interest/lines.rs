//! What a node wants of each line of the log. The control line may have events to any room, a partition only to its own
//! rooms, so that a room is wanted on two lines at most.

use crate::log::interest::Interest;
use crate::model::event::Event;
use crate::model::names::Room;
use crate::model::namespaces::{NamespaceIndex, Namespaces};
use crate::model::offset::{Offset, Position};
use crate::model::partition::{Line, Partitions};
use std::time::Duration;

/// An [`Interest`] in each line. Positions are of the line that is named with them.
pub struct Interests {
    /// By their numbers. One for all where everything is wanted.
    lines: Box<[Interest]>,
    partitions: Partitions,
}

impl Interests {
    /// Everything is wanted.
    pub fn everything(partitions: Partitions, namespaces: Namespaces) -> Self {
        Self { lines: [Interest::everything(namespaces)].into(), partitions }
    }

    /// Wanted is what sessions are in, and were in `kept` ago.
    pub fn of_sessions(partitions: Partitions, namespaces: &Namespaces, kept: Duration) -> Self {
        let interest = |line| match line {
            Line::CONTROL => Interest::of_sessions(namespaces.clone(), kept),
            _ => Interest::of_partition(namespaces.clone(), kept, partitions.count()),
        };
        Self { lines: partitions.lines().map(interest).collect(), partitions }
    }

    /// Whether everything is kept.
    pub fn is_everything(&self) -> bool {
        self.of(Line::CONTROL).is_everything()
    }

    /// That in one line.
    pub fn of(&self, line: Line) -> &Interest {
        self.lines.get(line.index()).unwrap_or(&self.lines[0])
    }

    /// [`Interest::wants`] of a line.
    pub fn wants(&self, namespace: &str, room: &str, at: Offset) -> bool {
        self.of(at.line).wants(namespace, room, at.position)
    }

    /// [`Interest::wants_event`] of the event's line.
    pub fn wants_event(&self, event: &Event) -> bool {
        self.of(event.offset.line).wants_event(event)
    }

    /// [`Interest::enter`] on the lines of the room.
    pub fn enter(&self, namespace: NamespaceIndex, room: &Room) {
        self.on_lines_of(room, |interest| interest.enter(namespace, room));
    }

    /// [`Interest::leave`] on the lines of the room.
    pub fn leave(&self, namespace: NamespaceIndex, room: &Room) {
        self.on_lines_of(room, |interest| interest.leave(namespace, room));
    }

    /// [`Interest::touch`] on the lines of the room.
    pub fn touch(&self, namespace: NamespaceIndex, room: &Room) {
        self.on_lines_of(room, |interest| interest.touch(namespace, room));
    }

    /// [`Interest::touch_in`] on the lines of the room.
    pub fn touch_in(&self, namespace: Option<&str>, room: &Room) {
        self.on_lines_of(room, |interest| interest.touch_in(namespace, room));
    }

    /// Whether every event of the rooms on this line after this position was wanted, and those to come are.
    pub fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> bool {
        let interest = self.of(after.line);
        self.of_line(after.line, rooms).all(|room| interest.covers(namespace, room, after.position))
    }

    /// Every event of the rooms on this line after this position was wanted; `None` where that is so of all of them.
    pub fn since(&self, line: Line, namespace: &str, rooms: &[Room]) -> Option<Position> {
        let interest = self.of(line);
        self.of_line(line, rooms).filter_map(|room| interest.since(namespace, room)).max()
    }

    /// [`Interest::expire`] on all lines.
    pub fn expire(&self, now_ms: u64) {
        self.lines.iter().for_each(|interest| interest.expire(now_ms));
    }

    /// Number of rooms that are wanted: the control line may have events to all of them.
    pub fn rooms(&self) -> usize {
        self.of(Line::CONTROL).rooms()
    }

    /// Those rooms that a line may have events to.
    fn of_line<'a>(&self, line: Line, rooms: &'a [Room]) -> impl Iterator<Item = &'a Room> {
        let partitions = self.partitions;
        rooms.iter().filter(move |room| partitions.may_bring(line, room))
    }

    fn on_lines_of(&self, room: &Room, act: impl Fn(&Interest)) {
        act(self.of(Line::CONTROL));
        let partition = self.partitions.of(room);
        if partition != Line::CONTROL && !self.is_everything() {
            act(self.of(partition));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Id;
    use crate::model::names::EVERYBODY;
    use crate::model::offset::Epoch;

    const MAIN: NamespaceIndex = NamespaceIndex::new(0);

    fn at(line: Line, ms: u64) -> Offset {
        Offset { line, epoch: Epoch(1), position: Position { ms, seq: 0 } }
    }

    #[test]
    fn a_room_is_wanted_on_the_control_line_and_in_its_partition() {
        let partitions = Partitions::new(8, 0);
        let namespaces = Namespaces::new(&["/".to_owned()]);
        let interests = Interests::of_sessions(partitions, &namespaces, Duration::from_secs(100));
        let room: Room = "chat:42".into();
        let own = partitions.of(&room);
        let wanted =
            || -> Vec<Line> { partitions.lines().filter(|line| interests.wants("/", &room, at(*line, 5))).collect() };
        assert!(wanted().is_empty());
        interests.enter(MAIN, &room);
        assert_eq!(wanted(), [Line::CONTROL, own]);
        assert_eq!(interests.rooms(), 1);
        let rooms = [room.clone(), Id::random_session().to_string().into(), EVERYBODY.into()];
        for line in [Line::CONTROL, own] {
            // What was skipped is known of each line by itself.
            interests.of(line).reset(at(line, 5 + u64::from(line.number())).position);
            assert!(!interests.covers(at(line, 4), "/", &rooms), "{line}");
        }
        assert!(interests.covers(at(Line::CONTROL, 5), "/", &rooms) && !interests.covers(at(own, 5), "/", &rooms));
        assert_eq!(interests.since(own, "/", &rooms), Some(at(own, 5 + u64::from(own.number())).position));
        let other = partitions.lines().skip(1).find(|line| *line != own).unwrap();
        interests.of(other).reset(at(other, 9).position);
        assert!(interests.covers(at(other, 0), "/", &rooms), "it never has events to them");
        interests.leave(MAIN, &room);
        for second in 0..200 {
            interests.expire(second * 1000);
        }
        assert!(wanted().is_empty());
    }

    #[test]
    fn with_one_partition_there_is_one_line() {
        let namespaces = Namespaces::new(&["/".to_owned()]);
        let interests = Interests::of_sessions(Partitions::ONE, &namespaces, Duration::from_secs(100));
        assert_eq!(interests.lines.len(), 1);
        let everything = Interests::everything(Partitions::new(8, 0), namespaces);
        everything.enter(MAIN, &"chat:42".into());
        let lines = Partitions::new(8, 0).lines();
        assert!(everything.is_everything() && lines.into_iter().all(|line| everything.wants("/", "a", at(line, 1))));
    }
}
