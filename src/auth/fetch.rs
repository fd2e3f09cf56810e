//! One GET of the JWKS: bounded in time and size, never redirected, never to any URL but the configured one.

use crate::http_client::{Connector, connector};
use crate::model::error_chain::with_causes;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{ACCEPT, CACHE_CONTROL, USER_AGENT};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// Longest answer, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// What came.
pub(super) struct Fetched {
    pub body: Bytes,
    /// `Cache-Control: max-age`.
    pub max_age: Option<Duration>,
}

/// Gets the set. A client is made for each fetch: they are minutes apart, so a connection kept open or
/// root certificates kept in memory would only grow old.
///
/// # Errors
/// In words, for a log line.
pub(super) async fn fetch(url: &Uri, timeout: Duration) -> Result<Fetched, String> {
    let answer = async {
        let connector = connector(url)
            .map_err(|error| format!("no root certificates to check the server with: {error}"))?;
        get(connector, url).await
    };
    match tokio::time::timeout(timeout, answer).await {
        Ok(result) => result,
        Err(_) => Err(format!("no complete answer within {timeout:?}")),
    }
}

async fn get(connector: Connector, url: &Uri) -> Result<Fetched, String> {
    let request = Request::get(url.clone())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("roomcast/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let response = client.request(request).await.map_err(|error| with_causes(&error))?;
    match response.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => {
            return Err(format!("answered {status}; redirects are not followed, configure the final URL"));
        }
        status => return Err(format!("answered {status}")),
    }
    let max_age = max_age(response.headers());
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|error| {
        match error.is::<http_body_util::LengthLimitError>() {
            true => format!("the answer is longer than {MAX_BODY} bytes"),
            false => with_causes(&*error),
        }
    })?;
    Ok(Fetched { body: body.to_bytes(), max_age })
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get(CACHE_CONTROL)?.to_str().ok()?;
    let seconds = directives.split(',').find_map(|one| one.trim().strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}
