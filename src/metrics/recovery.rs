//! Clients that come back: whether they got what they missed, and what this node keeps for them.

use crate::metrics::maker::{Made, Maker};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};
use std::time::Duration;

/// Results of a resume attempt.
const RECOVERIES: [&str; 12] = [
    "recovered",
    "unknown_session",
    "too_old",
    "not_kept",
    "foreign_epoch",
    "future",
    "bad_offset",
    "rooms_unknown",
    "disconnected",
    "unreachable",
    "undecided",
    "gone",
];
/// Why events may be missing.
const GAPS: [&str; 6] = ["log_reset", "too_old", "not_kept", "foreign_epoch", "future", "bad_offset"];
/// Results of a pass over the log.
const BACKFILLS: [&str; 3] = ["complete", "partial", "unavailable"];

/// Metrics of recovery.
pub struct RecoveryMetrics {
    recoveries: IntCounterVec,
    gaps: IntCounterVec,
    backfills: IntCounterVec,
    backfill_entries: IntCounter,
    backfill_seconds: Histogram,
    /// Rooms whose events the window keeps.
    pub window_rooms: IntGauge,
    /// Events in the window.
    pub window_events: IntGauge,
}

impl RecoveryMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Made<Self> {
        Ok(Self {
            recoveries: make.counters_of(
                "roomcast_recoveries_total",
                "Resume attempts, by result.",
                "result",
                &RECOVERIES,
            )?,
            gaps: make.counters_of("roomcast_gaps_total", "Gap signals sent to clients.", "reason", &GAPS)?,
            backfills: make.counters_of(
                "roomcast_backfills_total",
                "Passes over the log for clients that came back to rooms which this node had not kept, by result.",
                "result",
                &BACKFILLS,
            )?,
            backfill_entries: make
                .counter("roomcast_backfill_entries_total", "Entries of the log that were read in these passes.")?,
            backfill_seconds: make.histogram("roomcast_backfill_seconds", "Duration of these passes.")?,
            window_rooms: make.gauge(
                "roomcast_window_rooms",
                "Rooms whose events this node keeps for clients that resume; 0 where it keeps those of all.",
            )?,
            window_events: make
                .gauge("roomcast_window_events", "Events that this node keeps for clients that resume.")?,
        })
    }

    /// Counts a resume attempt.
    pub fn attempt(&self, result: &'static str) {
        self.recoveries.with_label_values(&[result]).inc();
    }

    /// Counts clients that got a gap.
    pub fn gap(&self, reason: &'static str, count: u64) {
        self.gaps.with_label_values(&[reason]).inc_by(count);
    }

    /// Counts a pass over the log, and the entries that it read.
    pub fn backfill(&self, result: &'static str, entries: u64) {
        self.backfills.with_label_values(&[result]).inc();
        self.backfill_entries.inc_by(entries);
    }

    /// Notes how long a pass over the log took.
    pub fn backfill_took(&self, time: Duration) {
        self.backfill_seconds.observe(time.as_secs_f64());
    }
}
