//! How much of a request's head is read.

use crate::http::answer::{Reply, error};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Request, StatusCode};

/// Bytes of a request's head: a token of 8 KB in the URL and ordinary headers fit.
pub(super) const MAX_HEAD: usize = 32 << 10;
/// What hyper reads, which answers more than that by itself. It is more than the limits, so that our own answer, which
/// browsers may read, comes first.
pub(super) const READ_HEAD: usize = 2 * MAX_HEAD;
/// The same for the number of headers.
pub(super) const READ_HEADERS: usize = 1_024;

/// The answer to a request with a head over the limits; the connection ends with it.
pub(super) fn refuse(request: &Request<Incoming>, max_headers: usize) -> Option<Reply> {
    let headers = request.headers();
    if headers.len() > max_headers {
        let message = format!("the request has {} headers; `limits.headers` allows {max_headers}", headers.len());
        return Some(too_large("too_many_headers", &message));
    }
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    // `name: value` and a line break.
    let bytes = target + headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    (bytes > MAX_HEAD).then(|| {
        let message = format!("the request's head has {bytes} bytes; at most {MAX_HEAD} are taken");
        too_large("head_too_long", &message)
    })
}

fn too_large(code: &str, message: &str) -> Reply {
    let mut reply = error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, code, message);
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}
