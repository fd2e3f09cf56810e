//! Requests to the backend.

use crate::metrics::maker::{Made, Maker};
use prometheus::{HistogramVec, IntCounterVec};
use std::time::Duration;

const TYPES: [&str; 8] = ["join", "event", "connect", "disconnect", "online", "offline", "occupied", "vacated"];
const RESULTS: [&str; 9] =
    ["ok", "timeout", "unreachable", "resting", "busy", "full", "status", "bad_answer", "refused"];

/// Metrics of the backend.
pub struct BackendMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl BackendMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Made<Self> {
        let metrics = Self {
            requests: make.counters(
                "roomcast_backend_requests_total",
                "Requests to the backend.",
                &["type", "result"],
            )?,
            seconds: make.histograms(
                "roomcast_backend_request_seconds",
                "Duration of requests to the backend.",
                &["type"],
            )?,
        };
        for kind in TYPES {
            metrics.seconds.with_label_values(&[kind]);
            RESULTS.iter().for_each(|result| drop(metrics.requests.with_label_values(&[kind, result])));
        }
        Ok(metrics)
    }

    /// Counts a request.
    pub fn request(&self, kind: &'static str, result: &'static str) {
        self.requests.with_label_values(&[kind, result]).inc();
    }

    /// Notes how long a request took.
    pub fn took(&self, kind: &'static str, time: Duration) {
        self.seconds.with_label_values(&[kind]).observe(time.as_secs_f64());
    }
}
