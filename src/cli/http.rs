//! One request to a running node.

use crate::https::{HttpClient, Pool};
use crate::model::secret::Secret;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use std::time::Duration;

/// A node that takes longer is unhealthy.
const TIMEOUT: Duration = Duration::from_secs(10);

/// No answer to a command is longer.
const MAX_ANSWER: usize = 1 << 20;

/// A request.
pub(super) struct Question<'a> {
    /// `http://127.0.0.1:8080/health`.
    pub url: String,
    pub key: Option<&'a Secret>,
    /// With a body it is a POST of JSON, else a GET.
    pub body: Option<String>,
}

/// The status and the text of the body, or in words why there is none.
pub(super) async fn ask(question: Question<'_>) -> Result<(StatusCode, String), String> {
    let url = question.url.clone();
    match tokio::time::timeout(TIMEOUT, send(question)).await {
        Ok(result) => result.map_err(|why| format!("{url}: {why}")),
        Err(_) => Err(format!("{url}: no answer within {TIMEOUT:?}")),
    }
}

async fn send(question: Question<'_>) -> Result<(StatusCode, String), String> {
    let uri: Uri = question.url.parse().map_err(|error| format!("{error}"))?;
    let method = if question.body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(method).uri(uri.clone()).header(CONTENT_TYPE, "application/json");
    if let Some(key) = question.key {
        let value = HeaderValue::from_str(&format!("Bearer {}", key.reveal()));
        let mut value = value.map_err(|_| "the key does not fit into a header".to_owned())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let body = Full::new(Bytes::from(question.body.unwrap_or_default()));
    let request = request.body(body).map_err(|error| error.to_string())?;
    let client = HttpClient::load(uri, Pool::NONE, MAX_ANSWER).await.map_err(|error| error.to_string())?;
    let response = client.send(request).await.map_err(|error| error.to_string())?;
    Ok((response.status(), String::from_utf8_lossy(response.body()).into_owned()))
}

/// A base URL, without a final slash.
pub(super) fn base_url(text: &str) -> Result<String, String> {
    let uri: Option<Uri> = text.parse().ok();
    match uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()) {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("must be like http://127.0.0.1:8080".into()),
    }
}
