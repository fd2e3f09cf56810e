//! Requests that are posted, over connections that are kept.

use crate::backend::BackendError;
use crate::backend::call::signature;
use crate::backend::config::BackendConfig;
use crate::model::error_chain::with_causes;
use crate::model::secret::Secret;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An idle connection is closed after this, sooner than most servers do.
const IDLE: Duration = Duration::from_secs(4);

/// Where requests are posted.
pub struct Webhook {
    uri: Uri,
    secret: Option<Secret>,
    /// Bytes of an answer.
    max: usize,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Webhook {
    /// `max` bounds the bytes of an answer.
    ///
    /// # Errors
    /// In words, where the URL or the system's certificates cannot be used.
    pub fn new(config: &BackendConfig, max: usize) -> Result<Self, String> {
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
            .pool_max_idle_per_host(crate::backend::requests::AT_ONCE)
            .build(connector);
        Ok(Self { uri, secret: config.secret.clone(), max, client })
    }

    /// Posts a body; the answer's.
    pub(super) async fn post(&self, body: String) -> Result<Bytes, BackendError> {
        let lost = |error: &(dyn std::error::Error + 'static)| BackendError::Unreachable(with_causes(error));
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
        let answer = Limited::new(response.into_body(), self.max).collect().await;
        let answer = answer.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => BackendError::BadAnswer(format!("it is longer than {} bytes", self.max)),
            false => BackendError::Unreachable(with_causes(&*error)),
        })?;
        Ok(answer.to_bytes())
    }
}
