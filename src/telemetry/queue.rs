//! Spans that wait to be sent: a bounded queue between threads that record and the one task that sends.

use crate::metrics::Metrics;
use crate::metrics::telemetry::TelemetryDrop;
use crate::telemetry::span_data::SpanData;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// Spans in one request, and how many wake the task that sends them.
pub(super) const BATCH: usize = 512;

pub(super) struct SpanQueue {
    spans: Mutex<VecDeque<SpanData>>,
    max: usize,
    pub arrival: Notify,
    metrics: Arc<Metrics>,
}

impl SpanQueue {
    pub(super) fn new(max: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { spans: Mutex::default(), max, arrival: Notify::new(), metrics })
    }

    /// Queues a span; where there is no room it is dropped and counted.
    pub(super) fn push(&self, span: SpanData) {
        let mut spans = self.spans.lock();
        if spans.len() >= self.max {
            drop(spans);
            return self.metrics.telemetry.dropped(TelemetryDrop::QueueFull, 1);
        }
        spans.push_back(span);
        let is_batch = spans.len() == BATCH.min(self.max);
        drop(spans);
        if is_batch {
            self.arrival.notify_one();
        }
    }

    /// The oldest spans, for one request.
    pub(super) fn take(&self) -> Vec<SpanData> {
        let mut spans = self.spans.lock();
        let count = spans.len().min(BATCH);
        spans.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::span_data::SpanKind;

    #[test]
    fn the_queue_is_bounded_and_what_is_dropped_is_counted() {
        let metrics = Arc::new(Metrics::new("0").unwrap());
        let queue = SpanQueue::new(2, metrics.clone());
        for _ in 0..3 {
            queue.push(SpanData::new("publish", SpanKind::Server, None, 1));
        }
        assert_eq!((queue.take().len(), queue.take().len()), (2, 0));
        let text = metrics.render().unwrap();
        assert!(text.contains("roomcast_telemetry_dropped_total{reason=\"queue_full\"} 1"), "{text}");
    }
}
