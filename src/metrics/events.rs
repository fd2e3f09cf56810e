//! Events on their way: accepted or refused, delivered or dropped.

use crate::metrics::maker::{Made, Maker};
use crate::model::close::DropReason;
use crate::model::draft::Source;
use crate::model::transport::Protocol;
use prometheus::{Histogram, IntCounter, IntCounterVec};

/// What an event of any source can be refused for.
const REASONS: [&str; 11] = [
    "no_room",
    "too_many_rooms",
    "bad_room",
    "bad_namespace",
    "bad_event_name",
    "reserved_event",
    "bad_id",
    "event_too_big",
    "bad_field",
    "bad_json",
    "too_many_attachments",
];
/// What an event can be refused for that this node appends to the log.
const LOG_REASONS: [&str; 4] = ["unavailable", "overloaded", "log_refused", "not_replicated"];
const HTTP_REASONS: [&str; 3] = ["body_too_big", "body_timeout", "bad_body"];
const CLIENT_REASONS: [&str; 19] = [
    "rate_limited",
    "no_rule",
    "not_in_room",
    "forbidden",
    "missing_value",
    "not_text",
    "empty_value",
    "forbidden_character",
    "too_deep",
    "too_big",
    "gone",
    "refused",
    "backend_timeout",
    "backend_unavailable",
    "backend_full",
    "backend_error",
    "backend_bad_answer",
    "bad_room",
    "too_many_rooms",
];
const EMITTER_REASONS: [&str; 4] = ["bad_msgpack", "pickle", "ack_unsupported", "bad_packet_type"];

/// The statuses of `/publish` that have a series of their own; `other` counts the rest.
const PUBLISH_STATUSES: [(u16, &str); 8] =
    [(200, "200"), (400, "400"), (401, "401"), (403, "403"), (405, "405"), (408, "408"), (413, "413"), (503, "503")];

/// Metrics of events.
pub struct EventMetrics {
    accepted: Vec<IntCounter>,
    refused: IntCounterVec,
    /// In the order of [`PUBLISH_STATUSES`], then `other`.
    publish_answers: Vec<IntCounter>,
    publishers_moved: IntCounter,
    deliveries: Vec<IntCounter>,
    drops: Vec<IntCounter>,
    /// From the acceptance of an event to its write on the socket.
    pub publish_to_write: Histogram,
}

impl EventMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Made<Self> {
        let metrics = Self {
            accepted: make.counter_of_each(
                "roomcast_events_total",
                "Events accepted, by source.",
                "source",
                Source::ALL.map(Source::label),
            )?,
            refused: make.counters(
                "roomcast_events_refused_total",
                "Events refused, by source and reason.",
                &["source", "reason"],
            )?,
            publish_answers: make.counter_of_each(
                "roomcast_publish_answers_total",
                "Answers to POST /publish, by HTTP status.",
                "status",
                PUBLISH_STATUSES.map(|(_, label)| label).into_iter().chain(["other"]),
            )?,
            publishers_moved: make.counter(
                "roomcast_publishers_moved_total",
                "Connections of publishers that went on on another shard's thread.",
            )?,
            deliveries: make.counter_of_each(
                "roomcast_deliveries_total",
                "Events handed to a connection's outbox.",
                "protocol",
                Protocol::ALL.map(Protocol::label),
            )?,
            drops: make.counter_of_each(
                "roomcast_drops_total",
                "Events not delivered, by reason.",
                "reason",
                DropReason::ALL.iter().map(|reason| reason.label()),
            )?,
            publish_to_write: make.histogram(
                "roomcast_publish_to_write_seconds",
                "From the acceptance of an event to its write on the sockets.",
            )?,
        };
        Source::ALL.into_iter().for_each(|source| metrics.begin_refused(source));
        Ok(metrics)
    }

    /// Makes the series of what an event of this source can be refused for.
    fn begin_refused(&self, source: Source) {
        let appended: &[&str] = if source == Source::Stream { &[] } else { &LOG_REASONS };
        let own: &[&str] = match source {
            Source::Http => &HTTP_REASONS,
            Source::Client => &CLIENT_REASONS,
            Source::Emitter => &EMITTER_REASONS,
            Source::Stream | Source::Backend => &[],
        };
        for reason in REASONS.iter().chain(appended).chain(own) {
            self.refused.with_label_values(&[source.label(), reason]);
        }
    }

    /// Counts accepted events.
    pub fn accepted(&self, source: Source, count: u64) {
        self.accepted[source as usize].inc_by(count);
    }

    /// Counts a refused event. `reason` is a fixed error code, so that users cannot create series.
    pub fn refused(&self, source: Source, reason: &'static str) {
        self.refused.with_label_values(&[source.label(), reason]).inc();
    }

    /// Counts an answer of `/publish`.
    pub fn publish_answered(&self, status: u16) {
        let known = PUBLISH_STATUSES.iter().position(|(code, _)| *code == status);
        self.publish_answers[known.unwrap_or(PUBLISH_STATUSES.len())].inc();
    }

    /// Counts a publisher's connection that goes on on another shard.
    pub fn publisher_moved(&self) {
        self.publishers_moved.inc();
    }

    /// Counts deliveries.
    pub fn delivered(&self, protocol: Protocol, count: u64) {
        self.deliveries[protocol as usize].inc_by(count);
    }

    /// Counts drops.
    pub fn dropped(&self, reason: DropReason, count: u64) {
        self.drops[reason as usize].inc_by(count);
    }

    /// Events accepted, handed to outboxes, and dropped since the start.
    pub fn totals(&self) -> [u64; 3] {
        [&self.accepted, &self.deliveries, &self.drops].map(|counters| counters.iter().map(IntCounter::get).sum())
    }
}
