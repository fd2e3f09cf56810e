//! Who may use the admin API: whoever has a key, and the console with its cookie.

use crate::http::Api;
use crate::http::answer::Reply;
use crate::http::caller::Caller;
use crate::http::{console, keys};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap};

/// Checks a request before its body is read. What the console changes is logged.
///
/// # Errors
/// The response: 401 or 403.
pub async fn check(api: &Api, caller: &Caller, request: &Request<Incoming>) -> Result<(), Box<Reply>> {
    let headers = request.headers();
    if !is_by_cookie(api, headers) {
        return keys::check(headers, &api.settings().keys);
    }
    let changes = !request.method().is_safe();
    let session = console::check(api, headers, changes).await?;
    caller.socket.prove();
    if changes {
        let path = request.uri().path();
        tracing::info!(client = %caller.client(), session, path, "an operator used the console");
    }
    Ok(())
}

/// Whether what a request was let in with still holds: keys may be replaced, and an operator may sign out.
pub async fn still_holds(api: &Api, headers: &HeaderMap) -> bool {
    match is_by_cookie(api, headers) {
        true => console::is_signed_in(api, headers).await,
        false => keys::has(headers, &api.settings().keys),
    }
}

fn is_by_cookie(api: &Api, headers: &HeaderMap) -> bool {
    !headers.contains_key(AUTHORIZATION) && console::has_cookie(api, headers)
}
