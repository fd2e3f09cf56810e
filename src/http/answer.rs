//! Responses: JSON, errors, and the few plain ones.

use crate::http::body::{Answer, BodyError};
use crate::model::refusal::Refusal;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// A response.
pub type Reply = Response<Answer>;

/// A body with its content type.
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

/// `{"error":{"code","message"}}`. What is refused, rather than failed, is marked as [`Refused`].
pub fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let reply = json(status, &json!({ "error": { "code": code, "message": message } }));
    match refusal(status, code) {
        // Its message may quote the body, which must not be in the log.
        Some(Refusal::Request) => refused(reply, Refusal::Request, format!("{code}; the answer says what is wrong")),
        Some(reason) => refused(reply, reason, message.to_owned()),
        None => reply,
    }
}

/// Why a body was not read; `limit` names the bound, like "256 KiB".
pub fn unread(problem: BodyError, limit: &str) -> Reply {
    let (status, message) = match problem {
        BodyError::TooBig => (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is over {limit}")),
        BodyError::Slow => (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".to_owned()),
        BodyError::Broken => (StatusCode::BAD_REQUEST, "the body broke off".to_owned()),
    };
    error(status, problem.code(), &message)
}

/// Marks a response as a refusal, which the connection counts and logs.
#[derive(Clone, Debug)]
pub struct Refused(pub Refusal, pub String);

/// A refusal, and its reason for the log.
pub fn refused(mut response: Reply, reason: Refusal, why: String) -> Reply {
    response.extensions_mut().insert(Refused(reason, why));
    response
}

/// A refusal that was counted and logged where it was decided.
pub fn noted(mut response: Reply) -> Reply {
    response.extensions_mut().remove::<Refused>();
    response
}

/// What an error answer refuses; `None` for a failure of the node, and for tokens, which are noted where they are
/// checked.
fn refusal(status: StatusCode, code: &str) -> Option<Refusal> {
    Some(match code {
        "origin_not_allowed" => Refusal::Origin,
        "publishing_disabled" | "unauthorized" | "session_ended" => Refusal::PublishKey,
        "cross_site" => Refusal::CrossSite,
        "too_many_sign_ins" => Refusal::SignIn,
        "too_many_connections" => Refusal::Connections,
        "bad_handshake" | "upgrade_required" => Refusal::Handshake,
        "bad_host" | "host_not_allowed" => Refusal::Host,
        "not_found" | "method_not_allowed" => Refusal::Path,
        "starting" | "draining" => Refusal::NotReady,
        "too_many_traces" | "payloads_disabled" => Refusal::Traces,
        "body_timeout" => Refusal::Incomplete,
        // Whoever asks for what has ended is not refused.
        "unknown_session" => return None,
        code if code.starts_with("token_") => return None,
        _ if status == StatusCode::PAYLOAD_TOO_LARGE => Refusal::Size,
        _ if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Refusal::Headers,
        _ if status.is_client_error() => Refusal::Request,
        _ => return None,
    })
}

/// A status without a body.
pub fn empty(status: StatusCode) -> Reply {
    let mut response = Response::new(Answer::full(""));
    *response.status_mut() = status;
    response
}

/// Refuses a client for now: the node is near `limits.memory`.
pub fn overloaded() -> Reply {
    let message = "this node is near `limits.memory`; try again, or another node";
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
    refused(response, Refusal::Memory, "a new connection; the node is near limits.memory".to_owned())
}

/// Marks a response as not to be stored.
pub fn no_store(mut response: Reply) -> Reply {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 405, with the allowed methods.
pub fn method_not_allowed(allowed: &'static str) -> Reply {
    let message = format!("this path takes {allowed}");
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message);
    response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static(allowed));
    response
}
