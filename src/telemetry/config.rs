//! `[telemetry]`.

use crate::model::secret::Secret;
use std::time::Duration;

/// `[telemetry]`: traces and metrics for an OpenTelemetry collector.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// The base URL of an OTLP/HTTP receiver. `None`: telemetry is off.
    pub otlp_endpoint: Option<String>,
    /// `service.name` of everything that is sent.
    pub service_name: String,
    /// Headers of each request, as `name=value`.
    pub headers: Vec<Secret>,
    /// Whether spans are recorded and sent.
    pub traces: bool,
    /// The part of the traces that begin here which is recorded. Traces that a publisher began are recorded as it decided.
    pub traces_sample_ratio: f64,
    /// Whether spans of deliveries name the rooms of their events.
    pub room_names: bool,
    /// How often the metrics are sent; zero: never.
    pub metrics_interval: Duration,
    /// How long one request may take.
    pub timeout: Duration,
    /// Spans that may wait. Each takes about 500 bytes.
    pub queue: usize,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            service_name: "roomcast".into(),
            headers: Vec::new(),
            traces: true,
            traces_sample_ratio: 1.0,
            room_names: false,
            metrics_interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            queue: 4096,
        }
    }
}
