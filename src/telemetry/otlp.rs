//! OTLP requests: `opentelemetry.proto.collector.{trace,metrics}.v1`, version 1. Sans-IO.
//!
//! The numbers are those of the fields in opentelemetry-proto. `tests/e2e/telemetry.test.mjs` reads what this writes with
//! the package that opentelemetry-proto publishes.

use crate::metrics::{Family, MetricKind, Point, PointValue};
use crate::telemetry::protobuf::Message;
use crate::telemetry::span_data::{SpanData, Value};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;
/// The flag of the W3C for a trace that is recorded.
const SAMPLED: u32 = 1;

/// Who sends.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub service_name: String,
    pub node: String,
    pub version: &'static str,
}

impl Resource {
    fn write(&self, to: &mut Message) {
        to.message(1, |resource| {
            for (name, value) in [
                ("service.name", &*self.service_name),
                ("service.instance.id", &*self.node),
                ("service.version", self.version),
            ] {
                text_attribute(resource, 1, name, value);
            }
        });
    }

    fn write_scope(&self, to: &mut Message) {
        to.message(1, |scope| {
            scope.bytes(1, b"roomcast");
            scope.bytes(2, self.version.as_bytes());
        });
    }
}

/// An `ExportTraceServiceRequest`.
pub(super) fn traces(resource: &Resource, spans: &[SpanData]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |group| {
        resource.write(group);
        group.message(2, |scoped| {
            resource.write_scope(scoped);
            spans.iter().for_each(|span| scoped.message(2, |message| write_span(message, span)));
        });
    });
    request.into_bytes()
}

fn write_span(message: &mut Message, span: &SpanData) {
    message.bytes(1, &span.trace_id);
    message.bytes(2, &span.span_id);
    message.bytes(3, span.state.as_deref().unwrap_or_default().as_bytes());
    message.bytes(4, span.parent.as_ref().map_or(&[], |parent| &parent[..]));
    message.bytes(5, span.name.as_bytes());
    message.varint(6, span.kind as u64);
    message.fixed64(7, nanoseconds(span.start_us));
    message.fixed64(8, nanoseconds(span.end_us));
    for (name, value) in &span.attributes {
        match value {
            Value::Text(text) => text_attribute(message, 9, name, text),
            Value::Number(number) => attribute(message, 9, name, |value| {
                // One of several alternatives, so that zero has to be written.
                value.varint_always(3, *number);
            }),
        }
    }
    if let Some(error) = span.error {
        text_attribute(message, 9, "error.type", error);
        message.message(15, |status| {
            status.bytes(2, error.as_bytes());
            status.varint(3, ERROR);
        });
    }
    message.fixed32(16, SAMPLED);
}

/// An `ExportMetricsServiceRequest`. All of it is cumulative since `started_us`.
pub(super) fn metrics(resource: &Resource, families: &[Family], started_us: u64, now_us: u64) -> Vec<u8> {
    let times = (nanoseconds(started_us), nanoseconds(now_us));
    let mut request = Message::default();
    request.message(1, |group| {
        resource.write(group);
        group.message(2, |scoped| {
            resource.write_scope(scoped);
            families.iter().for_each(|family| scoped.message(2, |metric| write_family(metric, family, times)));
        });
    });
    request.into_bytes()
}

fn write_family(metric: &mut Message, family: &Family, times: (u64, u64)) {
    metric.bytes(1, family.name.as_bytes());
    metric.bytes(2, family.help.as_bytes());
    let write_points = |data: &mut Message| {
        family.points.iter().for_each(|point| data.message(1, |message| write_point(message, point, times)));
    };
    match family.kind {
        MetricKind::Gauge => metric.message(5, write_points),
        MetricKind::Counter => metric.message(7, |sum| {
            write_points(sum);
            sum.varint(2, CUMULATIVE);
            sum.varint(3, 1);
        }),
        MetricKind::Histogram => metric.message(9, |histogram| {
            write_points(histogram);
            histogram.varint(2, CUMULATIVE);
        }),
    }
}

fn write_point(message: &mut Message, point: &Point, (started, now): (u64, u64)) {
    message.fixed64(2, started);
    message.fixed64(3, now);
    let labels = match &point.value {
        PointValue::Number(number) => {
            message.double(4, *number);
            7
        }
        PointValue::Histogram { count, sum, bounds, counts } => {
            message.fixed64(4, *count);
            message.double(5, *sum);
            message.packed(6, counts.iter().map(|count| count.to_le_bytes()));
            message.packed(7, bounds.iter().map(|bound| bound.to_le_bytes()));
            9
        }
    };
    point.labels.iter().for_each(|(name, value)| text_attribute(message, labels, name, value));
}

fn text_attribute(to: &mut Message, field: u32, name: &str, text: &str) {
    attribute(to, field, name, |value| value.bytes_always(1, text.as_bytes()));
}

fn attribute(to: &mut Message, field: u32, name: &str, write: impl FnOnce(&mut Message)) {
    to.message(field, |pair| {
        pair.bytes(1, name.as_bytes());
        pair.message(2, write);
    });
}

fn nanoseconds(us: u64) -> u64 {
    us.saturating_mul(1000)
}

/// How many spans of a request the receiver refused although it answered 200: `partial_success.rejected_spans` of an
/// `ExportTraceServiceResponse`. 0 where that cannot be read.
pub(super) fn rejected(response: &[u8]) -> u64 {
    let [0x0a, _, 0x08, number @ ..] = response else { return 0 };
    let mut rejected = 0u64;
    for (index, byte) in number.iter().take(9).enumerate() {
        rejected |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return rejected;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_success_says_how_many_were_rejected() {
        assert_eq!(rejected(&[]), 0);
        assert_eq!(rejected(&[0x0a, 0]), 0);
        assert_eq!(rejected(&[0x0a, 3, 0x08, 0x96, 0x01]), 150);
        assert_eq!(rejected(&[0x0a, 5, 0x08, 2, 0x12, 1, b'x']), 2);
        assert_eq!(rejected(&[0x0a, 3, 0x08, 0xff]), 0);
    }
}
