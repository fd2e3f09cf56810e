//! When something happened: on the clock, and in the log.

use crate::model::offset::Position;
use crate::model::partition::Line;
use crate::model::place::Place;
use std::sync::Arc;

/// When something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// By the node's clock, in Unix milliseconds.
    pub unix_ms: u64,
    /// The last event before it on the control line.
    control: Position,
    /// The same of the partitions, by their numbers, where the log has some.
    partitions: Option<Arc<[Position]>>,
}

impl Stamp {
    /// On a shard that is `here` on all lines.
    pub fn new(unix_ms: u64, here: &Place) -> Self {
        let partitions: Arc<[Position]> = here.offsets().skip(1).map(|offset| offset.position).collect();
        let partitions = Some(partitions).filter(|partitions| !partitions.is_empty());
        Self { unix_ms, control: here.control().position, partitions }
    }

    /// After everything.
    pub fn never() -> Self {
        let control = Position { ms: u64::MAX, seq: u64::MAX };
        Self { unix_ms: u64::MAX, control, partitions: None }
    }

    /// The last event before it on a line.
    pub fn on(&self, line: Line) -> Position {
        match &self.partitions {
            Some(partitions) if line != Line::CONTROL => partitions.get(line.index() - 1).copied().unwrap_or_default(),
            _ => self.control,
        }
    }

    /// Whether the log has partitions.
    pub(super) fn has_partitions(&self) -> bool {
        self.partitions.is_some()
    }

    /// Bytes of memory besides itself.
    pub(super) fn size(&self) -> usize {
        self.partitions.as_ref().map_or(0, |partitions| size_of_val(&**partitions) + 16)
    }
}
