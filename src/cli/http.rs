//! One request to a running node.

use crate::https::{HttpClient, HttpError, Pool, Server};
use crate::model::secret::Secret;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A node that takes longer is unhealthy.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A stream in which nothing comes for so long is broken: every 15 s there is a comment at least.
const SILENCE: Duration = Duration::from_secs(45);

/// No answer to a command is longer: a session in detail, with 100,000 rooms of the longest names, has about 20 MB.
const MAX_ANSWER: usize = 32 << 20;

const MUST_BE: &str = "must be like http://127.0.0.1:8080 or unix:/run/roomcast.sock";

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

/// Reads Server-Sent Events as they come, and calls `each` with their data, until the stream ends or `each` says so with
/// `false`. The status, and the body of an answer that is no stream.
pub(super) async fn follow(
    question: Question<'_>,
    mut each: impl FnMut(&str) -> bool,
) -> Result<(StatusCode, String), String> {
    let (client, request) = prepare(question).await?;
    let late = |_| format!("no answer within {TIMEOUT:?}");
    let response = tokio::time::timeout(TIMEOUT, client.open(request)).await.map_err(late)?;
    let (head, mut body) = response.map_err(|error| unanswered(&error))?.into_parts();
    let is_stream = head.status == StatusCode::OK;
    let mut unread = Vec::new();
    loop {
        let late = |_| format!("the stream broke: nothing came for {SILENCE:?}");
        let frame = tokio::time::timeout(SILENCE, body.frame()).await.map_err(late)?;
        let Some(frame) = frame else { break };
        let broken = |error| format!("the stream broke, because the node stopped or the connection was cut: {error}");
        unread.extend_from_slice(frame.map_err(broken)?.data_ref().map_or(&[][..], |data| data));
        if unread.len() > MAX_ANSWER {
            return Err(format!("the node's answer is longer than {MAX_ANSWER} bytes"));
        }
        while is_stream && let Some(end) = unread.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = unread.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&block);
            if let Some(data) = text.strip_prefix("data: ")
                && !each(data.trim_end())
            {
                return Ok((head.status, String::new()));
            }
        }
    }
    Ok((head.status, String::from_utf8_lossy(&unread).into_owned()))
}

async fn send(question: Question<'_>) -> Result<(StatusCode, String), String> {
    let (client, request) = prepare(question).await?;
    let response = client.send(request).await.map_err(|error| unanswered(&error))?;
    Ok((response.status(), String::from_utf8_lossy(response.body()).into_owned()))
}

/// Why there is no answer, and what to do.
fn unanswered(error: &HttpError) -> String {
    match error {
        HttpError::Connect(why) => format!("{why}; start the node there, or name another with --url"),
        error => error.to_string(),
    }
}

async fn prepare(question: Question<'_>) -> Result<(HttpClient, Request<Full<Bytes>>), String> {
    let (socket, url) = match question.url.strip_prefix("unix:").and_then(|url| url.split_once(":/")) {
        Some((socket, path)) => (Some(PathBuf::from(socket)), format!("http://localhost/{path}")),
        None => (None, question.url),
    };
    let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
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
    let to = match (socket, uri.host()) {
        (Some(socket), _) => Server::Socket(socket),
        // Without a key, nothing is lost to a server that only poses as the node.
        (None, Some(host)) if question.key.is_none() || is_this_machine(host) => Server::OwnNode,
        _ => Server::Checked,
    };
    let client = HttpClient::load_for(to, uri, Pool::NONE, MAX_ANSWER).await.map_err(|error| error.to_string())?;
    Ok((client, request))
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// A base URL, without a final slash. That of a Unix socket ends in a colon, behind which the path comes.
pub(super) fn base_url(text: &str) -> Result<String, String> {
    if let Some(socket) = text.strip_prefix("unix:") {
        let is_path = socket.starts_with('/') && !socket.contains(":/");
        return if is_path { Ok(format!("{}:", text.trim_end_matches(':'))) } else { Err(MUST_BE.into()) };
    }
    let uri: Option<Uri> = text.parse().ok();
    match uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()) {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err(MUST_BE.into()),
    }
}
