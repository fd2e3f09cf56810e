//! What is kept of a span until it is sent. Sans-IO.

use crate::model::trace_context::{SpanId, TraceContext, TraceId};
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
