//! `[recovery]`.

use crate::model::partition::Partitions;
use std::time::Duration;

/// What is kept at most of all lines together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of events.
    pub bytes: usize,
    /// Bytes of events of one room.
    pub room_bytes: usize,
    /// So many parts of a room's name say which tenant it belongs to; rooms have none for zero.
    pub tenant_segments: u8,
}

/// `[recovery]`.
#[derive(Clone, Debug)]
pub struct RecoveryConfig {
    /// How far back a client may resume. Zero turns recovery off: no pid, no offsets.
    pub window: Duration,
    /// Bytes of events that a node keeps for it.
    pub window_bytes: usize,
    /// Bytes of events that a node keeps of one room.
    pub room_bytes: usize,
    /// So many parts of a room's name, split at `:`, say which tenant it belongs to, for who loses events first. Zero: as many
    /// as decide about its partition.
    pub tenant_segments: u8,
    /// How long the log is read again for clients that come back to rooms which this node did not keep.
    pub backfill_timeout: Duration,
}

impl RecoveryConfig {
    /// For one line of a log with these partitions: all have as many bytes of what a node reads while it starts. What is
    /// missing of it later is read again.
    #[must_use]
    pub fn of_line(&self, partitions: Partitions) -> Self {
        Self { window_bytes: self.window_bytes / partitions.lines().len(), ..self.clone() }
    }

    /// What is kept of a log with these partitions.
    pub fn bounds(&self, partitions: Partitions) -> Bounds {
        Bounds {
            bytes: self.window_bytes,
            room_bytes: self.room_bytes,
            tenant_segments: if self.tenant_segments > 0 { self.tenant_segments } else { partitions.segments() },
        }
    }

    /// How long events are kept. The record of a session that was lost with its node may be a fifth of the window old, so a
    /// quarter more is kept.
    pub fn kept(&self) -> Duration {
        self.window * 5 / 4
    }
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(120),
            window_bytes: 64_000_000,
            room_bytes: 32_000_000,
            tenant_segments: 0,
            backfill_timeout: Duration::from_secs(5),
        }
    }
}
