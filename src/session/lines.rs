//! What a session has beside the control line, where the log has partitions (sans-IO).

use crate::model::offset::Offset;
use crate::model::partition::Line;
use crate::model::place::{LineSet, Place};

/// The lines that bring events to a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionLines {
    /// The partitions that it has, or had, rooms in since it began. A client's place names all of them: one that it does not
    /// name came later.
    pub set: LineSet,
    /// Where it began, on the lines of its first rooms.
    pub start: Place,
    /// The line of the last stored event that was put into its outbox.
    pub last: Line,
}

impl SessionLines {
    /// Of a session that begins here; `None` where the control line is the only one.
    pub fn begin(here: &Place) -> Option<Box<Self>> {
        (!here.lines().is_empty()).then(|| Box::new(Self { start: here.clone(), ..Self::default() }))
    }

    /// Of a session that continues.
    pub fn resume(start: &Place, at: &Place, last: Line) -> Option<Box<Self>> {
        let set = at.lines();
        (!set.is_empty() || !start.lines().is_empty()).then(|| Box::new(Self { set, start: start.clone(), last }))
    }

    /// All its first rooms are known.
    pub fn began(&mut self) {
        self.start = self.start.only(self.set);
    }

    /// The session came into, or left, a room with this offset in its partition.
    pub fn note(&mut self, partition: Option<Offset>) {
        partition.iter().for_each(|offset| self.set.insert(offset.line));
    }
}
