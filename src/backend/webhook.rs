//! Requests that are posted, over connections that are kept.

use crate::backend::BackendError;
use crate::backend::call::signature;
use crate::backend::config::BackendConfig;
use crate::http_client::{Connector, connector, is_kept_alive};
use crate::model::error_chain::with_causes;
use crate::model::secret::Secret;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An idle connection is closed after this, sooner than most servers do.
const IDLE: Duration = Duration::from_secs(4);

type HttpClient = Client<Connector, Full<Bytes>>;

/// Where requests are posted.
pub struct Webhook {
    uri: Uri,
    secret: Option<Secret>,
    /// Bytes of an answer.
    max: usize,
    client: HttpClient,
    /// Makes a connection for each request.
    unpooled: HttpClient,
}

impl Webhook {
    /// `max` bounds the bytes of an answer.
    ///
    /// # Errors
    /// In words, where the URL or the system's certificates cannot be used.
    pub fn new(config: &BackendConfig, max: usize) -> Result<Self, String> {
        let url = config.url.as_deref().ok_or("`backend.url` is not set")?;
        let uri: Uri = url.parse().map_err(|error| format!("`backend.url`: {error}"))?;
        let connector = connector(&uri)
            .map_err(|error| format!("no root certificates to check the backend with: {error}"))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(crate::backend::requests::AT_ONCE)
            .build(connector.clone());
        let unpooled = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { uri, secret: config.secret.clone(), max, client, unpooled })
    }

    /// Posts a body; the answer's.
    pub(super) async fn post(&self, body: String) -> Result<Bytes, BackendError> {
        let lost = |error: &(dyn std::error::Error + 'static)| BackendError::Unreachable(with_causes(error));
        let body = Bytes::from(body);
        let mut request = self.request(&body).map_err(|error| lost(&error))?;
        let connection = capture_connection(&mut request);
        let response = match self.client.request(request).await {
            // Backends close idle connections whenever they like, also while a request is on its way. Another one of the
            // pool may be as dead, so this time it is a fresh one; the backend knows a repeat by its id.
            Err(error) if is_kept_alive(&connection) => {
                tracing::debug!(%error, "a kept-alive connection to the backend had ended; the request is sent once more");
                let request = self.request(&body).map_err(|error| lost(&error))?;
                self.unpooled.request(request).await
            }
            Ok(response) => {
                is_kept_alive(&connection);
                Ok(response)
            }
            failed => failed,
        };
        let response = response.map_err(|error| lost(&error))?;
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

    fn request(&self, body: &Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("roomcast/", env!("CARGO_PKG_VERSION")));
        if let Some(secret) = &self.secret {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            request = request.header("X-Roomcast-Signature", signature(secret.reveal(), unix, body));
        }
        request.body(Full::new(body.clone()))
    }
}
