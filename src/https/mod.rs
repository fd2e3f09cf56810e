//! The HTTP client for what this process asks of others: the JWKS, webhooks, and the command line's calls to a node.

mod dialer;
mod own_node;

use crate::model::error_chain::with_causes;
use bytes::Bytes;
use dialer::{Dialer, is_kept_alive, with_roots};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::path::PathBuf;
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

/// Who is asked.
pub(crate) enum Server {
    /// Whoever proves the name in the URL, if that is `https://`.
    Checked,
    /// A node of this machine.
    OwnNode,
    /// Who listens at this Unix socket.
    Socket(PathBuf),
}

/// HTTP/1.1 over TCP or TLS. Certificates are checked unless the server is [`Server::OwnNode`], with the system's roots or `SSL_CERT_FILE`. `HTTPS_PROXY`
/// and `NO_PROXY` count for `https://`. Redirects are not followed.
pub(crate) struct HttpClient {
    client: Box<Client<HttpsConnector<Dialer>, Full<Bytes>>>,
    /// Opens a connection for each request.
    fresh: Box<Client<HttpsConnector<Dialer>, Full<Bytes>>>,
    /// Bytes of a response body.
    max_body: usize,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// No root certificates to check the server with.
    #[error("no root certificates to check the server with: {0}")]
    Roots(String),
    /// There is no connection, or TLS refuses the server.
    #[error("{0}")]
    Connect(String),
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
        Self::make(Server::Checked, uri, pool, max_body)
    }

    fn make(server: Server, uri: &Uri, pool: Pool, max_body: usize) -> Result<Self, HttpError> {
        let roots = |error: std::io::Error| HttpError::Roots(error.to_string());
        // Small containers have no root certificates, and do not need them for plain HTTP.
        let is_plain = uri.scheme_str() == Some("http");
        let builder = with_roots(&server, !is_plain).map_err(roots)?;
        let builder = if is_plain { builder.https_or_http() } else { builder.https_only() };
        let connector = builder.enable_http1().wrap_connector(Dialer::new(server).map_err(roots)?);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(pool.idle_timeout)
            .pool_max_idle_per_host(pool.max_idle)
            .build(connector.clone());
        let fresh = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client: Box::new(client), fresh: Box::new(fresh), max_body })
    }

    /// Like [`HttpClient::new`], on a thread where reading files may block.
    ///
    /// # Errors
    /// As `new`.
    pub(crate) async fn load(uri: Uri, pool: Pool, max_body: usize) -> Result<Self, HttpError> {
        Self::load_for(Server::Checked, uri, pool, max_body).await
    }

    /// The same for a certain server.
    ///
    /// # Errors
    /// As `new`.
    pub(crate) async fn load_for(server: Server, uri: Uri, pool: Pool, max_body: usize) -> Result<Self, HttpError> {
        let made = tokio::task::spawn_blocking(move || Self::make(server, &uri, pool, max_body)).await;
        made.unwrap_or_else(|error| Err(HttpError::Roots(error.to_string())))
    }

    /// Sends a request and reads the whole response. There is no timeout: callers have their own.
    ///
    /// # Errors
    /// When there is no complete response. Any status is a response.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError> {
        self.read(self.client.request(with_agent(request)).await).await
    }

    /// Like [`HttpClient::send`]. If a kept-alive connection dies before the response begins, the request is sent once more
    /// on a fresh one: servers close idle connections at any moment, also while a request is on its way.
    ///
    /// # Errors
    /// As `send`.
    pub(crate) async fn send_repeatable(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError> {
        let mut request = with_agent(request);
        let again = request.clone();
        let connection = capture_connection(&mut request);
        let response = self.client.request(request).await;
        // Asked for every request, so that the connection counts as kept alive for the next one.
        let was_kept_alive = is_kept_alive(&connection);
        match response {
            // Others of the pool may be dead as well.
            Err(_) if was_kept_alive => self.read(self.fresh.request(again).await).await,
            response => self.read(response).await,
        }
    }

    /// Sends a request, and answers once the head of the response has come. Whoever reads its body bounds it.
    ///
    /// # Errors
    /// When there is no response. Any status is a response.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, HttpError> {
        received(self.client.request(with_agent(request)).await)
    }

    async fn read(&self, response: Result<Response<Incoming>, ClientError>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = received(response)?.into_parts();
        let body = Limited::new(body, self.max_body).collect().await.map_err(|error| {
            match error.is::<LengthLimitError>() {
                true => HttpError::TooLong { status: head.status, max: self.max_body },
                false => HttpError::Broken(with_causes(&*error)),
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

fn received(response: Result<Response<Incoming>, ClientError>) -> Result<Response<Incoming>, HttpError> {
    response.map_err(|error| match error.is_connect() {
        true => HttpError::Connect(with_causes(&error)),
        false => HttpError::Broken(with_causes(&error)),
    })
}

fn with_agent(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    request
}
