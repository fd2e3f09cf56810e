//! `POST /publish`: from a body to drafts, and from what the log says to an answer. Requests that hyper reads come by
//! [`publish`]; most are read by [`publisher`](super::publisher), which does the same without hyper.

use crate::http::Api;
use crate::http::answer::{Reply, error, typed, unread};
use crate::http::body;
use crate::http::body::BodyError;
use crate::log::{Accepted, AppendError, Appended};
use crate::model::draft::{Draft, DraftError, Source};
use crate::model::offset::Offset;
use crate::model::place::Place;
use crate::model::refusal::Refusal;
use crate::model::trace_context::TraceContext;
use crate::node::context::Node;
use crate::protocol::json_object::BYTE_ORDER_MARK;
use crate::protocol::publish::{Publication, decode_json, decode_ndjson};
use crate::refusals::Who;
use crate::telemetry::{Parent, Span, SpanKind};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::json;
use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;
use tokio::time::Instant;

/// Publishes events and answers when the log has them. The caller has checked the key.
pub async fn publish(api: &Api, request: Request<Incoming>, from: IpAddr) -> Reply {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let mut span = begin_span(api, header("traceparent"), header("tracestate"));
    let is_ndjson = is_ndjson(request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes));
    let reply = match body::read(request, api.settings().publish.max_body).await {
        Ok(body) => {
            let mut drafts = Vec::new();
            let decoded = decode(api, &body, is_ndjson, from, &mut span, &mut drafts);
            let others = Others::now(&api.node);
            let appended = if drafts.is_empty() { Vec::new() } else { api.node.log.append(drafts).await };
            answer(api, decoded, &mut appended.into_iter(), &others)
        }
        Err(problem) => refuse_unread(api, problem),
    };
    end_span(span, reply.status());
    reply
}

/// A span of the publisher's trace, or of a new one.
pub(super) fn begin_span(api: &Api, traceparent: Option<&[u8]>, tracestate: Option<&[u8]>) -> Span {
    let telemetry = &api.node.context.telemetry;
    if !telemetry.traces() {
        return Span::default();
    }
    let parent = traceparent.and_then(|parent| TraceContext::parse(parent, tracestate));
    let parent = parent.as_ref().map_or(Parent::None, |parent| Parent::Of(Some(parent)));
    telemetry.start("publish", SpanKind::Server, parent)
}

/// The request is answered.
pub(super) fn end_span(mut span: Span, status: StatusCode) {
    span.set("http.response.status_code", || u64::from(status.as_u16()));
    if status.is_server_error() {
        span.fail("unavailable");
    }
}

/// Whether a `Content-Type` is that of one event a line, with or without parameters.
pub(super) fn is_ndjson(content_type: Option<&[u8]>) -> bool {
    let media_type = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    media_type.is_some_and(|media_type| media_type.trim_ascii().eq_ignore_ascii_case(b"application/x-ndjson"))
}

/// What a body asks for.
pub(super) enum Decoded {
    /// One event, which became a draft.
    One,
    /// A batch: for each event why it is refused, or `None` for one that became a draft.
    Batch(Vec<Option<Failure>>),
    /// Nothing that can be published.
    Refused(DraftError),
}

/// An error as the JSON text of its object.
pub(super) struct Failure(String);

impl Failure {
    fn new(code: &str, message: &str) -> Self {
        Self(json!({ "code": code, "message": message }).to_string())
    }
}

/// Decodes a body, and adds what is to be appended to `drafts`.
pub(super) fn decode(
    api: &Api,
    body: &[u8],
    is_ndjson: bool,
    from: IpAddr,
    span: &mut Span,
    drafts: &mut Vec<Draft>,
) -> Decoded {
    let Ok(text) = str::from_utf8(body) else {
        return Decoded::Refused(DraftError::Json("the body is not UTF-8; compressed bodies are not taken".into()));
    };
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let limits = &api.node.context.draft_limits;
    let before = drafts.len();
    let publication = if is_ndjson { decode_ndjson(text, limits, drafts) } else { decode_json(text, limits, drafts) };
    drafts[before..].iter_mut().for_each(|draft| draft.trace = span.context());
    match publication {
        Ok(Publication::One) => Decoded::One,
        Ok(Publication::Batch(events)) => {
            span.set("messaging.batch.message_count", || events.len() as u64);
            let refuse = |problem: Option<DraftError>| problem.map(|problem| refuse_event(api, &problem, from));
            Decoded::Batch(events.into_iter().map(refuse).collect())
        }
        Err(problem) => Decoded::Refused(problem),
    }
}

