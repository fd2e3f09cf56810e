//! Traces and metrics for an OpenTelemetry collector, by OTLP over HTTP. Off unless `[telemetry] otlp_endpoint` is set.
//!
//! [`Telemetry::start`] begins a [`Span`], which ends when it is dropped and then waits in a bounded queue (`queue`).
//! [`Telemetry::run`] sends what waits, and the metrics, on the control thread (`exporter`). `otlp` makes the bytes
//! (docs/decisions/19-otlp-is-written-here.md). Nothing else ever waits for the receiver.
//!
//! No span has a payload, a token or a user; one has names of rooms only if the configuration asks for it.

pub mod config;
mod exporter;
mod otlp;
mod protobuf;
mod queue;
mod span;
mod span_data;

pub use span::Span;
pub use span_data::{SpanKind, Value};

use crate::https::HttpError;
use crate::metrics::Metrics;
use crate::model::clock::unix_us;
use crate::model::event::Event;
use crate::model::trace_context::TraceContext;
use config::TelemetryConfig;
use exporter::Exporter;
use queue::SpanQueue;
use span_data::SpanData;
use std::sync::Arc;

/// Characters of an event's name in a span.
const MAX_NAME: usize = 100;

/// What a span belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Parent<'a> {
    /// Another span, if that is recorded.
    Of(Option<&'a TraceContext>),
    /// Nothing: a trace begins here, if chance picks it (`traces_sample_ratio`).
    None,
}

/// Records spans and sends them, or does nothing at all.
#[derive(Default)]
pub struct Telemetry {
    /// Where spans go; `None` while traces are off.
    spans: Option<Arc<SpanQueue>>,
    ratio: f64,
    room_names: bool,
    exporter: Option<Exporter>,
}

impl Telemetry {
    /// Telemetry of this node. Connects in `run`.
    ///
    /// # Errors
    /// A text, when the URL, a header or the system's certificates cannot be used.
    pub fn new(config: &TelemetryConfig, node: String, metrics: Arc<Metrics>) -> Result<Arc<Self>, String> {
        let Some(endpoint) = &config.otlp_endpoint else { return Ok(Arc::default()) };
        let wrong = |error: HttpError| format!("[telemetry] otlp_endpoint: {error}");
        let queue = SpanQueue::new(config.queue, metrics.clone());
        let exporter = Exporter::new(config, endpoint, node, queue.clone(), metrics).map_err(wrong)?;
        Ok(Arc::new(Self {
            spans: config.traces.then_some(queue),
            ratio: config.traces_sample_ratio,
            room_names: config.room_names,
            exporter: Some(exporter),
        }))
    }

    /// Whether spans are recorded.
    pub fn traces(&self) -> bool {
        self.spans.is_some()
    }

    /// Begins a span now.
    pub fn start(&self, name: &'static str, kind: SpanKind, parent: Parent<'_>) -> Span {
        self.start_at(name, kind, parent, unix_us)
    }

    /// Begins a span that began at this time, in Unix microseconds.
    pub fn start_at(
        &self,
        name: &'static str,
        kind: SpanKind,
        parent: Parent<'_>,
        at_us: impl FnOnce() -> u64,
    ) -> Span {
        let Some(queue) = &self.spans else { return Span::default() };
        let parent = match parent {
            Parent::Of(Some(parent)) if parent.sampled => Some(parent),
            Parent::Of(_) => return Span::default(),
            Parent::None if self.begins() => None,
            Parent::None => return Span::default(),
        };
        Span::recorded(SpanData::new(name, kind, parent, at_us()), queue.clone())
    }

    /// Whether a trace that begins here is recorded.
    fn begins(&self) -> bool {
        self.ratio >= 1.0 || (self.ratio > 0.0 && rand::random::<f64>() < self.ratio)
    }

    /// An event was written to all of its receivers on this node.
    pub fn delivered(&self, event: &Event, receivers: u64) {
        let draft = &event.draft;
        let parent = Parent::Of(draft.trace.as_deref());
        let mut span = self.start_at("delivery", SpanKind::Consumer, parent, || event.accepted_us);
        span.set("roomcast.event", || shortened(&draft.event));
        span.set("roomcast.offset", || event.offset.to_string());
        span.set("roomcast.source", || draft.source.label());
        span.set("roomcast.receivers", || receivers);
        span.set("roomcast.bytes", || draft.args.len() as u64);
        if self.room_names {
            span.set("roomcast.rooms", || shortened(&draft.rooms.join(",")));
        }
    }

    /// Sends what is recorded, until dropped. `refresh` brings the metrics up to date before they are read.
    pub async fn run<F: Future<Output = ()>>(&self, refresh: impl Fn() -> F) {
        match &self.exporter {
            Some(exporter) => exporter.run(refresh).await,
            None => std::future::pending().await,
        }
    }

    /// Sends what still waits, once, before the node ends.
    pub async fn flush(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.flush().await;
        }
    }
}

/// The start of a name that somebody else chose.
pub fn shortened(text: &str) -> String {
    text.chars().take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telemetry(ratio: f64) -> Telemetry {
        let metrics = Arc::new(Metrics::new("0").unwrap());
        Telemetry { spans: Some(SpanQueue::new(100, metrics)), ratio, ..Telemetry::default() }
    }

    fn context(sampled: bool) -> TraceContext {
        TraceContext { trace_id: [1; 16], span_id: [2; 8], sampled, state: None }
    }

    #[test]
    fn nothing_is_recorded_while_it_is_off() {
        let off = Telemetry::default();
        assert!(off.start("x", SpanKind::Server, Parent::None).context().is_none());
        assert!(off.start("x", SpanKind::Server, Parent::Of(Some(&context(true)))).context().is_none());
    }

    #[test]
    fn whoever_began_a_trace_decides_and_chance_decides_about_new_ones() {
        let begun = |ratio: f64, parent: Parent<'_>| telemetry(ratio).start("x", SpanKind::Server, parent).context();
        assert!(begun(0.0, Parent::None).is_none() && begun(1.0, Parent::None).is_some());
        assert!(begun(1.0, Parent::Of(Some(&context(false)))).is_none());
        assert!(begun(1.0, Parent::Of(None)).is_none());
        let child = begun(0.0, Parent::Of(Some(&context(true)))).unwrap();
        assert_eq!((child.trace_id, child.sampled), ([1; 16], true));
        assert_ne!(child.span_id, [2; 8]);
        let half = telemetry(0.5);
        let picked = (0..100).filter(|_| half.begins()).count();
        assert!((1..100).contains(&picked), "{picked}");
    }

    #[test]
    fn a_span_ends_when_it_is_dropped_and_a_discarded_one_is_gone() {
        let telemetry = telemetry(1.0);
        let mut span = telemetry.start("x", SpanKind::Server, Parent::None);
        span.set("n", || 7);
        span.fail("unavailable");
        drop(span);
        telemetry.start("y", SpanKind::Server, Parent::None).discard();
        let spans = telemetry.spans.as_ref().unwrap().take();
        assert_eq!(spans.len(), 1);
        assert_eq!((spans[0].name, spans[0].error, spans[0].attributes.len()), ("x", Some("unavailable"), 1));
    }
}
