//! `POST /publish`.

use crate::http::Api;
use crate::http::answer::{Reply, error, json, unread};
use crate::http::body;
use crate::http::body::BodyError;
use crate::log::{Accepted, AppendError, Appended};
use crate::model::draft::{Draft, DraftError, Source};
use crate::model::refusal::Refusal;
use crate::model::trace_context::TraceContext;
use crate::protocol::publish::{Publication, decode_json, decode_ndjson};
use crate::refusals::Who;
use crate::telemetry::{Parent, Span, SpanKind};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Publishes events and answers when the log has them. The caller has checked the key.
pub async fn publish(api: &Api, request: Request<Incoming>, from: IpAddr) -> Reply {
    let mut span = begin_span(api, request.headers());
    let reply = publish_within(api, request, from, &mut span).await;
    span.set("http.response.status_code", || u64::from(reply.status().as_u16()));
    if reply.status().is_server_error() {
        span.fail("unavailable");
    }
    reply
}

/// A span of the publisher's trace, or of a new one.
fn begin_span(api: &Api, headers: &HeaderMap) -> Span {
    let telemetry = &api.node.context.telemetry;
    if !telemetry.traces() {
        return Span::default();
    }
    let value = |name| headers.get(name).map(|value| value.as_bytes());
    let parent = value("traceparent").and_then(|parent| TraceContext::parse(parent, value("tracestate")));
    let parent = parent.as_ref().map_or(Parent::None, |parent| Parent::Of(Some(parent)));
    telemetry.start("publish", SpanKind::Server, parent)
}

async fn publish_within(api: &Api, request: Request<Incoming>, from: IpAddr, span: &mut Span) -> Reply {
    let ndjson = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().starts_with("application/x-ndjson"));
    let body = match body::read(request, api.settings().publish.max_body).await {
        Ok(body) => body,
        Err(problem) => return refuse_unread(api, problem),
    };
    let Ok(text) = std::str::from_utf8(&body) else {
        return refused(api, &DraftError::Json("the body is not UTF-8".into()));
    };
    let limits = &api.node.context.draft_limits;
    match if ndjson { decode_ndjson(text, limits) } else { decode_json(text, limits) } {
        Ok(Publication::One(mut draft)) => {
            draft.trace = span.context();
            one(api, *draft).await
        }
        Ok(Publication::Batch(mut events)) => {
            span.set("messaging.batch.message_count", || events.len() as u64);
            events.iter_mut().flatten().for_each(|draft| draft.trace = span.context());
            batch(api, events, from).await
        }
        Err(problem) => refused(api, &problem),
    }
}

async fn one(api: &Api, draft: Draft) -> Reply {
    match api.node.log.append(vec![draft]).await.pop() {
        Some(Ok(accepted)) => {
            api.node.context.metrics.accepted(Source::Http, 1);
            json(StatusCode::OK, &stored(accepted))
        }
        Some(Err(problem)) => {
            let code = count_failure(api, &problem);
            error(StatusCode::SERVICE_UNAVAILABLE, code, &problem.to_string())
        }
        None => error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the log did not answer; try again"),
    }
}

/// 200 with a result for each event, in order; 503 with an additional `error` if the log accepted none of them.
async fn batch(api: &Api, events: Vec<Result<Draft, DraftError>>, from: IpAddr) -> Reply {
    let mut results: Vec<Option<Value>> = Vec::with_capacity(events.len());
    let mut drafts = Vec::with_capacity(events.len());
    for event in events {
        results.push(match event {
            Ok(draft) => {
                drafts.push(draft);
                None
            }
            Err(problem) => {
                api.node.context.metrics.refused(Source::Http, problem.code());
                let why = format_args!("an event of a batch: {}; the answer says what is wrong", problem.code());
                let reason = match problem {
                    DraftError::TooBig { .. } => Refusal::Size,
                    _ => Refusal::Request,
                };
                api.node.context.refusals.note(reason, &Who::at(from).path("/publish"), why);
                Some(failure(problem.code(), &problem.to_string()))
            }
        });
    }
    let mut appended = if drafts.is_empty() { Vec::new() } else { api.node.log.append(drafts).await }.into_iter();
    let mut accepted = 0;
    let mut first = None;
    let results: Vec<Value> = results
        .into_iter()
        .map(|result| {
            result.unwrap_or_else(|| {
                let result = result_of(api, appended.next(), &mut accepted);
                first.get_or_insert_with(|| result.clone());
                result
            })
        })
        .collect();
    api.node.context.metrics.accepted(Source::Http, accepted);
    match first {
        // The reason is where every other refusal has it.
        Some(first) if accepted == 0 => {
            json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": first["error"], "results": results }))
        }
        _ => json(StatusCode::OK, &json!({ "results": results })),
    }
}

fn result_of(api: &Api, appended: Option<Appended>, accepted: &mut u64) -> Value {
    match appended {
        Some(Ok(is)) => {
            *accepted += 1;
            stored(is)
        }
        Some(Err(problem)) => failure(count_failure(api, &problem), &problem.to_string()),
        None => failure("unavailable", "the log did not answer; try again"),
    }
}

/// With `durability` if `redis.min_replicas` is set.
fn stored(accepted: Accepted) -> Value {
    let mut body = json!({ "offset": accepted.offset.map(|offset| offset.to_string()) });
    if let Some(replicas) = accepted.replicas {
        body["durability"] = format!("replicated:{replicas}").into();
    }
    body
}

fn failure(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message } })
}

fn count_failure(api: &Api, problem: &AppendError) -> &'static str {
    let code = problem.code();
    api.node.context.metrics.refused(Source::Http, code);
    code
}

fn refused(api: &Api, problem: &DraftError) -> Reply {
    api.node.context.metrics.refused(Source::Http, problem.code());
    let status = match problem {
        DraftError::TooBig { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    error(status, problem.code(), &problem.to_string())
}

fn refuse_unread(api: &Api, problem: BodyError) -> Reply {
    api.node.context.metrics.refused(Source::Http, problem.code());
    unread(problem, &format!("`publish.max_body` ({} bytes)", api.settings().publish.max_body))
}
