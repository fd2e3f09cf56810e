//! `/console`: the page that operators open, and its sessions. The page calls the admin API with a cookie in place of a key.
//!
//! `page` has the files, `session` what the cookie says, `cookie` how it travels and `cross_site` who may send it.

mod cookie;
mod cross_site;
mod page;
mod session;

use crate::auth::revocations::Revoked;
use crate::http::Api;
use crate::http::answer::{Reply, error, json, method_not_allowed, no_store, unread};
use crate::http::body;
use crate::http::caller::Caller;
use crate::http::keys;
use crate::model::clock::unix_ms;
use crate::model::millis::{Millis, whole_millis};
use crate::node::presence::rfc3339;
use crate::node::revocation::revoke;
use crate::protocol::json_object;
use crate::protocol::json_text::Text;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, LOCATION, ORIGIN, RETRY_AFTER, SET_COOKIE};
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use session::Session;
use std::time::Duration;

/// Bytes of a sign-in's body.
const MAX_BODY: usize = 4 << 10;

/// Whether this path is the console's.
pub fn is_console(api: &Api, path: &str) -> bool {
    api.console.enabled && (path == "/console" || path.starts_with("/console/"))
}

/// The page, its files, and its session.
pub async fn serve(api: &Api, request: Request<Incoming>, caller: &Caller) -> Reply {
    let get = request.method() == Method::GET || request.method() == Method::HEAD;
    let reply = match request.uri().path() {
        "/console/session" if get => state(api, request.headers()).await,
        "/console/session" if request.method() == Method::POST => sign_in(api, request, caller).await,
        "/console/session" if request.method() == Method::DELETE => sign_out(api, request.headers()).await,
        "/console/session" => method_not_allowed("GET, HEAD, POST, DELETE"),
        _ if !get => method_not_allowed("GET, HEAD"),
        // The page names its files relative to its own path, so that a proxy may serve it below another one.
        "/console/" => moved("../console"),
        path => match page::file(path, request.headers()) {
            Some(file) => return file,
            None => error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"),
        },
    };
    no_store(reply)
}

fn moved(to: &'static str) -> Reply {
    let mut reply = error(StatusCode::PERMANENT_REDIRECT, "moved", "the console is at /console");
    reply.headers_mut().insert(LOCATION, HeaderValue::from_static(to));
    reply
}

/// Whether a request has a cookie of the console, be it a good one.
pub fn has_cookie(api: &Api, headers: &HeaderMap) -> bool {
    api.console.enabled && !api.settings().publish.keys.is_empty() && cookie::given(headers).next().is_some()
}

/// Checks that a request with the cookie comes from the console, and that its session goes on; `changes`: the request does
/// more than to look. The answer is what names the session in the log.
///
/// # Errors
/// The response: 403 if another page may have sent it, 401 if the session is over.
pub async fn check(api: &Api, headers: &HeaderMap, changes: bool) -> Result<String, Box<Reply>> {
    if let Err(foreign) = cross_site::check(headers, changes) {
        return Err(Box::new(error(StatusCode::FORBIDDEN, "cross_site", foreign.message())));
    }
    match session_of(api, headers).await {
        Some(session) => Ok(session.id.chars().take(6).collect()),
        None => Err(Box::new(error(StatusCode::UNAUTHORIZED, "session_ended", "sign in to the console again"))),
    }
}

/// Whether the session of the cookie goes on.
pub async fn is_signed_in(api: &Api, headers: &HeaderMap) -> bool {
    session_of(api, headers).await.is_some()
}

/// The session of the cookie.
async fn session_of(api: &Api, headers: &HeaderMap) -> Option<Session> {
    let now_ms = unix_ms();
    let read = |text| Session::read(text, &api.settings().publish.keys, now_ms / 1000);
    let session = cookie::given(headers).find_map(read)?;
    // A node that has just started does not know yet who has signed out.
    let is_known = api.node.revocations_read.known().await;
    let is_over = api.node.auth.revocations().refuses_token(&session.revoked_name(), now_ms);
    (is_known && !is_over).then_some(session)
}

async fn state(api: &Api, headers: &HeaderMap) -> Reply {
    let session = session_of(api, headers).await;
    let expires = session.as_ref().map(|session| rfc3339(session.expires * 1000));
    json(StatusCode::OK, &json!({ "signed_in": session.is_some(), "expires": expires }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Fields {
    key: Text,
}

/// Takes a key, and answers with the cookie.
async fn sign_in(api: &Api, request: Request<Incoming>, caller: &Caller) -> Reply {
    if let Err(foreign) = cross_site::check(request.headers(), true) {
        return error(StatusCode::FORBIDDEN, "cross_site", foreign.message());
    }
    let now = Millis::new(whole_millis(api.started.elapsed()));
    if let Err(wait) = api.sign_ins.take(caller.client(), now) {
        let message = "too many keys were tried from this address (`console.sign_ins_per_minute`); wait a little";
        let mut reply = error(StatusCode::TOO_MANY_REQUESTS, "too_many_sign_ins", message);
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        return reply;
    }
    let secure = request.headers().get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let body = match body::read(request, MAX_BODY).await {
        Ok(body) => body,
        Err(problem) => return unread(problem, "4 KiB"),
    };
    let Ok(Fields { key: Text(given) }) = json_object::read(&body) else {
        return error(StatusCode::BAD_REQUEST, "bad_json", "send {\"key\":\"…\"}");
    };
    let settings = api.settings();
    let key = match keys::matching(&given, &settings.publish.keys) {
        Some(key) => key,
        None if settings.publish.keys.is_empty() => return keys::none_configured(),
        None => {
            return error(StatusCode::UNAUTHORIZED, "unauthorized", "this is not one of `publish.keys`");
        }
    };
    caller.socket.prove();
    let ttl = api.console.session_ttl;
    let session = Session::new(unix_ms() / 1000 + ttl.as_secs());
    tracing::info!(client = %caller.client(), session = &session.id[..6], "an operator signed in to the console");
    let body = json!({ "signed_in": true, "expires": rfc3339(session.expires * 1000) });
    with_cookies(json(StatusCode::OK, &body), [cookie::set(&session.sign(key), ttl, secure)])
}

/// Ends the session on every node, and has the browser forget its cookie.
async fn sign_out(api: &Api, headers: &HeaderMap) -> Reply {
    if let Err(foreign) = cross_site::check(headers, true) {
        return error(StatusCode::FORBIDDEN, "cross_site", foreign.message());
    }
    let reply = match session_of(api, headers).await {
        Some(session) => {
            let lasts = Duration::from_secs(session.expires.saturating_sub(unix_ms() / 1000) + 1);
            match revoke(&api.node, Revoked::Token(session.revoked_name().into()), lasts).await {
                Ok(_) => json(StatusCode::OK, &json!({ "signed_in": false })),
                Err(problem) => {
                    let message =
                        format!("this browser is signed out, but a copy of its cookie would go on: {problem}");
                    error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &message)
                }
            }
        }
        None => json(StatusCode::OK, &json!({ "signed_in": false })),
    };
    with_cookies(reply, cookie::remove())
}

fn with_cookies<const N: usize>(mut reply: Reply, cookies: [String; N]) -> Reply {
    for cookie in cookies {
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            reply.headers_mut().append(SET_COOKIE, cookie);
        }
    }
    reply
}