/// Counts an event of a batch that cannot be published.
fn refuse_event(api: &Api, problem: &DraftError, from: IpAddr) -> Failure {
    api.node.context.metrics.events.refused(Source::Http, problem.code());
    let why = format_args!("an event of a batch: {}; the answer says what is wrong", problem.code());
    let reason = match problem {
        DraftError::TooBig { .. } => Refusal::Size,
        _ => Refusal::Request,
    };
    api.node.context.refusals.note(reason, &Who::at(from).path("/publish"), why);
    Failure::new(problem.code(), &problem.to_string())
}

/// The answer, when the log has said in `appended` what became of the drafts.
pub(super) fn answer(
    api: &Api,
    decoded: Decoded,
    appended: &mut impl Iterator<Item = Appended>,
    others: &Others,
) -> Reply {
    match decoded {
        Decoded::One => match appended.next() {
            Some(Ok(accepted)) => {
                api.node.context.metrics.events.accepted(Source::Http, 1);
                typed(StatusCode::OK, "application/json", Stored(accepted, others).to_string())
            }
            other => {
                let (code, message) = failed(api, other);
                error(StatusCode::SERVICE_UNAVAILABLE, code, &message)
            }
        },
        Decoded::Batch(results) => answer_batch(api, results, appended, others),
        Decoded::Refused(problem) => refused(api, &problem),
    }
}

/// 200 with a result for each event, in order; 503 with an additional `error` if the log accepted none of them.
fn answer_batch(
    api: &Api,
    results: Vec<Option<Failure>>,
    appended: &mut impl Iterator<Item = Appended>,
    others: &Others,
) -> Reply {
    let mut text = String::from("\"results\":[");
    let (mut accepted, mut first) = (0, None);
    for (number, result) in results.into_iter().enumerate() {
        text.push_str(if number > 0 { "," } else { "" });
        let failure = match result {
            Some(failure) => failure,
            None => match appended.next() {
                Some(Ok(is)) => {
                    accepted += 1;
                    push(&mut text, format_args!("{}", Stored(is, others)));
                    continue;
                }
                other => {
                    let (code, message) = failed(api, other);
                    let failure = Failure::new(code, &message);
                    first.get_or_insert_with(|| failure.0.clone());
                    failure
                }
            },
        };
        push(&mut text, format_args!("{{\"error\":{}}}", failure.0));
    }
    api.node.context.metrics.events.accepted(Source::Http, accepted);
    let (status, body) = match first {
        // The reason is where every other refusal has it.
        Some(first) if accepted == 0 => (StatusCode::SERVICE_UNAVAILABLE, format!("{{\"error\":{first},{text}]}}")),
        _ => (StatusCode::OK, format!("{{{text}]}}")),
    };
    typed(status, "application/json", body)
}

/// Counts what the log did not accept. The code and the message.
fn failed(api: &Api, appended: Option<Appended>) -> (&'static str, String) {
    match appended {
        Some(Err(problem)) => (count_failure(api, &problem), problem.to_string()),
        _ => ("unavailable", "the log did not answer; try again".to_owned()),
    }
}

fn push(text: &mut String, piece: fmt::Arguments<'_>) {
    // Writing to a `String` does not fail.
    let _ = text.write_fmt(piece);
}

/// How far the other lines of the log are when an event is about to be appended: what this node acknowledged before is not
/// after it on them, and what is published later is. So a client that joins any room with the answer's offset gets what
/// comes after the event, and nothing of before. What is published at the same time may be either, and counts as after it.
#[derive(Default)]
pub(super) struct Others(Option<Place>);

