//! The metrics registry. Handles are resolved at start, so that counting is one atomic operation. Only this module uses
//! the prometheus crate.

mod maker;
mod series;
mod snapshot;

pub use prometheus::Gauge;
pub use snapshot::{Family, MetricKind, Point, PointValue};

use crate::budget::{Holding, MemoryBudget};
use crate::model::clock::unix_ms;
use crate::model::close::{CloseReason, DropReason};
use crate::model::draft::Source;
use crate::model::partition::Line;
use crate::model::refusal::Refusal;
use crate::model::transport::{Protocol, Transport};
use maker::Maker;
use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

const PROTOCOLS: [&str; 3] = ["socketio", "ws", "sse"];
const TRANSPORTS: [&str; 3] = ["websocket", "polling", "sse"];

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

/// All metrics of a node (docs/metrics.md).
pub struct Metrics {
    registry: Registry,
    connections: IntGaugeVec,
    /// Live and resumable sessions.
    pub sessions: IntGauge,
    /// Rooms with members.
    pub rooms: IntGauge,
    handshakes: IntCounterVec,
    tls_handshakes: IntCounterVec,
    /// The end of the certificate's time, in Unix seconds; 0 without TLS.
    pub tls_certificate_expiry: IntGauge,
    refusals: Vec<IntCounter>,
    closes: Vec<IntCounter>,
    events: Vec<IntCounter>,
    refused: IntCounterVec,
    /// In the order of [`series::PUBLISH_STATUSES`], then `other`.
    publish_answers: Vec<IntCounter>,
    /// Connections of publishers that went on on another shard.
    pub publishers_moved: IntCounter,
    deliveries: Vec<IntCounter>,
    drops: Vec<IntCounter>,
    recoveries: IntCounterVec,
    gaps: IntCounterVec,
    backfills: IntCounterVec,
    backfill_entries: IntCounter,
    /// How long the log was read again for clients that came back.
    pub backfill_seconds: Histogram,
    /// Rooms whose events the window keeps.
    pub window_rooms: IntGauge,
    /// Events in the window.
    pub window_events: IntGauge,
    /// From the acceptance of an event to its write on the socket.
    pub publish_to_write: Histogram,
    /// Age of the newest event when the tail delivered it.
    pub tail_lag: Gauge,
    line_lag: GaugeVec,
    log_read: [IntCounter; 2],
    /// Entries that waited in vain for another line of the log.
    pub out_of_order: IntCounter,
    /// 1 while both the appends and the tail reach Redis.
    pub redis_up: IntGauge,
    /// Connections to Redis that were made again after a loss.
    pub redis_reconnects: IntCounter,
    /// Revoked users and tokens that this node knows.
    pub revocations: IntGauge,
    /// Streams that this node renewed because of an id far in the future.
    pub log_renewals: IntCounter,
    /// Bytes of the log's stream, about.
    pub stream_bytes: IntGauge,
    /// Bytes that this node trimmed from the log's stream because of `redis.max_stream_bytes`.
    pub stream_trimmed_bytes: IntCounter,
    /// Keys of presence with contents that nobody of ours wrote; they were removed.
    pub presence_repairs: IntCounter,
    /// Unsent bytes of all connections.
    pub outbox_bytes: IntGauge,
    memory: Vec<IntGauge>,
    memory_limit: IntGauge,
    log_lines_dropped: IntCounter,
    tokens_verified: IntCounterVec,
    config_reloads: IntCounterVec,
    config_since: Gauge,
    config_needs_restart: IntGauge,
    memberships_lost: IntCounterVec,
    traces: IntGauge,
    trace_skipped: IntCounter,
    telemetry_dropped: Vec<IntCounter>,
    telemetry_exports: IntCounterVec,
    node_info: IntGaugeVec,
    backend_requests: IntCounterVec,
    /// Time of one backend request.
    pub backend_seconds: HistogramVec,
}

