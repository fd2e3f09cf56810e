//! Requests to the backend, whichever way they go: so many at once, each in its time.

use crate::backend::breaker::Breaker;
use crate::backend::call::{Call, Request};
use crate::backend::config::BackendConfig;
use crate::backend::notices::Notices;
use crate::backend::{BackendError, BackendStream, Webhook};
use crate::metrics::Metrics;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Requests at once; others wait, within their time.
pub(super) const AT_ONCE: usize = 64;

/// How the backend is reached.
pub enum BackendTransport {
    /// It is posted to, and answers.
    Webhook(Webhook),
    /// It reads a stream, and cannot answer.
    BackendStream(BackendStream),
}

/// The backend, as the shards ask it.
pub struct Backend {
    way: BackendTransport,
    timeout: Duration,
    places: Semaphore,
    breaker: Mutex<Breaker>,
    started: Instant,
    metrics: Arc<Metrics>,
    pub(super) notices: Notices,
}

impl Backend {
    /// A backend that is reached so.
    pub fn new(way: BackendTransport, config: &BackendConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            way,
            timeout: config.timeout,
            places: Semaphore::new(AT_ONCE),
            breaker: Mutex::default(),
            started: Instant::now(),
            metrics,
            notices: Notices::new(&config.notify),
        })
    }

    /// Does what goes on beside the requests, until dropped. Answers `given_up` for each notice that was told in vain.
    pub async fn run(&self, given_up: impl Fn(&'static str)) {
        let inbox = async {
            if let BackendTransport::BackendStream(inbox) = &self.way {
                inbox.run().await;
            }
        };
        tokio::join!(inbox, self.tell_all(given_up));
    }

    /// Sends a call and reads its answer by `read`, all within `backend.timeout`. A stream's answer is empty.
    ///
    /// # Errors
    /// When there is no answer that can be used.
    pub async fn ask<T>(
        &self,
        call: &Call<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.send(call.request(), read).await
    }

    pub(super) async fn send<T>(
        &self,
        request: Request,
        read: impl FnOnce(&[u8]) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let (begun, kind) = (Instant::now(), request.kind);
        let result = self.attempt(request).await.and_then(|answer| read(&answer));
        self.metrics.backend_request(kind, result.as_ref().err().map_or("ok", BackendError::label));
        self.metrics.backend_seconds.with_label_values(&[kind]).observe(begun.elapsed().as_secs_f64());
        if let Err(error) = &result
            && !matches!(error, BackendError::Refused(_) | BackendError::Resting | BackendError::Full(_))
        {
            tracing::warn!(?error, kind, "a request to the backend failed");
        }
        result
    }

    async fn attempt(&self, request: Request) -> Result<Bytes, BackendError> {
        if !self.breaker(|breaker, now| breaker.lets_through(now)) {
            return Err(BackendError::Resting);
        }
        let deadline = Instant::now() + self.timeout;
        let answer = match tokio::time::timeout_at(deadline, self.exchange(request, deadline)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.too_late()),
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
        act(&mut self.breaker.lock(), now)
    }

    async fn exchange(&self, request: Request, deadline: Instant) -> Result<Bytes, BackendError> {
        let place = self.places.acquire().await;
        let _place = place.map_err(|error| BackendError::Unreachable(error.to_string()))?;
        match &self.way {
            BackendTransport::Webhook(webhook) => webhook.post(request.body).await,
            BackendTransport::BackendStream(inbox) => inbox.add(request, deadline).await.map(|()| Bytes::new()),
        }
    }

    fn too_late(&self) -> BackendError {
        match &self.way {
            BackendTransport::BackendStream(inbox) if !inbox.is_up() => {
                BackendError::Unreachable("no connection to the inbox".into())
            }
            _ => BackendError::Timeout(self.timeout),
        }
    }
}
