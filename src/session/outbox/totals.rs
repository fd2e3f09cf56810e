//! What all outboxes of a shard hold.

use crate::session::frame::Frame;
use std::cell::Cell;

/// The sums over all outboxes of a shard: kept as frames come and go, because adding them up takes too long with very many
/// connections. Where several threads use the outboxes in turns, each has its part, and only the sum of the parts is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    bytes: usize,
    own: usize,
}

impl Totals {
    /// Bytes that wait, near enough for limits.
    pub fn waiting(self) -> usize {
        self.bytes
    }

    /// Bytes of memory that the outboxes hold. Events are not among them: many outboxes share one.
    pub fn held(self) -> usize {
        self.own
    }

    /// Both parts together.
    pub fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.wrapping_add(other.bytes), own: self.own.wrapping_add(other.own) }
    }

    fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes.wrapping_sub(other.bytes), own: self.own.wrapping_sub(other.own) }
    }
}

thread_local! {
    /// This thread's part of its shard's.
    static TOTALS: Cell<Totals> = const { Cell::new(Totals { bytes: 0, own: 0 }) };
}

/// This thread's part of the sums of its shard.
pub fn totals() -> Totals {
    TOTALS.get()
}

/// Uses the outboxes of another thread's shard. Answers, too, what this adds to that shard's sums.
pub fn on_behalf<T>(act: impl FnOnce() -> T) -> (T, Totals) {
    let own = TOTALS.get();
    let result = act();
    (result, TOTALS.replace(own).minus(own))
}

pub(super) fn came(frame: &Frame, size: usize) {
    TOTALS.set(TOTALS.get().plus(Totals { bytes: size, own: own(frame, size) }));
}

pub(super) fn gone(frame: &Frame, size: usize) {
    TOTALS.set(TOTALS.get().minus(Totals { bytes: size, own: own(frame, size) }));
}

/// Bytes of memory of one frame.
fn own(frame: &Frame, size: usize) -> usize {
    size_of::<Frame>() + if frame.event_of().is_some() { 0 } else { size }
}
