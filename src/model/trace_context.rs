//! The W3C trace context of an event: `traceparent` and `tracestate` (<https://www.w3.org/TR/trace-context/>). Sans-IO.

use std::fmt;
use std::sync::Arc;

/// Bytes of a `traceparent` of version 00, which this release writes.
const TRACEPARENT_BYTES: usize = 55;
/// Bytes of a `tracestate` that are kept; the standard asks for at least so many.
const MAX_STATE_BYTES: usize = 512;

/// Identifies a trace.
pub type TraceId = [u8; 16];
/// Identifies a span within its trace.
pub type SpanId = [u8; 8];

/// A span of a trace, to which others are children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span in it.
    pub span_id: SpanId,
    /// Whether spans of this trace are recorded. Whoever began the trace has decided that.
    pub sampled: bool,
    /// What other tracing systems added, passed on as it is.
    pub state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads the two headers or fields. `None` where `traceparent` is not one, which is never an error: the event counts, not
    /// its trace. A `tracestate` that cannot be passed on is left out.
    pub fn parse(traceparent: &[u8], tracestate: Option<&[u8]>) -> Option<Self> {
        let text = std::str::from_utf8(traceparent).ok()?.trim();
        let parts = text.get(..TRACEPARENT_BYTES)?;
        let is_longer = text.len() > TRACEPARENT_BYTES;
        let mut parts = parts.split('-');
        let version = bytes::<1>(parts.next()?)?[0];
        let trace_id = bytes::<16>(parts.next()?)?;
        let span_id = bytes::<8>(parts.next()?)?;
        let flags = bytes::<1>(parts.next()?)?[0];
        // Later versions may add parts at the end.
        let fits = match version {
            0 => !is_longer,
            0xff => false,
            _ => !is_longer || text.as_bytes()[TRACEPARENT_BYTES] == b'-',
        };
        let is_context = fits && parts.next().is_none() && trace_id != [0; 16] && span_id != [0; 8];
        is_context.then(|| Self { trace_id, span_id, sampled: flags & 1 == 1, state: tracestate.and_then(kept_state) })
    }

    /// Approximate bytes in memory.
    pub fn size(&self) -> usize {
        64 + self.state.as_ref().map_or(0, |state| state.len())
    }
}

/// The value of `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (hex::encode(self.trace_id), hex::encode(self.span_id));
        write!(f, "00-{trace}-{span}-{:02x}", u8::from(self.sampled))
    }
}

/// Bytes of lower-case hexadecimal digits, as the standard asks for.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    (is_lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

fn kept_state(state: &[u8]) -> Option<Arc<str>> {
    let state = std::str::from_utf8(state).ok()?.trim();
    let fits = !state.is_empty() && state.len() <= MAX_STATE_BYTES;
    (fits && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))).then(|| state.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_the_standard_shows_is_read_and_written() {
        let context = TraceContext::parse(GIVEN.as_bytes(), Some(b"congo=t61rcWkgMzE")).unwrap();
        assert_eq!((context.to_string().as_str(), context.sampled), (GIVEN, true));
        assert_eq!(context.state.as_deref(), Some("congo=t61rcWkgMzE"));
        let unsampled = TraceContext::parse(GIVEN.replace("-01", "-00").as_bytes(), None).unwrap();
        assert!(!unsampled.sampled && unsampled.state.is_none());
        let later = format!("{}-more", GIVEN.replacen("00-", "cc-", 1));
        assert_eq!(TraceContext::parse(later.as_bytes(), None).unwrap().to_string(), GIVEN);
    }

    #[test]
    fn what_is_no_context_is_ignored() {
        for wrong in [
            "",
            "x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7f-01",
            "ä0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(wrong.as_bytes(), None), None, "{wrong}");
        }
        let long = "a".repeat(513);
        for state in ["", "a=ä", "a=\nb", long.as_str()] {
            assert_eq!(TraceContext::parse(GIVEN.as_bytes(), Some(state.as_bytes())).unwrap().state, None, "{state}");
        }
    }
}