impl Others {
    /// As it is now, before the append. With one line there is nothing to look up.
    pub(super) fn now(node: &Node) -> Self {
        let partitions = node.window.partitions();
        if partitions.is_one() {
            return Self(None);
        }
        // One look at the clock for all lines, of which there may be 65.
        let (mut place, now) = (Place::unread(partitions), Instant::now());
        for line in partitions.lines() {
            let read = Offset { line, ..node.window.head_of(line) };
            // This node may not have read what it got acknowledged.
            let is_newer = |newest: &Offset| newest.epoch == read.epoch && newest.position > read.position;
            place.set(node.log.acknowledged(line, now).filter(is_newer).unwrap_or(read));
        }
        Self(Some(place))
    }
}

/// The answer for an event that the log has: its offset, and `durability` if `redis.min_replicas` is set.
pub(super) struct Stored<'a>(pub(super) Accepted, pub(super) &'a Others);

impl fmt::Display for Stored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        if let Some(replicas) = self.0.replicas {
            write!(f, "\"durability\":\"replicated:{replicas}\",")?;
        }
        match (self.0.offset, &self.1.0) {
            // Where the others were when the event was published first is not known.
            (Some(offset), Some(others)) if !self.0.is_repeat => write!(f, "\"offset\":\"{}\"}}", others.at(offset)),
            (Some(offset), _) => write!(f, "\"offset\":\"{offset}\"}}"),
            (None, _) => f.write_str("\"offset\":null}"),
        }
    }
}

fn count_failure(api: &Api, problem: &AppendError) -> &'static str {
    let code = problem.code();
    api.node.context.metrics.events.refused(Source::Http, code);
    code
}

fn refused(api: &Api, problem: &DraftError) -> Reply {
    api.node.context.metrics.events.refused(Source::Http, problem.code());
    let status = match problem {
        DraftError::TooBig { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    error(status, problem.code(), &problem.to_string())
}

/// Refuses a request whose body was not read.
pub(super) fn refuse_unread(api: &Api, problem: BodyError) -> Reply {
    api.node.context.metrics.events.refused(Source::Http, problem.code());
    unread(problem, &format!("`publish.max_body` ({} bytes)", api.settings().publish.max_body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::offset::{Epoch, Position};
    use crate::model::partition::Line;

    fn offset(line: u8, ms: u64) -> Offset {
        Offset { epoch: Epoch(0xb3), line: Line::new(line).unwrap(), position: Position { ms, seq: 2 } }
    }

    fn text(offset: Option<Offset>, replicas: Option<u32>, others: Option<Place>, is_repeat: bool) -> String {
        Stored(Accepted { offset, replicas, is_repeat }, &Others(others)).to_string()
    }

    #[test]
    fn an_answer_names_the_offset_and_how_durable_it_is() {
        let text = |offset, replicas| text(offset, replicas, None, false);
        assert_eq!(text(Some(offset(0, 17)), None), r#"{"offset":"b3-17-2"}"#);
        assert_eq!(text(Some(offset(0, 17)), Some(1)), r#"{"durability":"replicated:1","offset":"b3-17-2"}"#);
        assert_eq!(text(None, None), r#"{"offset":null}"#);
    }

    #[test]
    fn a_media_type_has_no_case_and_may_have_parameters() {
        let is = |value: &str| is_ndjson(Some(value.as_bytes()));
        for value in [
            "application/x-ndjson",
            " Application/X-NDJSON ",
            "application/x-ndjson; charset=utf-8",
            "application/x-ndjson ;x",
        ] {
            assert!(is(value), "{value}");
        }
        for value in
            ["", "application/json", "application/x-ndjsonp", "x;application/x-ndjson", "text/application/x-ndjson"]
        {
            assert!(!is(value), "{value}");
        }
        assert!(!is_ndjson(None));
    }

    #[test]
    fn with_partitions_it_says_where_the_other_lines_are() {
        let mut others = Place::from(offset(0, 20));
        others.set(offset(1, 9));
        // The event's own is its own, however far its line is.
        others.set(offset(3, 99));
        let of = |event, is_repeat| text(Some(event), None, Some(others.clone()), is_repeat);
        assert_eq!(of(offset(3, 17), false), r#"{"offset":"b3-17-2_3.0_4z_6_2.1_4z_f_2"}"#);
        assert_eq!(of(offset(3, 17), true), r#"{"offset":"b3-17-2_3"}"#);
    }
}
