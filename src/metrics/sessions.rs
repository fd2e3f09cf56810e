//! Sessions, the rooms that they are in, and who is present there.

use crate::metrics::maker::{Made, Maker};
use prometheus::{IntCounter, IntCounterVec, IntGauge};

/// Why a live session lost a room.
const LOSSES: [&str; 2] = ["token", "rules"];

/// Metrics of sessions and rooms.
pub struct SessionMetrics {
    /// Live and resumable sessions.
    pub count: IntGauge,
    /// Rooms with members.
    pub rooms: IntGauge,
    memberships_lost: IntCounterVec,
    /// Keys of presence with contents that nobody of ours wrote; they were removed.
    pub presence_repairs: IntCounter,
}

impl SessionMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Made<Self> {
        Ok(Self {
            count: make.gauge("roomcast_sessions", "Live and resumable sessions.")?,
            rooms: make.gauge("roomcast_rooms", "Rooms with members, summed over shards.")?,
            memberships_lost: make.counters_of(
                "roomcast_memberships_lost_total",
                "Rooms that live sessions lost by a new token or new rules.",
                "reason",
                &LOSSES,
            )?,
            presence_repairs: make.counter(
                "roomcast_presence_repairs_total",
                "Unreadable contents of presence keys that this node removed.",
            )?,
        })
    }

    /// Counts a membership that a live session lost.
    pub fn membership_lost(&self, reason: &'static str) {
        self.memberships_lost.with_label_values(&[reason]).inc();
    }
}
