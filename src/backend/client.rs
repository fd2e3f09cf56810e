//! Requests to the backend, by webhook or by stream: at most [`MAX_IN_FLIGHT`] at once, each within `backend.timeout`.

use crate::backend::circuit_breaker::CircuitBreaker;
use crate::backend::config::BackendConfig;
use crate::backend::notices::Notices;
use crate::backend::request::{BackendRequest, EncodedRequest, RequestKind};
use crate::backend::stream::BackendStream;
use crate::backend::webhook::Webhook;
use crate::backend::{BackendError, MAX_IN_FLIGHT};
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Attempts to send one notice. With the pauses between them they take about five minutes.
const ATTEMPTS: u32 = 14;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How requests reach the backend.
pub enum BackendTransport {
    /// HTTP POST, with an answer.
    Webhook(Webhook),
    /// A Redis stream, without answers.
    Stream(BackendStream),
}

/// The backend as the shards use it.
pub struct Backend {
    transport: BackendTransport,
    timeout: Duration,
    in_flight: Semaphore,
    breaker: Mutex<CircuitBreaker>,
    started: Instant,
    metrics: Arc<Metrics>,
    notices: Notices,
}

impl Backend {
    /// A backend behind this transport. [`Backend::run`] must run beside it.
    pub fn new(transport: BackendTransport, config: &BackendConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            transport,
            timeout: config.timeout,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            breaker: Mutex::default(),
            started: Instant::now(),
            metrics,
            notices: Notices::new(&config.notify),
        })
    }

    /// Sends notices and feeds the stream, until dropped. Calls `given_up` for each notice whose last attempt failed.
    pub async fn run(&self, given_up: impl Fn(RequestKind)) {
        let stream = async {
            if let BackendTransport::Stream(stream) = &self.transport {
                stream.run().await;
            }
        };
        tokio::join!(stream, self.send_notices(given_up));
    }

    /// Sends a request and reads its answer with `read`, all within `backend.timeout`. A stream's answer is empty.
    ///
    /// # Errors
    /// When there is no usable answer.
    pub async fn call<T>(
        &self,
        request: &BackendRequest<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.send(request.encode(), read).await
    }

    /// Whether requests go to a Redis stream.
    pub fn is_stream(&self) -> bool {
        matches!(self.transport, BackendTransport::Stream(_))
    }

    /// Whether the backend wants notices of this kind.
    pub fn wants(&self, kind: RequestKind) -> bool {
        self.notices.wants(kind)
    }

    /// Queues a notice; returns how many older ones were dropped for it.
    pub fn notify(&self, notice: &BackendRequest<'_>) -> usize {
        self.notices.push(notice.encode())
    }

    /// How many notices wait or are being sent.
    pub fn pending_notices(&self) -> usize {
        self.notices.pending()
    }

    /// Waits until all notices are sent, at most for `timeout`; returns how many are not.
    pub async fn wait_until_notified(&self, timeout: Duration) -> usize {
        self.notices.wait_until_sent(timeout).await
    }

    async fn send_notices(&self, given_up: impl Fn(RequestKind)) {
        loop {
            let notice = self.notices.next().await;
            let kind = notice.kind;
            if self.send_with_retries(notice).await.is_err() {
                given_up(kind);
            }
            self.notices.done();
        }
    }

    async fn send_with_retries(&self, notice: EncodedRequest) -> Result<(), BackendError> {
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        for _ in 1..ATTEMPTS {
            match self.send(notice.clone(), |_| Ok(())).await {
                Err(error) if error.is_retryable() => tokio::time::sleep(backoff.next_pause()).await,
                result => return result,
            }
        }
        self.send(notice, |_| Ok(())).await
    }

    async fn send<T>(
        &self,
        request: EncodedRequest,
        read: impl FnOnce(&[u8]) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let (started, kind) = (Instant::now(), request.kind.label());
        let result = self.attempt(request).await.and_then(|answer| read(&answer));
        self.metrics.backend_request(kind, result.as_ref().err().map_or("ok", BackendError::label));
        self.metrics.backend_seconds.with_label_values(&[kind]).observe(started.elapsed().as_secs_f64());
        if let Err(error) = &result
            && !matches!(error, BackendError::Refused(_) | BackendError::CircuitOpen | BackendError::StreamFull(_))
        {
            tracing::warn!(?error, kind, "a request to the backend failed");
        }
        result
    }

    async fn attempt(&self, request: EncodedRequest) -> Result<Bytes, BackendError> {
        if !self.with_breaker(CircuitBreaker::allows) {
            return Err(BackendError::CircuitOpen);
        }
        let deadline = Instant::now() + self.timeout;
        let answer = match tokio::time::timeout_at(deadline, self.transmit(request, deadline)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.timed_out()),
        };
        match &answer {
            Err(error) if error.counts_as_failure() => {
                if self.with_breaker(CircuitBreaker::record_failure) {
                    tracing::warn!(
                        "the backend failed several times in a row; requests to it fail at once for a second"
                    );
                }
            }
            _ => self.with_breaker(|breaker, _| breaker.record_success()),
        }
        answer
    }

    fn with_breaker<T>(&self, act: impl FnOnce(&mut CircuitBreaker, u64) -> T) -> T {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        act(&mut self.breaker.lock(), now_ms)
    }

    async fn transmit(&self, request: EncodedRequest, deadline: Instant) -> Result<Bytes, BackendError> {
        let permit = self.in_flight.acquire().await;
        let _permit = permit.map_err(|error| BackendError::Unreachable(error.to_string()))?;
        match &self.transport {
            BackendTransport::Webhook(webhook) => webhook.post(request.body).await,
            BackendTransport::Stream(stream) => stream.add(request, deadline).await.map(|()| Bytes::new()),
        }
    }

    fn timed_out(&self) -> BackendError {
        match &self.transport {
            BackendTransport::Stream(stream) if !stream.is_connected() => {
                BackendError::Unreachable("no connection to `backend.stream`".into())
            }
            _ => BackendError::Timeout(self.timeout),
        }
    }
}
