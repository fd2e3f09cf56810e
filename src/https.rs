//! The HTTP client for what this process asks of others: the JWKS, webhooks, and the command line's calls to a node.

use crate::model::error_chain::with_causes;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;

const AGENT: &str = concat!("roomcast/", env!("CARGO_PKG_VERSION"));

/// Connections that are kept open between requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    pub max_idle: usize,
    pub idle_timeout: Duration,
}

impl Pool {
    /// For requests that are minutes apart.
    pub(crate) const NONE: Self = Self { max_idle: 0, idle_timeout: Duration::ZERO };
}

/// HTTP/1.1 over TCP or TLS. Certificates are always checked, with the system's roots or `SSL_CERT_FILE`. Redirects are
/// not followed.
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Bytes of a response body.
    max_body: usize,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// No root certificates to check the server with.
    #[error("no root certificates to check the server with: {0}")]
    Roots(String),
    /// The request could not be sent, or the response broke off.
    #[error("{0}")]
    Broken(String),
    #[error("the response is longer than {max} bytes")]
    TooLong {
        status: StatusCode,
        /// Bytes that a body may have.
        max: usize,
    },
}

impl HttpClient {
    /// A client for requests to `uri`. Reads the root certificates from disk if they are needed, which blocks.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) fn new(uri: &Uri, pool: Pool, max_body: usize) -> Result<Self, HttpError> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = if uri.scheme_str() == Some("http") {
            // No certificate will be checked, and small containers have no roots.
            let config = rustls::ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .map_err(|error| HttpError::Roots(error.to_string()))?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http()
        } else {
            let roots = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider);
            roots.map_err(|error| HttpError::Roots(error.to_string()))?.https_only()
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(pool.idle_timeout)
            .pool_max_idle_per_host(pool.max_idle)
            .build(builder.enable_http1().build());
        Ok(Self { client, max_body })
    }

    /// Like [`HttpClient::new`], on a thread where reading files may block.
    ///
    /// # Errors
    /// As `new`.
    pub(crate) async fn load(uri: Uri, pool: Pool, max_body: usize) -> Result<Self, HttpError> {
        let made = tokio::task::spawn_blocking(move || Self::new(&uri, pool, max_body)).await;
        made.unwrap_or_else(|error| Err(HttpError::Roots(error.to_string())))
    }

    /// Sends a request and reads the whole response. There is no timeout: callers have their own.
    ///
    /// # Errors
    /// When there is no complete response. Any status is a response.
    pub(crate) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError> {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let response = self.client.request(request).await.map_err(|error| HttpError::Broken(with_causes(&error)))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.max_body).collect().await.map_err(|error| {
            match error.is::<LengthLimitError>() {
                true => HttpError::TooLong { status: head.status, max: self.max_body },
                false => HttpError::Broken(with_causes(&*error)),
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}
