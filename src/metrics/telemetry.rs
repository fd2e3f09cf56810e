//! What is sent to a receiver of telemetry, and what it never gets.

use crate::metrics::maker::{Made, Maker};
use prometheus::{IntCounter, IntCounterVec};

/// Why spans were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TelemetryDrop {
    /// `telemetry.queue` was full.
    QueueFull,
    /// The receiver did not take them, however often they were sent.
    ExportFailed,
    /// The receiver took the request, and not all spans of it.
    Rejected,
}

/// What a request to the receiver of telemetry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// These metrics.
    Metrics,
}

/// In the order of [`TelemetryDrop`].
const DROPS: [&str; 3] = ["queue_full", "export_failed", "rejected"];
/// In the order of [`Signal`].
const SIGNALS: [&str; 2] = ["traces", "metrics"];
const RESULTS: [&str; 2] = ["ok", "failed"];

/// Metrics of telemetry.
pub struct TelemetryMetrics {
    drops: Vec<IntCounter>,
    exports: IntCounterVec,
}

impl TelemetryMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Made<Self> {
        let metrics = Self {
            drops: make.counter_of_each(
                "roomcast_telemetry_dropped_total",
                "Spans that no receiver of telemetry has, by reason.",
                "reason",
                DROPS,
            )?,
            exports: make.counters(
                "roomcast_telemetry_exports_total",
                "Requests to the receiver of telemetry, by what they hold and by result.",
                &["signal", "result"],
            )?,
        };
        for signal in SIGNALS {
            RESULTS.iter().for_each(|result| drop(metrics.exports.with_label_values(&[signal, result])));
        }
        Ok(metrics)
    }

    /// Counts spans that were not sent.
    pub fn dropped(&self, reason: TelemetryDrop, count: u64) {
        self.drops[reason as usize].inc_by(count);
    }

    /// Counts a request to the receiver.
    pub fn export(&self, signal: Signal, taken: bool) {
        self.exports.with_label_values(&[SIGNALS[signal as usize], RESULTS[usize::from(!taken)]]).inc();
    }
}
