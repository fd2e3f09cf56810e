//! The log: how far behind its readers are, how much it holds, and whether Redis answers.

use crate::metrics::maker::{Made, Maker};
use crate::model::partition::Line;
use prometheus::{Gauge, GaugeVec, IntCounter, IntGauge};

/// Metrics of the log.
pub struct LogMetrics {
    /// Age of the newest event when the tail delivered it.
    pub tail_lag: Gauge,
    line_lag: GaugeVec,
    /// Of events that somebody here wants, and of all others.
    read: [IntCounter; 2],
    /// Entries that waited in vain for another line of the log.
    pub out_of_order: IntCounter,
    /// 1 while both the appends and the tail reach Redis.
    pub redis_up: IntGauge,
    /// Connections to Redis that were made again after a loss.
    pub redis_reconnects: IntCounter,
    /// Streams that this node renewed because of an id far in the future.
    pub renewals: IntCounter,
    /// Bytes of the log's stream, about.
    pub stream_bytes: IntGauge,
    /// Bytes that this node trimmed from the log's stream because of `redis.max_stream_bytes`.
    pub stream_trimmed_bytes: IntCounter,
}

impl LogMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Made<Self> {
        let read = make.counters(
            "roomcast_log_read_total",
            "Events that this node read from the log, by whether anybody here wanted them.",
            &["result"],
        )?;
        Ok(Self {
            tail_lag: make
                .float("roomcast_tail_lag_seconds", "Age of the newest event when the log's tail read it.")?,
            line_lag: make.floats(
                "roomcast_line_lag_seconds",
                "Age of the newest event when its line of a log with partitions was read.",
                &["line"],
            )?,
            read: ["wanted", "unwanted"].map(|result| read.with_label_values(&[result])),
            out_of_order: make.counter(
                "roomcast_log_out_of_order_total",
                "Entries that were delivered before what they come after on another line of the log.",
            )?,
            redis_up: make.gauge("roomcast_redis_up", "1 while appends and the log's tail reach Redis.")?,
            redis_reconnects: make.counter("roomcast_redis_reconnects_total", "Reconnections to Redis.")?,
            renewals: make.counter(
                "roomcast_log_renewals_total",
                "Streams of the log that this node replaced because of an id far in the future.",
            )?,
            stream_bytes: make.gauge("roomcast_stream_bytes", "Bytes of the log's stream, about.")?,
            stream_trimmed_bytes: make.counter(
                "roomcast_stream_trimmed_bytes_total",
                "Bytes that this node trimmed from the log's stream because of redis.max_stream_bytes.",
            )?,
        })
    }

    /// The age of the newest event of one line of a log with several, when it was read.
    pub fn line_lag(&self, line: Line) -> Gauge {
        self.line_lag.with_label_values(&[line.to_string()])
    }

    /// Counts events that the log's tail read: those that some session here, or a room that is kept, needs, and all others.
    pub fn read(&self, wanted: u64, unwanted: u64) {
        let [of_wanted, of_unwanted] = &self.read;
        of_wanted.inc_by(wanted);
        of_unwanted.inc_by(unwanted);
    }
}
