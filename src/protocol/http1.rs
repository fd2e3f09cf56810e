//! Requests of publishers as their HTTP libraries write them: `POST /publish HTTP/1.1` with one `Content-Length`, CRLF line
//! ends, and no header that changes how the message is framed. Sans-IO.
//!
//! This reader is strict and never repairs. Whatever it does not take ([`Read::Other`]) is left to a complete HTTP
//! implementation, untouched and from its first byte on. So two readings of one request cannot differ, which is what request
//! smuggling needs: `fuzz/fuzz_targets/http1.rs` compares it with httparse.

/// The only request line that is taken.
const REQUEST_LINE: &[u8] = b"POST /publish HTTP/1.1\r\n";
/// Bytes of a head; longer ones are left to others.
pub const MAX_HEAD: usize = 8 << 10;
/// Digits of a `Content-Length`; more than any limit of a body has.
const MAX_DIGITS: usize = 10;

/// What the bytes of a connection begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// The beginning of a head that may be taken once it is complete.
    Partial,
    /// A whole head. Its body follows.
    Head(Head<'a>),
    /// Something else, or something malformed.
    Other,
}

/// The head of a request to publish. Of the headers below, none is given twice.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head<'a> {
    /// Its bytes, with the empty line.
    pub len: usize,
    /// `Content-Length`: the bytes of the body.
    pub body: usize,
    /// Number of header lines.
    pub headers: usize,
    /// `Host`.
    pub host: Option<&'a [u8]>,
    /// `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// `traceparent`.
    pub traceparent: Option<&'a [u8]>,
    /// `tracestate`.
    pub tracestate: Option<&'a [u8]>,
    /// Whether it names the client that a proxy asks for.
    pub is_forwarded: bool,
}

/// Reads the head that `bytes` begin with.
pub fn read(bytes: &[u8]) -> Read<'_> {
    read_lines(bytes).unwrap_or(Read::Other)
}

/// `None`: it is not taken.
fn read_lines(bytes: &[u8]) -> Option<Read<'_>> {
    if bytes.len() < REQUEST_LINE.len() {
        return REQUEST_LINE.starts_with(bytes).then_some(Read::Partial);
    }
    let mut rest = bytes.strip_prefix(REQUEST_LINE)?;
    let (mut head, mut length) = (Head::default(), None);
    // Longer heads are not searched to their end.
    rest = &rest[..rest.len().min(MAX_HEAD - REQUEST_LINE.len())];
    let is_cut = rest.len() < bytes.len() - REQUEST_LINE.len();
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = rest[..end].strip_suffix(b"\r")?;
        rest = &rest[end + 1..];
        if line.is_empty() {
            head.len = REQUEST_LINE.len() + offset(bytes, rest);
            head.body = length?;
            return Some(Read::Head(head));
        }
        head.headers += 1;
        let (name, value) = split(line)?;
        note(&mut head, &mut length, name, value.trim_ascii())?;
    }
    (!is_cut && may_become_line(rest)).then_some(Read::Partial)
}

/// How far the remainder `rest` is behind the request line of `bytes`.
fn offset(bytes: &[u8], rest: &[u8]) -> usize {
    rest.as_ptr() as usize - bytes.as_ptr() as usize - REQUEST_LINE.len()
}

/// The name and the value of a header line. Line folding has no name.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    // Without an early end, so that the compiler reads many bytes at once.
    let has_control = value.iter().fold(false, |has, byte| has | !is_text(*byte));
    let is_valid = !name.is_empty() && name.iter().all(|byte| is_token(*byte)) && !has_control;
    is_valid.then_some((name, value))
}

/// Whether a line that has not ended yet is valid so far, so that a malformed one need not be complete to be noticed.
fn may_become_line(begun: &[u8]) -> bool {
    if begun == b"\r" {
        return true;
    }
    match memchr::memchr(b':', begun) {
        None => begun.iter().all(|byte| is_token(*byte)),
        Some(_) => split(begun.strip_suffix(b"\r").unwrap_or(begun)).is_some(),
    }
}

/// The bytes of names (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < table.len() {
        table[byte] = matches!(
            byte as u8,
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
                | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        byte += 1;
    }
    table
};

fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// A byte of a value (RFC 9110 section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Notes a header with a meaning here. `None`: it makes the request one that is not taken.
fn note<'a>(head: &mut Head<'a>, length: &mut Option<usize>, name: &[u8], value: &'a [u8]) -> Option<()> {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    match name.len() {
        4 if is(b"host") => once(&mut head.host, value),
        6 if is(b"expect") => None,
        7 if is(b"upgrade") => None,
        9 if is(b"forwarded") => {
            head.is_forwarded = true;
            Some(())
        }
        10 if is(b"connection") => value.eq_ignore_ascii_case(b"keep-alive").then_some(()),
        10 if is(b"tracestate") => once(&mut head.tracestate, value),
        11 if is(b"traceparent") => once(&mut head.traceparent, value),
        12 if is(b"content-type") => once(&mut head.content_type, value),
        13 if is(b"authorization") => once(&mut head.authorization, value),
        14 if is(b"content-length") => once(length, digits(value)?),
        15 if is(b"x-forwarded-for") => {
            head.is_forwarded = true;
            Some(())
        }
        17 if is(b"transfer-encoding") => None,
        _ => Some(()),
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// A plain decimal number: no sign, no list, no zero in front.
fn digits(text: &[u8]) -> Option<usize> {
    let is_plain = (1..=MAX_DIGITS).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let is_padded = text.len() > 1 && text[0] == b'0';
    (is_plain && !is_padded).then(|| text.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REQUEST: &str =
        "POST /publish HTTP/1.1\r\nHost: x\r\nauthorization:\t Bearer k \r\nContent-Length: 12\r\n\r\n";

    fn with(line: &str) -> String {
        REQUEST.replace("Host: x\r\n", &format!("Host: x\r\n{line}"))
    }

    fn head(text: &str) -> Option<Head<'_>> {
        match read(text.as_bytes()) {
            Read::Head(head) => Some(head),
            Read::Partial | Read::Other => None,
        }
    }

    #[test]
    fn a_head_is_read_and_what_follows_is_not() {
        let text = format!("{REQUEST}{{\"room\":1}}POST");
        let head = head(&text).unwrap();
        assert_eq!((head.len, head.body, head.headers), (REQUEST.len(), 12, 3));
        assert_eq!((head.host, head.authorization), (Some(&b"x"[..]), Some(&b"Bearer k"[..])));
        assert!(head.content_type.is_none() && !head.is_forwarded);
    }

    #[test]
    fn every_beginning_is_partial() {
        for end in 0..REQUEST.len() {
            assert_eq!(read(&REQUEST.as_bytes()[..end]), Read::Partial, "{end}");
        }
    }

    #[test]
    fn headers_with_a_meaning_are_noted() {
        let text = with(
            "Content-Type: application/x-ndjson\r\nTRACEPARENT: 00-a\r\ntracestate: b\r\nX-Forwarded-For: ::1\r\n",
        );
        let read = head(&text).unwrap();
        assert_eq!(read.content_type, Some(&b"application/x-ndjson"[..]));
        assert_eq!((read.traceparent, read.tracestate), (Some(&b"00-a"[..]), Some(&b"b"[..])));
        assert!(read.is_forwarded);
        for line in [
            "Connection: Keep-Alive\r\n",
            "Accept: */*\r\n",
            "X-Empty:\r\n",
            "X-Text: \u{e9}\t\r\n",
            "TE: trailers\r\n",
        ] {
            assert!(head(&with(line)).is_some(), "{line}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_taken() {
        for line in [
            "Content-Length: 12\r\n",
            "Content-Length: 3\r\n",
            "Transfer-Encoding: chunked\r\n",
            "transfer-encoding: identity\r\n",
            "Host: y\r\n",
            "Authorization: Bearer other\r\n",
            "Expect: 100-continue\r\n",
            "Upgrade: h2c\r\n",
            "Connection: close\r\n",
            "Connection: keep-alive, upgrade\r\n",
            "X: y\n",
            "X: y\r\n folded\r\n",
            "X : y\r\n",
            ": y\r\n",
            "X\r\n",
            "X: a\0b\r\n",
            "X: a\rb\r\n",
            "X: a\u{7f}\r\n",
            "X\u{e9}: a\r\n",
            "\n",
        ] {
            assert_eq!(read(with(line).as_bytes()), Read::Other, "{line:?}");
        }
        for length in ["", "+12", "-1", "0x1", "12, 12", "12 12", "012", "99999999999", "1e1", "12;"] {
            assert_eq!(read(REQUEST.replace("12", length).as_bytes()), Read::Other, "{length:?}");
        }
        assert_eq!(read(REQUEST.replace("Content-Length: 12\r\n", "").as_bytes()), Read::Other);
    }

    #[test]
    fn other_requests_are_noticed_by_their_first_bytes() {
        for text in [
            "G",
            "POST /publish?",
            "POST /publish HTTP/1.0",
            "POST /publish HTTP/1.1\n",
            "POST  /publish",
            "POST http://x/publish",
            "post /publish",
            "\r\nPOST",
            "POST /publishes",
            "PRI * HTTP/2.0",
            "\u{16}\u{3}",
        ] {
            assert_eq!(read(text.as_bytes()), Read::Other, "{text:?}");
        }
        for line in ["bad header", "X: a\0", "X: a\rb", " folded", "X \u{e9}", "X\r"] {
            let text = format!("POST /publish HTTP/1.1\r\nHost: x\r\n{line}");
            assert_eq!(read(text.as_bytes()), Read::Other, "{line:?}");
        }
    }

    #[test]
    fn a_long_head_is_not_taken() {
        let long = |bytes: usize| with(&format!("X: {}\r\n", "y".repeat(bytes - REQUEST.len() - 5)));
        assert_eq!(long(MAX_HEAD).len(), MAX_HEAD);
        assert!(head(&long(MAX_HEAD)).is_some());
        assert_eq!(read(long(MAX_HEAD + 1).as_bytes()), Read::Other);
        assert_eq!(read(&long(2 * MAX_HEAD).as_bytes()[..MAX_HEAD]), Read::Partial);
        assert_eq!(read(&long(2 * MAX_HEAD).as_bytes()[..=MAX_HEAD]), Read::Other);
    }

    /// What httparse reads, as far as it is the same request: its length, its number of headers, and the values of a header.
    fn with_httparse(bytes: &[u8]) -> httparse::Result<(usize, usize, Vec<Vec<u8>>)> {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => {
                let lengths =
                    request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("content-length"));
                let lengths = lengths.map(|header| header.value.to_vec()).collect();
                assert_eq!((request.method, request.version), (Some("POST"), Some(1)));
                Ok(httparse::Status::Complete((len, request.headers.len(), lengths)))
            }
            Ok(httparse::Status::Partial) => Ok(httparse::Status::Partial),
            Err(error) => Err(error),
        }
    }

    proptest! {
        /// What is taken, hyper's parser reads in the same way; what is awaited, it awaits too.
        #[test]
        fn hyper_reads_the_same(noise in "[ -~\\r\\n\\t\u{0}\u{e9}]{0,12}", at in 0usize..160, end in 0usize..160) {
            let mut text = with("X: y\r\nConnection: keep-alive\r\n");
            text.insert_str(at.min(text.len()), &noise);
            let bytes = &text.as_bytes()[..end.max(24).min(text.len())];
            match read(bytes) {
                Read::Other => {}
                Read::Partial => prop_assert_eq!(with_httparse(bytes), Ok(httparse::Status::Partial)),
                Read::Head(head) => {
                    let lengths = vec![head.body.to_string().into_bytes()];
                    let whole = httparse::Status::Complete((head.len, head.headers, lengths));
                    prop_assert_eq!(with_httparse(bytes), Ok(whole));
                }
            }
        }

        /// A head that is read stays the same whatever comes after it, and no beginning of it is refused.
        #[test]
        fn readings_do_not_depend_on_how_bytes_arrive(noise in "[ -~\\r\\n\\t]{0,60}", at in 24usize..80, end in 0usize..160) {
            let mut text = REQUEST.to_owned();
            text.insert_str(at.min(text.len()), &noise);
            let whole = read(text.as_bytes());
            let begun = read(&text.as_bytes()[..end.min(text.len())]);
            match begun {
                Read::Partial => {}
                begun => prop_assert_eq!(begun, whole),
            }
        }
    }
}
