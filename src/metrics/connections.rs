//! Connections of clients: open ones, TLS handshakes, and why they were closed.

use crate::metrics::maker::{Made, Maker};
use crate::model::close::CloseReason;
use crate::model::transport::{Protocol, Transport};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// The kinds of connections that there are.
const KINDS: [(Transport, Protocol); 4] = [
    (Transport::WebSocket, Protocol::SocketIo),
    (Transport::Polling, Protocol::SocketIo),
    (Transport::WebSocket, Protocol::PlainWs),
    (Transport::Sse, Protocol::Sse),
];

/// `ok`, the labels of `HandshakeError`, and what ends a handshake from outside.
const TLS_HANDSHAKES: [&str; 13] = [
    "ok",
    "empty",
    "closed",
    "plain_http",
    "not_tls",
    "version",
    "parameters",
    "alpn",
    "alert",
    "malformed",
    "timeout",
    "evicted",
    "memory",
];

/// Metrics of connections.
pub struct ConnectionMetrics {
    open: IntGaugeVec,
    tls_handshakes: IntCounterVec,
    /// The end of the certificate's time, in Unix seconds; 0 without TLS.
    pub tls_certificate_expiry: IntGauge,
    closes: Vec<IntCounter>,
    /// Unsent bytes of all connections.
    pub outbox_bytes: IntGauge,
}

impl ConnectionMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Made<Self> {
        let metrics = Self {
            open: make.gauges("roomcast_connections", "Open client connections.", &["transport", "protocol"])?,
            tls_handshakes: make.counters_of(
                "roomcast_tls_handshakes_total",
                "TLS handshakes, by result.",
                "result",
                &TLS_HANDSHAKES,
            )?,
            tls_certificate_expiry: make.gauge(
                "roomcast_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in force expires; 0 without TLS.",
            )?,
            closes: make.counter_of_each(
                "roomcast_closes_total",
                "Connections closed, by reason.",
                "reason",
                CloseReason::ALL.iter().map(|reason| reason.label()),
            )?,
            outbox_bytes: make.gauge("roomcast_outbox_bytes", "Unsent bytes of all connections.")?,
        };
        KINDS.iter().for_each(|&(transport, protocol)| drop(metrics.open(transport, protocol)));
        Ok(metrics)
    }

    /// The gauge of one kind of connection.
    pub fn open(&self, transport: Transport, protocol: Protocol) -> IntGauge {
        self.open.with_label_values(&[transport.label(), protocol.label()])
    }

    /// Open connections by transport and protocol, for each kind that there is.
    pub fn open_by_kind(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        KINDS.iter().map(|&(transport, protocol)| {
            let open = self.open(transport, protocol).get();
            (transport.label(), protocol.label(), u64::try_from(open).unwrap_or_default())
        })
    }

    /// Counts a TLS handshake: `ok`, or why it failed.
    pub fn tls_handshake(&self, result: &str) {
        self.tls_handshakes.with_label_values(&[result]).inc();
    }

    /// Counts a close.
    pub fn closed(&self, reason: CloseReason) {
        self.closes[reason as usize].inc();
    }

    /// Connections closed since the start.
    pub fn closes_total(&self) -> u64 {
        self.closes.iter().map(IntCounter::get).sum()
    }
}
