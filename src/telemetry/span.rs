//! Spans: what is recorded of one step of an event's way.

use crate::model::clock::unix_us;
use crate::model::trace_context::{SpanId, TraceContext, TraceId};
use crate::telemetry::queue::SpanQueue;
use std::borrow::Cow;
use std::sync::Arc;

/// What a span is to those on the other side, with its number in OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Work inside the node.
    Internal = 1,
    /// A request that the node answers.
    Server = 2,
    /// A request of the node to somebody else.
    Client = 3,
    /// A message that is handed to the log.
    Producer = 4,
    /// A message that comes out of the log.
    Consumer = 5,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A number.
    Number(u64),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// A span that has ended.
#[derive(Debug)]
pub(super) struct SpanData {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent: Option<SpanId>,
    pub state: Option<Arc<str>>,
    pub name: &'static str,
    pub kind: SpanKind,
    pub start_us: u64,
    pub end_us: u64,
    pub attributes: Vec<(&'static str, Value)>,
    /// The code of the error that it ended with.
    pub error: Option<&'static str>,
}

impl SpanData {
    /// A child of `parent`, or the first span of a trace.
    pub(super) fn new(name: &'static str, kind: SpanKind, parent: Option<&TraceContext>, start_us: u64) -> Self {
        Self {
            // An id of zeros is none, and comes once in 2^64.
            trace_id: parent.map_or_else(rand::random, |parent| parent.trace_id),
            span_id: rand::random(),
            parent: parent.map(|parent| parent.span_id),
            state: parent.and_then(|parent| parent.state.clone()),
            name,
            kind,
            start_us,
            end_us: start_us,
            attributes: Vec::new(),
            error: None,
        }
    }
}

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
