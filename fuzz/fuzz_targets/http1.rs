//! Requests of publishers: what is taken, hyper's parser reads in the same way; what is awaited, it awaits too; and nothing
//! depends on how the bytes arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::protocol::http1::{MAX_HEAD, Read, read};

fuzz_target!(|bytes: &[u8]| {
    let mut headers = [httparse::EMPTY_HEADER; 4_096];
    let mut request = httparse::Request::new(&mut headers);
    let other = request.parse(bytes);
    match read(bytes) {
        Read::Head(head) => {
            assert_eq!(other, Ok(httparse::Status::Complete(head.len)));
            assert_eq!((request.method, request.path, request.version), (Some("POST"), Some("/publish"), Some(1)));
            assert!(head.len <= MAX_HEAD && head.headers == request.headers.len());
            let all = |name: &str| -> Vec<&[u8]> {
                request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value).collect()
            };
            let length: usize = std::str::from_utf8(all("content-length")[0]).unwrap().parse().unwrap();
            assert_eq!((all("content-length").len(), length), (1, head.body));
            for name in ["transfer-encoding", "expect", "upgrade"] {
                assert!(all(name).is_empty(), "{name}");
            }
            for (name, value) in [
                ("host", head.host),
                ("authorization", head.authorization),
                ("content-type", head.content_type),
                ("traceparent", head.traceparent),
                ("tracestate", head.tracestate),
            ] {
                assert_eq!(all(name), value.into_iter().collect::<Vec<_>>(), "{name}");
            }
            let is_forwarded = !all("forwarded").is_empty() || !all("x-forwarded-for").is_empty();
            assert_eq!(is_forwarded, head.is_forwarded);
            for end in [1, head.len / 2, head.len - 1] {
                assert_eq!(read(&bytes[..end]), Read::Partial);
            }
            assert_eq!(read(&bytes[..head.len]), read(bytes));
        }
        Read::Partial => assert_eq!(other, Ok(httparse::Status::Partial)),
        Read::Other => assert_eq!(read(&[bytes, b"\r\n\r\n"].concat()), Read::Other),
    }
});
