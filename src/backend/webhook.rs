//! Requests to the backend by HTTP POST, over connections that are kept open.

use crate::backend::BackendError;
use crate::backend::MAX_SENDING;
use crate::backend::config::BackendConfig;
use crate::backend::request::{EncodedRequest, signature};
use crate::https::{HttpClient, HttpError, Pool};
use crate::model::secret::Secret;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Uri};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An idle connection is closed after this, before most servers close it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Posts requests to `backend.url`.
pub struct Webhook {
    uri: Uri,
    secret: Option<Secret>,
    client: HttpClient,
}

impl Webhook {
    /// `max_answer` bounds the bytes of an answer. Reads root certificates from disk.
    ///
    /// # Errors
    /// A text, when the URL or the system's certificates cannot be used.
    pub fn new(config: &BackendConfig, max_answer: usize) -> Result<Self, String> {
        let url = config.url.as_deref().ok_or("`backend.url` is not set")?;
        let uri: Uri = url.parse().map_err(|error| format!("`backend.url`: {error}"))?;
        let pool = Pool { max_idle: config.concurrency + MAX_SENDING, idle_timeout: IDLE_TIMEOUT };
        let client = HttpClient::new(&uri, pool, max_answer).map_err(|error| format!("`backend.url`: {error}"))?;
        Ok(Self { uri, secret: config.secret.clone(), client })
    }

    /// Posts a request; returns the body of the answer.
    pub(super) async fn post(&self, EncodedRequest { body, trace, .. }: EncodedRequest) -> Result<Bytes, BackendError> {
        let mut request = Request::post(self.uri.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(trace) = &trace {
            request = request.header("traceparent", trace.to_string());
            if let Some(state) = &trace.state {
                request = request.header("tracestate", &**state);
            }
        }
        if let Some(secret) = &self.secret {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            request = request.header("X-Roomcast-Signature", signature(secret.reveal(), unix, &body));
        }
        let request = request.body(Full::from(body));
        let request = request.map_err(|error| BackendError::Unreachable(error.to_string()))?;
        let response = self.client.send_repeatable(request).await.map_err(|error| match error {
            HttpError::TooLong { status, .. } if !status.is_success() => BackendError::Status(status.as_u16()),
            HttpError::TooLong { max, .. } => BackendError::BadAnswer(format!("it is longer than {max} bytes")),
            HttpError::Roots(_) | HttpError::Connect(_) => BackendError::Unreachable(error.to_string()),
            HttpError::Broken(_) => BackendError::ConnectionLost(error.to_string()),
        })?;
        match response.status() {
            status if status.is_success() => Ok(response.into_body()),
            status => Err(BackendError::Status(status.as_u16())),
        }
    }
}
