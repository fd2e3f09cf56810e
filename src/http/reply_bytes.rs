//! Answers as bytes on the wire, as hyper writes them.

use crate::http::answer::Reply;
use crate::http::body::Answer;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::body::{Body as _, Bytes};
use std::cell::RefCell;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The text of the `Date` header, which changes once a second.
struct Date {
    text: String,
    until: Instant,
}

thread_local! {
    static DATE: RefCell<Option<Date>> = const { RefCell::new(None) };
}

/// Runs `act` with the date.
fn with_date<T>(now: Instant, act: impl FnOnce(&str) -> T) -> T {
    DATE.with_borrow_mut(|date| {
        if date.as_ref().is_none_or(|date| now >= date.until) {
            let wall = SystemTime::now();
            let into_second = wall.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
            let left = Duration::from_secs(1) - Duration::from_nanos(into_second.into());
            *date = Some(Date { text: httpdate::fmt_http_date(wall), until: now + left });
        }
        act(date.as_ref().map_or("", |date| &date.text))
    })
}

/// Adds a 200 with a JSON body.
pub(super) fn push_ok(out: &mut Vec<u8>, body: &[u8], now: Instant) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n");
    push_end(out, body, now);
}

/// Adds an answer whose body is there as a whole; streams have an empty body here.
pub(super) fn push(out: &mut Vec<u8>, reply: Reply, now: Instant) {
    let (parts, body) = reply.into_parts();
    push_status(out, parts.status);
    for (name, value) in &parts.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let body = match body {
        Answer::Full(full) => bytes_of(full),
        Answer::Sse(_) | Answer::Text(_) => Bytes::new(),
    };
    push_end(out, &body, now);
}

fn push_status(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("<none>").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_end(out: &mut Vec<u8>, body: &[u8], now: Instant) {
    // Writing to a `Vec` does not fail.
    let _ = write!(out, "content-length: {}\r\ndate: ", body.len());
    with_date(now, |date| out.extend_from_slice(date.as_bytes()));
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// The bytes of a body that does not wait for anything.
fn bytes_of(mut full: Full<Bytes>) -> Bytes {
    match Pin::new(&mut full).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        _ => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::answer::{error, method_not_allowed};

    fn written(reply: Reply) -> String {
        let mut out = Vec::new();
        push(&mut out, reply, Instant::now());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_has_its_headers_length_and_date() {
        let text = written(error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_big", "é"));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, r#"{"error":{"code":"body_too_big","message":"é"}}"#);
        let lines: Vec<_> = head.split("\r\n").collect();
        let length = format!("content-length: {}", body.len());
        assert_eq!(lines[..3], ["HTTP/1.1 413 Payload Too Large", "content-type: application/json", &length]);
        let date = lines[3].strip_prefix("date: ").unwrap();
        let age = SystemTime::now().duration_since(httpdate::parse_http_date(date).unwrap()).unwrap();
        assert!(lines.len() == 4 && age < Duration::from_secs(60), "{date}");
        assert!(written(method_not_allowed("POST")).contains("\r\nallow: POST\r\n"));
    }

    #[test]
    fn a_200_is_written_like_any_other_answer() {
        let (now, mut out) = (Instant::now(), Vec::new());
        push_ok(&mut out, b"{}", now);
        let mut other = Vec::new();
        push(&mut other, crate::http::answer::typed(StatusCode::OK, "application/json", "{}"), now);
        assert_eq!(out, other);
    }

    #[test]
    fn the_date_goes_on() {
        let now = Instant::now();
        let first = with_date(now, str::to_owned);
        DATE.with_borrow_mut(|date| date.as_mut().unwrap().text.clear());
        assert_eq!(with_date(now, str::to_owned), "");
        let second = with_date(now + Duration::from_secs(1), str::to_owned);
        assert_eq!(first.len(), second.len());
    }
}
