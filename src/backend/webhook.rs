//! Requests to the backend: kept-alive connections, so many at once, each in its time.

use super::BackendError;
use super::breaker::Breaker;
use super::call::{Call, signature};
use super::config::BackendConfig;
use super::notices::Notices;
use crate::causes::with_causes;
use crate::metrics::Metrics;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// Requests at once; others wait, within their time.
const AT_ONCE: usize = 64;
/// An idle connection is closed after this, sooner than most servers do.
const IDLE: Duration = Duration::from_secs(4);

/// The backend, as the shards ask it.
pub struct Backend {
    uri: Uri,
    secret: Option<crate::secret::Secret>,
    timeout: Duration,
    /// Bytes of an answer.
    most: usize,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    places: Semaphore,
    breaker: Mutex<Breaker>,
    started: Instant,
    metrics: Arc<Metrics>,
    pub(super) notices: Notices,
}

impl Backend {
    /// `most` bounds the bytes of an answer.
    ///
    /// # Errors
    /// In words, where the URL or the system's certificates cannot be used.
    pub fn new(config: &BackendConfig, most: usize, metrics: Arc<Metrics>) -> Result<Arc<Self>, String> {
        let url = config.url.as_deref().ok_or("`backend.url` is not set")?;
        let uri: Uri = url.parse().map_err(|error| format!("`backend.url`: {error}"))?;
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
            .map_err(|error| format!("no root certificates to check the backend with: {error}"))?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(AT_ONCE)
            .build(connector);
        Ok(Arc::new(Self {
            uri,
            secret: config.secret.clone(),
            timeout: config.timeout,
            most,
            client,
            places: Semaphore::new(AT_ONCE),
            breaker: Mutex::default(),
            started: Instant::now(),
            metrics,
            notices: Notices::new(&config.notify),
        }))
    }

    /// Posts a call and reads its answer by `read`, all within `backend.timeout`.
    ///
    /// # Errors
    /// When there is no answer that can be used.
    pub async fn ask<T>(
        &self,
        call: &Call<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.post(call.kind, call.body(), read).await
    }

    pub(super) async fn post<T>(
        &self,
        kind: &'static str,
        body: String,
        read: impl FnOnce(&[u8]) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let begun = Instant::now();
        let result = self.attempt(body).await.and_then(|answer| read(&answer));
        self.metrics.backend_request(kind, result.as_ref().err().map_or("ok", BackendError::label));
        self.metrics.backend_seconds.with_label_values(&[kind]).observe(begun.elapsed().as_secs_f64());
        if let Err(error) = &result
            && !matches!(error, BackendError::Refused(_) | BackendError::Resting)
        {
            tracing::warn!(?error, kind, "a request to the backend failed");
        }
        result
    }

    async fn attempt(&self, body: String) -> Result<Bytes, BackendError> {
        if !self.breaker(|breaker, now| breaker.lets_through(now)) {
            return Err(BackendError::Resting);
        }
        let answer = match tokio::time::timeout(self.timeout, self.exchange(body)).await {
            Ok(answer) => answer,
            Err(_) => Err(BackendError::Timeout(self.timeout)),
        };
        match &answer {
            Err(error) if error.is_trouble() => {
                if self.breaker(Breaker::failed) {
                    tracing::warn!("the backend has failed several times in a row and is left alone for a moment");
                }
            }
            _ => self.breaker(|breaker, _| breaker.succeeded()),
        }
        answer
    }

    fn breaker<T>(&self, act: impl FnOnce(&mut Breaker, u64) -> T) -> T {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        act(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    async fn exchange(&self, body: String) -> Result<Bytes, BackendError> {
        let lost = |error: &(dyn std::error::Error + 'static)| BackendError::Unreachable(with_causes(error));
        let _place = self.places.acquire().await.map_err(|error| lost(&error))?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("roomcast/", env!("CARGO_PKG_VERSION")));
        if let Some(secret) = &self.secret {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            request = request.header("X-Roomcast-Signature", signature(secret.reveal(), unix, &body));
        }
        let request = request.body(Full::from(body)).map_err(|error| lost(&error))?;
        let response = self.client.request(request).await.map_err(|error| lost(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(BackendError::Status(status.as_u16()));
        }
        let answer = Limited::new(response.into_body(), self.most).collect().await;
        let answer = answer.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => BackendError::BadAnswer(format!("it is longer than {} bytes", self.most)),
            false => BackendError::Unreachable(with_causes(&*error)),
        })?;
        Ok(answer.to_bytes())
    }
}
