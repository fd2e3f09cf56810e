//! One request to a running node.

use crate::model::error_chain::with_causes;
use crate::model::secret::Secret;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// A node that takes longer is not well.
const TIMEOUT: Duration = Duration::from_secs(10);

/// No answer that a command asks for is longer.
const MAX_ANSWER: usize = 1 << 20;

/// What is asked.
pub(super) struct Question<'a> {
    /// `http://127.0.0.1:8080/health`.
    pub url: String,
    pub key: Option<&'a Secret>,
    /// With a body it is a POST of JSON, else a GET.
    pub body: Option<String>,
}

/// The status and the body's text; or in words why there is none.
pub(super) async fn ask(question: Question<'_>) -> Result<(StatusCode, String), String> {
    let url = question.url.clone();
    let answer = async {
        if url.starts_with("https://") {
            let connector = HttpsConnectorBuilder::new()
                .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
                .map_err(|error| format!("no root certificates to check the server with: {error}"))?
                .https_only()
                .enable_http1()
                .build();
            return send(connector, question).await;
        }
        send(HttpConnector::new(), question).await
    };
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(result) => result.map_err(|why| format!("{url}: {why}")),
        Err(_) => Err(format!("{url}: no answer within {TIMEOUT:?}")),
    }
}

async fn send<C>(connector: C, question: Question<'_>) -> Result<(StatusCode, String), String>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let method = if question.body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder()
        .method(method)
        .uri(&question.url)
        .header(USER_AGENT, concat!("roomcast/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json");
    if let Some(key) = question.key {
        let value = HeaderValue::from_str(&format!("Bearer {}", key.reveal()));
        let mut value = value.map_err(|_| "the key does not fit into a header".to_owned())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let body = Full::new(Bytes::from(question.body.unwrap_or_default()));
    let request = request.body(body).map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let response = client.request(request).await.map_err(|error| with_causes(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| with_causes(&*error))?;
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

/// A base URL without the slash at its end. Checked by clap where it is given as a flag.
pub(super) fn base_url(text: &str) -> Result<String, String> {
    let uri: Option<hyper::Uri> = text.parse().ok();
    match uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()) {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("must be like http://127.0.0.1:8080".into()),
    }
}