impl Metrics {
    /// Registers all series, so that each exists before its first event.
    ///
    /// # Errors
    /// If a name is registered twice, which a test would show.
    pub fn new(version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        make.gauges("roomcast_build_info", "The running version.", &["version"])?.with_label_values(&[version]).set(1);
        let closes = make.counters("roomcast_closes_total", "Connections closed, by reason.", &["reason"])?;
        let events = make.counters("roomcast_events_total", "Events accepted, by source.", &["source"])?;
        let deliveries =
            make.counters("roomcast_deliveries_total", "Events handed to a connection's outbox.", &["protocol"])?;
        let drops = make.counters("roomcast_drops_total", "Events not delivered, by reason.", &["reason"])?;
        let publish_answers =
            make.counters("roomcast_publish_answers_total", "Answers to POST /publish, by HTTP status.", &["status"])?;
        let memory = make.gauges("roomcast_memory_bytes", "Memory held for clients, by kind.", &["kind"])?;
        let refusals = make.counters("roomcast_refusals_total", "Refusals of all kinds, by reason.", &["reason"])?;
        let log_read = make.counters(
            "roomcast_log_read_total",
            "Events that this node read from the log, by whether anybody here wanted them.",
            &["result"],
        )?;
        let telemetry_dropped = make.counters(
            "roomcast_telemetry_dropped_total",
            "Spans that no receiver of telemetry has, by reason.",
            &["reason"],
        )?;
        let metrics = Self {
            telemetry_dropped: series::TELEMETRY_DROPS
                .iter()
                .map(|reason| telemetry_dropped.with_label_values(&[reason]))
                .collect(),
            telemetry_exports: make.counters(
                "roomcast_telemetry_exports_total",
                "Requests to the receiver of telemetry, by what they hold and by result.",
                &["signal", "result"],
            )?,
            node_info: make.gauges("roomcast_node_info", "The name of this node in the cluster.", &["node"])?,
            refusals: Refusal::ALL.iter().map(|r| refusals.with_label_values(&[r.label()])).collect(),
            connections: make.gauges("roomcast_connections", "Open client connections.", &["transport", "protocol"])?,
            sessions: make.gauge("roomcast_sessions", "Live and resumable sessions.")?,
            rooms: make.gauge("roomcast_rooms", "Rooms with members, summed over shards.")?,
            handshakes: make.counters("roomcast_handshakes_total", "Authentications, by result.", &["result"])?,
            tls_handshakes: make.counters(
                "roomcast_tls_handshakes_total",
                "TLS handshakes, by result.",
                &["result"],
            )?,
            tls_certificate_expiry: make.gauge(
                "roomcast_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in force expires; 0 without TLS.",
            )?,
            closes: CloseReason::ALL.iter().map(|r| closes.with_label_values(&[r.label()])).collect(),
            events: Source::ALL.iter().map(|s| events.with_label_values(&[s.label()])).collect(),
            refused: make.counters(
                "roomcast_events_refused_total",
                "Events refused, by source and reason.",
                &["source", "reason"],
            )?,
            publish_answers: series::PUBLISH_STATUSES
                .iter()
                .map(|(_, label)| *label)
                .chain(["other"])
                .map(|status| publish_answers.with_label_values(&[status]))
                .collect(),
            publishers_moved: make.counter(
                "roomcast_publishers_moved_total",
                "Connections of publishers that went on on another shard's thread.",
            )?,
            deliveries: PROTOCOLS.iter().map(|p| deliveries.with_label_values(&[p])).collect(),
            drops: DropReason::ALL.iter().map(|r| drops.with_label_values(&[r.label()])).collect(),
            recoveries: make.counters("roomcast_recoveries_total", "Resume attempts, by result.", &["result"])?,
            gaps: make.counters("roomcast_gaps_total", "Gap signals sent to clients.", &["reason"])?,
            backfills: make.counters(
                "roomcast_backfills_total",
                "Passes over the log for clients that came back to rooms which this node had not kept, by result.",
                &["result"],
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
            publish_to_write: make.histogram(
                "roomcast_publish_to_write_seconds",
                "From the acceptance of an event to its write on the sockets.",
            )?,
            tail_lag: make
                .float("roomcast_tail_lag_seconds", "Age of the newest event when the log's tail read it.")?,
            line_lag: make.floats(
                "roomcast_line_lag_seconds",
                "Age of the newest event when its line of a log with partitions was read.",
                &["line"],
            )?,
            log_read: ["wanted", "unwanted"].map(|result| log_read.with_label_values(&[result])),
            out_of_order: make.counter(
                "roomcast_log_out_of_order_total",
                "Entries that were delivered before what they come after on another line of the log.",
            )?,
            redis_up: make.gauge("roomcast_redis_up", "1 while appends and the log's tail reach Redis.")?,
            redis_reconnects: make.counter("roomcast_redis_reconnects_total", "Reconnections to Redis.")?,
            revocations: make
                .gauge("roomcast_revocations", "Users and tokens whose tokens are refused by POST /revoke.")?,
            log_renewals: make.counter(
                "roomcast_log_renewals_total",
                "Streams of the log that this node replaced because of an id far in the future.",
            )?,
            stream_bytes: make.gauge("roomcast_stream_bytes", "Bytes of the log's stream, about.")?,
            stream_trimmed_bytes: make.counter(
                "roomcast_stream_trimmed_bytes_total",
                "Bytes that this node trimmed from the log's stream because of redis.max_stream_bytes.",
            )?,
            presence_repairs: make.counter(
                "roomcast_presence_repairs_total",
                "Unreadable contents of presence keys that this node removed.",
            )?,
            outbox_bytes: make.gauge("roomcast_outbox_bytes", "Unsent bytes of all connections.")?,
            memory: Holding::ALL.iter().map(|kind| memory.with_label_values(&[kind.label()])).collect(),
            memory_limit: make.gauge("roomcast_memory_limit_bytes", "`limits.memory`.")?,
            log_lines_dropped: make
                .counter("roomcast_log_lines_dropped_total", "Log lines dropped because stderr did not accept them.")?,
            tokens_verified: make.counters(
                "roomcast_tokens_verified_total",
                "Tokens accepted, by the position of their secret in auth.secrets, or where their key comes from.",
                &["key"],
            )?,
            config_reloads: make.counters(
                "roomcast_config_reloads_total",
                "Configurations read, at the start and again, by result.",
                &["result"],
            )?,
            config_since: make.float(
                "roomcast_config_last_reload_success_timestamp_seconds",
                "When the configuration was last read without a mistake.",
            )?,
            config_needs_restart: make
                .gauge("roomcast_config_needs_restart", "Keys that were changed and need a restart of this node.")?,
            memberships_lost: make.counters(
                "roomcast_memberships_lost_total",
                "Rooms that live sessions lost by a new token or new rules.",
                &["reason"],
            )?,
            traces: make.gauge("roomcast_traces", "Who follows live what happens on this node.")?,
            trace_skipped: make.counter(
                "roomcast_trace_skipped_total",
                "Happenings that those who follow did not get: beyond their pace, or they read too slowly.",
            )?,
            backend_requests: make.counters(
                "roomcast_backend_requests_total",
                "Requests to the backend.",
                &["type", "result"],
            )?,
            backend_seconds: make.histograms(
                "roomcast_backend_request_seconds",
                "Duration of requests to the backend.",
                &["type"],
            )?,
            registry,
        };
        metrics.begin_series();
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Makes the series of known label values; the others have theirs by [`Metrics::new`].
    fn begin_series(&self) {
        for [transport, protocol] in series::CONNECTIONS {
            self.connections.with_label_values(&[transport, protocol]);
        }
        for (counters, values) in [
            (&self.handshakes, &series::HANDSHAKES[..]),
            (&self.tls_handshakes, &series::TLS_HANDSHAKES),
            (&self.recoveries, &series::RECOVERIES),
            (&self.backfills, &series::BACKFILLS),
            (&self.gaps, &series::GAPS),
            (&self.config_reloads, &series::RELOADS),
            (&self.memberships_lost, &series::LOSSES),
        ] {
            values.iter().for_each(|value| drop(counters.with_label_values(&[value])));
        }
        for signal in series::SIGNALS {
            for result in series::EXPORT_RESULTS {
                self.telemetry_exports.with_label_values(&[signal, result]);
            }
        }
        for kind in series::BACKEND_TYPES {
            self.backend_seconds.with_label_values(&[kind]);
            series::BACKEND_RESULTS.iter().for_each(|result| {
                self.backend_requests.with_label_values(&[kind, result]);
            });
        }
        let refused = |source: &str, reasons: &[&str]| {
            reasons.iter().for_each(|reason| drop(self.refused.with_label_values(&[source, reason])));
        };
        Source::ALL.iter().for_each(|source| refused(source.label(), &series::EVENT_REASONS));
        for source in ["http", "client", "backend", "emitter"] {
            refused(source, &series::LOG_REASONS);
        }
        refused("http", &series::HTTP_REASONS);
        refused("client", &series::CLIENT_REASONS);
        refused("emitter", &series::EMITTER_REASONS);
    }

    /// The gauge of one kind of connection.
    pub fn connections(&self, transport: Transport, protocol: Protocol) -> IntGauge {
        self.connections.with_label_values(&[TRANSPORTS[transport as usize], PROTOCOLS[protocol as usize]])
    }

    /// Open connections by transport and protocol, for each kind that there is.
    pub fn open_connections(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        series::CONNECTIONS.iter().map(|&[transport, protocol]| {
            let open = self.connections.with_label_values(&[transport, protocol]).get();
            (transport, protocol, u64::try_from(open).unwrap_or_default())
        })
    }

    /// Counts an authentication: `ok`, or the error's code.
    pub fn handshake(&self, result: &str) {
        self.handshakes.with_label_values(&[result]).inc();
    }

    /// Counts a TLS handshake: `ok`, or why it failed.
    pub fn tls_handshake(&self, result: &str) {
        self.tls_handshakes.with_label_values(&[result]).inc();
    }

    /// Counts a refusal; [`crate::refusals::Refusals::note`] also writes it into the log.
    pub fn refusal(&self, reason: Refusal) {
        self.refusals[reason as usize].inc();
    }

    /// Counts a close.
    pub fn closed(&self, reason: CloseReason) {
        self.closes[reason as usize].inc();
    }

    /// Counts accepted events.
    pub fn accepted(&self, source: Source, count: u64) {
        self.events[source as usize].inc_by(count);
    }

    /// Counts a refused event. `reason` is a fixed error code, so that users cannot create series.
    pub fn refused(&self, source: Source, reason: &'static str) {
        self.refused.with_label_values(&[source.label(), reason]).inc();
    }

    /// Counts an answer of `/publish`.
    pub fn publish_answered(&self, status: u16) {
        let known = series::PUBLISH_STATUSES.iter().position(|(code, _)| *code == status);
        self.publish_answers[known.unwrap_or(series::PUBLISH_STATUSES.len())].inc();
    }

    /// The age of the newest event of one line of a log with several, when it was read.
    pub fn line_lag(&self, line: Line) -> Gauge {
        self.line_lag.with_label_values(&[line.to_string()])
    }

    /// Counts deliveries.
    pub fn delivered(&self, protocol: Protocol, count: u64) {
        self.deliveries[protocol as usize].inc_by(count);
    }

    /// Counts drops.
    pub fn dropped(&self, reason: DropReason, count: u64) {
        self.drops[reason as usize].inc_by(count);
    }

    /// Counts a resume attempt.
    pub fn recovery(&self, result: &'static str) {
        self.recoveries.with_label_values(&[result]).inc();
    }

    /// Counts a pass over the log, and the entries that it read.
    pub fn backfill(&self, result: &'static str, entries: u64) {
        self.backfills.with_label_values(&[result]).inc();
        self.backfill_entries.inc_by(entries);
    }

    /// Counts events that the log's tail read: those that some session here, or a room that is kept, needs, and all others.
    pub fn log_read(&self, wanted: u64, unwanted: u64) {
        let [of_wanted, of_unwanted] = &self.log_read;
        of_wanted.inc_by(wanted);
        of_unwanted.inc_by(unwanted);
    }

    /// Counts clients that got a gap.
    pub fn gap(&self, reason: &'static str, count: u64) {
        self.gaps.with_label_values(&[reason]).inc_by(count);
    }

    /// Takes over what the budget has counted.
    pub fn note_memory(&self, budget: &MemoryBudget) {
        let bytes = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.memory_limit.set(bytes(budget.limit()));
        Holding::ALL.iter().zip(&self.memory).for_each(|(kind, gauge)| gauge.set(bytes(budget.held(*kind))));
    }

    /// Takes over how many log lines were dropped since the start.
    pub fn note_log_lines_dropped(&self, total: u64) {
        self.log_lines_dropped.inc_by(total.saturating_sub(self.log_lines_dropped.get()));
    }

    /// Takes over how many tokens each key has verified since the start.
    pub fn note_tokens_verified(&self, totals: &[(&str, u64)]) {
        for (key, total) in totals {
            let counter = self.tokens_verified.with_label_values(&[key]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// Counts a configuration that was read: `applied`, `unchanged` or `refused`.
    pub fn config_reload(&self, result: &'static str) {
        self.config_reloads.with_label_values(&[result]).inc();
    }

    /// A configuration without mistakes was read just now; so many of its changed keys need a restart.
    pub fn config_in_force(&self, needs_restart: usize) {
        self.config_since.set(unix_ms() as f64 / 1e3);
        self.config_needs_restart.set(i64::try_from(needs_restart).unwrap_or(i64::MAX));
    }

    /// Counts a membership that a live session lost.
    pub fn membership_lost(&self, reason: &'static str) {
        self.memberships_lost.with_label_values(&[reason]).inc();
    }

    /// Takes over how many follow this node, and how many happenings they did not get since the start.
    pub fn note_traces(&self, open: usize, skipped: u64) {
        self.traces.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.trace_skipped.inc_by(skipped.saturating_sub(self.trace_skipped.get()));
    }

    /// Counts spans that were not sent.
    pub fn telemetry_dropped(&self, reason: TelemetryDrop, count: u64) {
        self.telemetry_dropped[reason as usize].inc_by(count);
    }

    /// Counts a request to the receiver of telemetry.
    pub fn telemetry_export(&self, signal: Signal, taken: bool) {
        let labels = [series::SIGNALS[signal as usize], series::EXPORT_RESULTS[usize::from(!taken)]];
        self.telemetry_exports.with_label_values(&labels).inc();
    }

    /// The name of this node. Called once.
    pub fn node_is(&self, node: &str) {
        self.node_info.with_label_values(&[node]).set(1);
    }

    /// Counts a backend request.
    pub fn backend_request(&self, kind: &'static str, result: &'static str) {
        self.backend_requests.with_label_values(&[kind, result]).inc();
    }

    /// Events accepted, handed to outboxes, and dropped since the start.
    pub fn event_totals(&self) -> [u64; 3] {
        [&self.events, &self.deliveries, &self.drops].map(|counters| counters.iter().map(IntCounter::get).sum())
    }

    /// Connections closed since the start.
    pub fn closes_total(&self) -> u64 {
        self.closes.iter().map(IntCounter::get).sum()
    }

    /// The Prometheus text format.
    ///
    /// # Errors
    /// When the registry cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_series_from_the_start() {
        let metrics = Metrics::new("1.2.3").unwrap();
        metrics.closed(CloseReason::LogReset);
        metrics.dropped(DropReason::NoRule, 2);
        let text = metrics.render().unwrap();
        assert!(text.contains("roomcast_closes_total{reason=\"log_reset\"} 1"), "{text}");
        assert!(text.contains("roomcast_closes_total{reason=\"slow_consumer\"} 0"));
        assert!(text.contains("roomcast_drops_total{reason=\"no_rule\"} 2"));
        assert!(text.contains("roomcast_build_info{version=\"1.2.3\"} 1"));
        assert!(text.contains("process_resident_memory_bytes"));
    }
}
