//! Sends spans and metrics. What cannot be sent is tried again a few times, then dropped and counted.

use crate::backoff::Backoff;
use crate::https::{HttpClient, HttpError, Pool};
use crate::metrics::Metrics;
use crate::metrics::telemetry::{Signal, TelemetryDrop};
use crate::model::clock::unix_us;
use crate::telemetry::config::TelemetryConfig;
use crate::telemetry::otlp;
use crate::telemetry::otlp::Resource;
use crate::telemetry::queue::{BATCH, SpanQueue};
use crate::telemetry::span_data::SpanData;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Spans wait so long for others to share their request.
const GATHER: Duration = Duration::from_secs(1);
/// How often a batch of spans is sent before it is given up.
const MAX_ATTEMPTS: u32 = 4;
/// Pauses between those attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What a stop waits for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(1);
/// Bytes of an answer. Only the beginning of it says anything.
const MAX_ANSWER: usize = 64 << 10;
/// An idle connection is kept so long: metrics are sent once a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// One warning in this time while the receiver is away.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Exporter {
    client: HttpClient,
    traces_uri: Uri,
    metrics_uri: Uri,
    headers: HeaderMap,
    timeout: Duration,
    metrics_interval: Duration,
    sends_traces: bool,
    resource: Resource,
    started_us: u64,
    queue: Arc<SpanQueue>,
    metrics: Arc<Metrics>,
    /// When it was last said that the receiver does not take what is sent; `None` while it does.
    warned: Mutex<Option<Instant>>,
}

/// Why a request was not taken.
enum Failure {
    /// It may be taken later.
    Passing(String),
    /// It would not be taken a second time either.
    Final(String),
}

impl Exporter {
    pub(super) fn new(
        config: &TelemetryConfig,
        endpoint: &str,
        node: String,
        queue: Arc<SpanQueue>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, HttpError> {
        let base = endpoint.trim().trim_end_matches('/');
        let uri = |path: &str| {
            let uri: Result<Uri, _> = format!("{base}/v1/{path}").parse();
            uri.map_err(|error| HttpError::Connect(error.to_string()))
        };
        let traces_uri = uri("traces")?;
        let client = HttpClient::new(&traces_uri, Pool { max_idle: 2, idle_timeout: IDLE_TIMEOUT }, MAX_ANSWER)?;
        let version = env!("CARGO_PKG_VERSION");
        Ok(Self {
            client,
            metrics_uri: uri("metrics")?,
            traces_uri,
            headers: headers(config),
            timeout: config.timeout,
            metrics_interval: config.metrics_interval,
            sends_traces: config.traces,
            resource: Resource { service_name: config.service_name.clone(), node, version },
            started_us: unix_us(),
            queue,
            metrics,
            warned: Mutex::default(),
        })
    }

    /// Sends both signals until dropped. One does not wait for the other.
    pub(super) async fn run<F: Future<Output = ()>>(&self, refresh: impl Fn() -> F) {
        tokio::join!(self.send_traces(), self.send_metrics(refresh));
    }

    /// Sends what waits, once.
    pub(super) async fn flush(&self) {
        if self.warned.lock().is_some() {
            return;
        }
        let sent = async {
            loop {
                let spans = self.queue.take();
                if spans.is_empty() {
                    return;
                }
                let body = otlp::traces(&self.resource, &spans);
                if self.post(&self.traces_uri, Signal::Traces, body.into()).await.is_err() {
                    return self.metrics.telemetry.dropped(TelemetryDrop::ExportFailed, spans.len() as u64);
                }
            }
        };
        let _ = tokio::time::timeout(LAST_SPANS, sent).await;
    }

    async fn send_traces(&self) {
        if !self.sends_traces {
            return;
        }
        loop {
            let _ = tokio::time::timeout(GATHER, self.queue.arrival.notified()).await;
            loop {
                let spans = self.queue.take();
                if spans.is_empty() {
                    break;
                }
                self.send_spans(&spans).await;
                if spans.len() < BATCH {
                    break;
                }
            }
        }
    }

    async fn send_spans(&self, spans: &[SpanData]) {
        let body = Bytes::from(otlp::traces(&self.resource, spans));
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        for attempt in 1..=MAX_ATTEMPTS {
            match self.post(&self.traces_uri, Signal::Traces, body.clone()).await {
                Ok(answer) => {
                    let rejected = otlp::rejected(&answer).min(spans.len() as u64);
                    return self.metrics.telemetry.dropped(TelemetryDrop::Rejected, rejected);
                }
                Err(Failure::Passing(why)) if attempt < MAX_ATTEMPTS => {
                    self.warn(&why);
                    tokio::time::sleep(backoff.next_pause()).await;
                }
                Err(Failure::Passing(why) | Failure::Final(why)) => {
                    self.warn(&why);
                    break;
                }
            }
        }
        self.metrics.telemetry.dropped(TelemetryDrop::ExportFailed, spans.len() as u64);
    }

    /// Metrics are cumulative, so that one export which fails loses nothing but resolution.
    async fn send_metrics<F: Future<Output = ()>>(&self, refresh: impl Fn() -> F) {
        if self.metrics_interval.is_zero() {
            return;
        }
        let mut ticks = tokio::time::interval(self.metrics_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first is at once, when there is nothing to tell.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            refresh().await;
            let families = self.metrics.families();
            let body = otlp::metrics(&self.resource, &families, self.started_us, unix_us());
            if let Err(Failure::Passing(why) | Failure::Final(why)) =
                self.post(&self.metrics_uri, Signal::Metrics, body.into()).await
            {
                self.warn(&why);
            }
        }
    }

    async fn post(&self, uri: &Uri, signal: Signal, body: Bytes) -> Result<Bytes, Failure> {
        let answer = tokio::time::timeout(self.timeout, self.client.send_repeatable(self.request(uri, body))).await;
        let result = match answer {
            Err(_) => Err(Failure::Passing(format!("no answer within {:?}", self.timeout))),
            Ok(Err(error)) => Err(Failure::Passing(error.to_string())),
            Ok(Ok(response)) => match response.status() {
                status if status.is_success() => Ok(response.into_body()),
                status if is_passing(status) => Err(Failure::Passing(format!("status {status}"))),
                status => Err(Failure::Final(format!("status {status}"))),
            },
        };
        self.metrics.telemetry.export(signal, result.is_ok());
        if result.is_ok() && self.warned.lock().take().is_some() {
            tracing::info!(endpoint = %self.traces_uri.host().unwrap_or_default(), "telemetry is taken again");
        }
        result
    }

    fn request(&self, uri: &Uri, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        request
    }

    fn warn(&self, why: &str) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            *warned = Some(Instant::now());
            tracing::warn!(
                endpoint = %self.traces_uri.authority().map_or("", |authority| authority.as_str()),
                "telemetry is not taken by [telemetry] otlp_endpoint: {why}; clients do not notice"
            );
        }
    }
}

/// What OTLP calls retryable.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// The configuration has checked them.
fn headers(config: &TelemetryConfig) -> HeaderMap {
    let pairs = config.headers.iter().filter_map(|header| header.reveal().split_once('='));
    let pairs = pairs.filter_map(|(name, value)| {
        let name = HeaderName::try_from(name.trim()).ok()?;
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    });
    pairs.collect()
}
