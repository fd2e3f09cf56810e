//! Spans under way: what is recorded of one step of an event's way.

use crate::model::clock::unix_us;
use crate::model::trace_context::TraceContext;
use crate::telemetry::queue::SpanQueue;
use crate::telemetry::span_data::{SpanData, Value};
use std::sync::Arc;

/// A span that is recorded if its trace is. It ends when it is dropped; one that is not recorded costs nothing.
#[derive(Default)]
pub struct Span(Option<Box<(SpanData, Arc<SpanQueue>)>>);

impl Span {
    pub(super) fn recorded(data: SpanData, queue: Arc<SpanQueue>) -> Self {
        Self(Some(Box::new((data, queue))))
    }

    /// What children of it and other processes get; `None` if it is not recorded.
    pub fn context(&self) -> Option<Box<TraceContext>> {
        let (data, _) = self.0.as_deref()?;
        let SpanData { trace_id, span_id, state, .. } = data;
        Some(Box::new(TraceContext { trace_id: *trace_id, span_id: *span_id, sampled: true, state: state.clone() }))
    }

    /// Adds an attribute, whose value is made only if the span is recorded.
    pub fn set<V: Into<Value>>(&mut self, name: &'static str, value: impl FnOnce() -> V) {
        if let Some((data, _)) = self.0.as_deref_mut() {
            data.attributes.push((name, value().into()));
        }
    }

    /// It failed, with this code.
    pub fn fail(&mut self, code: &'static str) {
        if let Some((data, _)) = self.0.as_deref_mut() {
            data.error = Some(code);
        }
    }

    /// It is not recorded after all.
    pub fn discard(&mut self) {
        self.0 = None;
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(recorded) = self.0.take() {
            let (mut data, queue) = *recorded;
            // The clock may go back.
            data.end_us = unix_us().max(data.start_us);
            queue.push(data);
        }
    }
}
