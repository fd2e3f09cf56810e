//! The metrics registry, with one file for each group of metrics. Handles are resolved at start, so that counting is one
//! atomic operation. Only this module uses the prometheus crate.

pub mod auth;
pub mod backend;
pub mod connections;
pub mod events;
pub mod log;
mod maker;
pub mod node;
pub mod recovery;
pub mod sessions;
mod snapshot;
pub mod telemetry;

pub use prometheus::Gauge;
pub use snapshot::{Family, MetricKind, Point, PointValue};

use auth::AuthMetrics;
use backend::BackendMetrics;
use connections::ConnectionMetrics;
use events::EventMetrics;
use log::LogMetrics;
use maker::Maker;
use node::NodeMetrics;
use prometheus::{Encoder as _, Registry, TextEncoder};
use recovery::RecoveryMetrics;
use sessions::SessionMetrics;
use telemetry::TelemetryMetrics;

/// All metrics of a node (docs/metrics.md).
pub struct Metrics {
    registry: Registry,
    /// Connections of clients.
    pub connections: ConnectionMetrics,
    /// Who is let in.
    pub auth: AuthMetrics,
    /// Sessions and their rooms.
    pub sessions: SessionMetrics,
    /// Events on their way.
    pub events: EventMetrics,
    /// Clients that come back.
    pub recovery: RecoveryMetrics,
    /// The log, and whether Redis answers.
    pub log: LogMetrics,
    /// Requests to the backend.
    pub backend: BackendMetrics,
    /// What is sent to a receiver of telemetry.
    pub telemetry: TelemetryMetrics,
    /// The node as a whole.
    pub node: NodeMetrics,
}

impl Metrics {
    /// Registers all series, so that each exists before its first event.
    ///
    /// # Errors
    /// If a name is registered twice, which a test would show.
    pub fn new(version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let make = Maker(&registry);
        Ok(Self {
            connections: ConnectionMetrics::new(&make)?,
            auth: AuthMetrics::new(&make)?,
            sessions: SessionMetrics::new(&make)?,
            events: EventMetrics::new(&make)?,
            recovery: RecoveryMetrics::new(&make)?,
            log: LogMetrics::new(&make)?,
            backend: BackendMetrics::new(&make)?,
            telemetry: TelemetryMetrics::new(&make)?,
            node: NodeMetrics::new(&make, version)?,
            registry,
        })
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

    /// All metrics as they are now, as plain values.
    pub fn families(&self) -> Vec<Family> {
        snapshot::families(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::close::{CloseReason, DropReason};

    #[test]
    fn every_reason_has_its_series_from_the_start() {
        let metrics = Metrics::new("1.2.3").unwrap();
        metrics.connections.closed(CloseReason::LogReset);
        metrics.events.dropped(DropReason::NoRule, 2);
        let text = metrics.render().unwrap();
        assert!(text.contains("roomcast_closes_total{reason=\"log_reset\"} 1"), "{text}");
        assert!(text.contains("roomcast_closes_total{reason=\"slow_consumer\"} 0"));
        assert!(text.contains("roomcast_drops_total{reason=\"no_rule\"} 2"));
        assert!(text.contains("roomcast_build_info{version=\"1.2.3\"} 1"));
        assert!(text.contains("process_resident_memory_bytes"));
    }
}
