//! When something happened: on the clock, and in the log.

use crate::model::offset::Position;

/// When something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// By the node's clock, in Unix milliseconds.
    pub unix_ms: u64,
    /// The last event before it.
    pub position: Position,
}
