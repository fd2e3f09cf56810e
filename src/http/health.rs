//! `/health`, `/health/live`, `/socket/ping` and `/metrics`.

use crate::http::Api;
use crate::http::answer::{Reply, error, json, typed};
use crate::logging;
use crate::model::clock::unix_ms;
use crate::node::probe::round_trip;
use crate::node::probes::Stage;
use crate::node::status;
use crate::node::status::{Health, Readiness};
use crate::shard::face::ShardCounts;
use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// How long `/socket/ping` waits for its probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether this node serves: 200 or 503.
pub fn health(api: &Api) -> Reply {
    let Health { readiness, log, problem } = status::health(&api.node);
    let status = if readiness == Readiness::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let socket = if api.node.is_draining() { "draining" } else { "ready" };
    let mut body = about(api, readiness.label());
    body["services"] = json!({ "redis": { "status": log }, "socket": { "status": socket } });
    if let Some(problem) = problem {
        body["services"]["redis"]["error"] = problem.into();
    }
    json(status, &body)
}

/// Whether the process runs. Does not depend on Redis.
pub fn live(api: &Api) -> Reply {
    json(StatusCode::OK, &about(api, "ok"))
}

fn about(api: &Api, status: &str) -> Value {
    json!({
        "status": status,
        "service": "roomcast",
        "version": env!("CARGO_PKG_VERSION"),
        "timestamp": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        "uptime_seconds": api.started.elapsed().as_secs(),
    })
}

/// Sends a probe through the log, its tail and every shard.
pub async fn ping(api: &Api) -> Reply {
    match round_trip(&api.node, PROBE_TIMEOUT).await {
        Ok(took) => {
            let rooms = count(api).await.rooms;
            let body = json!({
                "status": "live",
                "connections": api.node.connection_limiter.taken(),
                "rooms": rooms,
                "round_trip_ms": took.as_secs_f64() * 1e3,
            });
            json(StatusCode::OK, &body)
        }
        Err(stage) => {
            let (code, message) = match stage {
                Stage::Log(why) => ("log", format!("the probe was not appended: {why}")),
                Stage::Tail => ("tail", "the probe was appended, and the tail did not bring it in time".to_owned()),
                Stage::Shards(left) => ("shards", format!("{left} shards did not see the probe in time")),
            };
            error(StatusCode::SERVICE_UNAVAILABLE, code, &message)
        }
    }
}

/// What all shards hold. Each keeps its sums, so that nothing is walked.
async fn count(api: &Api) -> ShardCounts {
    let sum = async {
        let mut sum = ShardCounts::default();
        for shard in api.node.on_every_shard(|local| local.shard.counts()).await {
            sum.rooms += shard.rooms;
            sum.sessions += shard.sessions;
            sum.outbox_bytes += shard.outbox_bytes;
        }
        sum
    };
    api.scrape.counts.get(sum).await
}

/// The Prometheus text format.
pub async fn metrics(api: &Api) -> Reply {
    match api.scrape.text.get(render(api)).await {
        Ok(text) => typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
        Err(problem) => error(StatusCode::INTERNAL_SERVER_ERROR, "metrics", &problem),
    }
}

async fn render(api: &Api) -> Result<Bytes, String> {
    refresh_metrics(api).await;
    api.node.context.metrics.render().map(Bytes::from).map_err(|problem| problem.to_string())
}

/// Brings those metrics up to date that are not kept so.
pub async fn refresh_metrics(api: &Api) {
    let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let counts = count(api).await;
    let metrics = &api.node.context.metrics;
    metrics.sessions.rooms.set(gauge(counts.rooms));
    metrics.sessions.count.set(gauge(counts.sessions));
    metrics.node.note_log_lines_dropped(logging::lines_dropped());
    metrics.auth.revocations.set(gauge(api.node.auth.revocations().expire(unix_ms())));
    metrics.connections.outbox_bytes.set(gauge(counts.outbox_bytes));
    metrics.auth.note_tokens_verified(&api.node.auth.verified());
    metrics.node.note_memory(&api.node.context.memory);
    let (open, skipped) = api.node.context.feed.counts();
    metrics.node.note_traces(open, skipped);
}
