//! Responses: JSON, errors, and the few plain ones.

use crate::http::body::Answer;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// A response of ours.
pub type Reply = Response<Answer>;

/// A body with its type.
pub fn typed(status: StatusCode, content_type: &'static str, body: impl Into<bytes::Bytes>) -> Reply {
    let mut response = Response::new(Answer::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON body.
pub fn json(status: StatusCode, body: &Value) -> Reply {
    typed(status, "application/json", body.to_string())
}

/// `{"error":{"code","message"}}`.
pub fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    json(status, &json!({ "error": { "code": code, "message": message } }))
}

/// A status and nothing else.
pub fn empty(status: StatusCode) -> Reply {
    let mut response = Response::new(Answer::full(""));
    *response.status_mut() = status;
    response
}

/// Marks a response as not to be stored.
pub fn no_store(mut response: Reply) -> Reply {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 405, with what is allowed.
pub fn method_not_allowed(allowed: &'static str) -> Reply {
    let message = format!("this path takes {allowed}");
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message);
    response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static(allowed));
    response
}
