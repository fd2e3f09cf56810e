//! What was read at once, on its way to the sink.

use crate::model::after::After;
use crate::model::event::Batch;
use crate::model::offset::{Offset, Position};

/// Entries that were taken one after the other.
pub(super) struct Page {
    pub entries: usize,
    /// Bytes of their names and values.
    pub bytes: usize,
    pub newest: Option<Position>,
    /// The offset of the entry that was taken last.
    pub offset: Offset,
    pub batch: Batch,
    /// Events of other publishers.
    pub foreign: u64,
    /// Events that nobody here wants.
    pub unwanted: u64,
    pub unsupported: u64,
    pub void: u64,
    /// What comes before it on other lines.
    pub comes_after: After,
    /// Pages before it, which do not wait for that.
    pub earlier: Vec<Self>,
}

impl Page {
    /// Begins after this offset.
    pub(super) fn after(offset: Offset) -> Self {
        let (entries, bytes, newest) = (0, 0, None);
        let (batch, comes_after, earlier) = Default::default();
        let (foreign, unwanted, unsupported, void) = Default::default();
        Self { entries, bytes, newest, offset, batch, foreign, unwanted, unsupported, void, comes_after, earlier }
    }
}
