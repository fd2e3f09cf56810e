//! What nodes ask each other of what happens to their clients. Fields that a node does not know are left out, so that releases
//! can add some.

use crate::model::happening::Happening;
use crate::model::id::Id;
use serde::{Deserialize, Serialize};

/// A trace, and that there is room for more of it. The node that serves the trace asks again and again; one that is asked for
/// the first time begins to follow, and stops when it is not asked any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceQuery {
    /// Its name.
    pub trace: Id,
    /// Only what concerns this user.
    #[serde(default)]
    pub user: Option<String>,
    /// Only what concerns this session.
    #[serde(default)]
    pub session: Option<Id>,
    /// Only what concerns this room.
    #[serde(default)]
    pub room: Option<String>,
    /// With the arguments of events, where the node allows it.
    #[serde(default)]
    pub payloads: bool,
}

/// What happened since the node was last asked; empty after a second without anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceBatch {
    /// The node follows from now on; what happened before is not known.
    pub began: bool,
    /// The node does not follow: `trace.max_open` is reached there.
    pub is_full: bool,
    /// In the order in which it happened on each core.
    pub happenings: Vec<Happening>,
    /// So many more were skipped.
    pub skipped: u64,
}

impl TraceBatch {
    /// Bytes of it, near enough for limits.
    pub fn size(&self) -> usize {
        60 + self.happenings.iter().map(Happening::size).sum::<usize>()
    }
}
