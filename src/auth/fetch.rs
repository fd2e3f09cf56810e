//! One GET of the JWKS: limited in time and size, without redirects, only from the configured URL.

use crate::https::{HttpClient, Pool};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CACHE_CONTROL};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use std::time::Duration;

/// Bytes of a key set.
const MAX_BODY: usize = 256 * 1024;

pub(super) struct Fetched {
    pub body: Bytes,
    /// `Cache-Control: max-age`.
    pub max_age: Option<Duration>,
}

/// Gets the key set. Each fetch makes its own client: fetches are minutes apart, and root certificates kept in memory
/// would grow old.
///
/// # Errors
/// A text for a log line.
pub(super) async fn fetch(url: &Uri, timeout: Duration) -> Result<Fetched, String> {
    match tokio::time::timeout(timeout, get(url)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no complete answer within {timeout:?}")),
    }
}

async fn get(url: &Uri) -> Result<Fetched, String> {
    let client = HttpClient::load(url.clone(), Pool::NONE, MAX_BODY).await.map_err(|error| error.to_string())?;
    let request = Request::get(url.clone()).header(ACCEPT, "application/json");
    let request = request.body(Full::default()).map_err(|error| error.to_string())?;
    let response = client.send(request).await.map_err(|error| error.to_string())?;
    match response.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => {
            return Err(format!(
                "the server answered {status}; redirects are not followed, so configure the final URL"
            ));
        }
        status => return Err(format!("answered {status}")),
    }
    let max_age = max_age(response.headers());
    Ok(Fetched { body: response.into_body(), max_age })
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get(CACHE_CONTROL)?.to_str().ok()?;
    let seconds = directives.split(',').find_map(|one| one.trim().strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}
