//! The header of HAProxy's PROXY protocol, versions 1 and 2 (sans-IO): what a proxy writes before the bytes of its client, so
//! that the server knows the client's address. <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>
//!
//! ```
//! use roomcast::protocol::proxy_header::{ProxyHeader, parse};
//!
//! let header = parse(b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\nGET / HTTP/1.1\r\n");
//! assert_eq!(header, Ok(Some(ProxyHeader { source: "203.0.113.7".parse().ok(), length: 41 })));
//! assert_eq!(parse(b"PROXY TCP4 203."), Ok(None));
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a header. One of version 1 is at most 107 long; one of version 2 has what the proxy adds, such as the name of a
/// client's certificate.
pub const MAX_HEADER: usize = 4 << 10;

const MAX_LINE: usize = 107;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, and the length of the rest.
const FIXED: usize = 16;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address; `None`: the connection is the proxy's own, or the client has no TCP address.
    pub source: Option<IpAddr>,
    /// Bytes of the header. What follows is the client's.
    pub length: usize,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The first bytes are others.
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Missing,
    /// It begins like one, and goes on otherwise.
    #[error("the header of the PROXY protocol is malformed")]
    Malformed,
    /// It is too long.
    #[error("the header of the PROXY protocol has more than {MAX_HEADER} bytes")]
    TooLong,
}

/// Reads the header at the beginning of a connection; `None`: more bytes are needed.
///
/// # Errors
/// When no header can come of these bytes.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => line(bytes),
        Some(_) => binary(bytes),
    }
}

/// Whether `bytes` begin with `start`, as far as they go.
fn begin_with(bytes: &[u8], start: &[u8]) -> Result<(), ProxyHeaderError> {
    let both = bytes.len().min(start.len());
    if bytes[..both] == start[..both] { Ok(()) } else { Err(ProxyHeaderError::Missing) }
}

/// Version 1: `PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n`.
fn line(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    begin_with(bytes, b"PROXY ")?;
    let within = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if within.len() == MAX_LINE { Err(ProxyHeaderError::Malformed) } else { Ok(None) };
    };
    let line = str::from_utf8(&bytes[..end]).map_err(|_| ProxyHeaderError::Malformed)?;
    let mut words = line.split(' ').skip(1);
    let mut next = || words.next().unwrap_or_default();
    let source = match next() {
        // Whatever follows is to be ignored.
        "UNKNOWN" => None,
        family @ ("TCP4" | "TCP6") => {
            let (source, destination, ports) = (next(), next(), [next(), next()]);
            let is_whole = ports.iter().all(|port| is_port(port)) && words.next().is_none();
            let read = |text| if family == "TCP4" { ipv4(text) } else { ipv6(text) };
            let (source, _) = read(source).zip(read(destination)).ok_or(ProxyHeaderError::Malformed)?;
            Some(is_whole.then_some(source).ok_or(ProxyHeaderError::Malformed)?)
        }
        _ => return Err(ProxyHeaderError::Malformed),
    };
    Ok(Some(ProxyHeader { source, length: end + 2 }))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn ipv4(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(IpAddr::V4)
}

fn ipv6(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(IpAddr::V6)
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    begin_with(bytes, SIGNATURE)?;
    let Some(&[kind, family, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else { return Ok(None) };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER {
        return Err(ProxyHeaderError::TooLong);
    }
    let is_proxied = match kind {
        // LOCAL: the proxy's own connection, such as a health check.
        0x20 => false,
        0x21 => true,
        _ => return Err(ProxyHeaderError::Malformed),
    };
    let Some(rest) = bytes.get(FIXED..length) else { return Ok(None) };
    let source = match family {
        _ if !is_proxied => None,
        // TCP. The addresses of source and destination come first, then their ports; extensions follow.
        0x11 => Some(Ipv4Addr::from(addresses::<4>(rest, 12)?).into()),
        0x21 => Some(Ipv6Addr::from(addresses::<16>(rest, 36)?).into()),
        // Unix sockets, UDP, and what is not specified: there is no address that limits could count.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(ProxyHeaderError::Malformed),
    };
    Ok(Some(ProxyHeader { source, length }))
}

/// The first address of a part that has `least` bytes.
fn addresses<const N: usize>(rest: &[u8], least: usize) -> Result<[u8; N], ProxyHeaderError> {
    let whole = rest.get(..least).and_then(|part| part.first_chunk());
    whole.copied().ok_or(ProxyHeaderError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(kind: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[kind, family], &length, rest].concat()
    }

    fn source(bytes: &[u8]) -> Result<Option<String>, ProxyHeaderError> {
        let whole = parse(bytes)?.expect("a whole header");
        assert_eq!(whole.length, bytes.len());
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "the first {cut} bytes");
        }
        let more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&more), Ok(Some(whole)), "what follows is the client's");
        Ok(whole.source.map(|address| address.to_string()))
    }

    fn named(address: &str) -> Result<Option<String>, ProxyHeaderError> {
        Ok(Some(address.to_owned()))
    }

    #[test]
    fn version_1_is_a_line() {
        assert_eq!(source(b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n"), named("203.0.113.7"));
        assert_eq!(source(b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n"), named("2001:db8::7"));
        assert_eq!(source(b"PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(source(b"PROXY UNKNOWN ffff::1 whatever\r\n"), Ok(None));
    }

    #[test]
    fn version_2_is_binary() {
        let ipv4 = [203, 0, 113, 7, 10, 0, 0, 1, 18, 103, 0, 80];
        assert_eq!(source(&v2(0x21, 0x11, &ipv4)), named("203.0.113.7"));
        let ipv6 = ["2001:db8::7", "::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).concat();
        let extensions = b"\x04\x00\x03abc";
        assert_eq!(source(&v2(0x21, 0x21, &[&ipv6[..], &[0; 4]].concat())), named("2001:db8::7"));
        assert_eq!(source(&v2(0x21, 0x11, &[&ipv4[..], extensions].concat())), named("203.0.113.7"));
        assert_eq!(source(&v2(0x20, 0x00, b"")), Ok(None), "LOCAL");
        assert_eq!(source(&v2(0x20, 0x11, &ipv4)), Ok(None), "LOCAL with an address, which is to be ignored");
        assert_eq!(source(&v2(0x21, 0x31, &[0; 216])), Ok(None), "a Unix socket");
    }

    #[test]
    fn what_is_no_header_is_known_at_once() {
        for bytes in
            [&b"G"[..], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"\x16\x03\x01", b"\r\n\r\n\0\r\nQUIX"]
        {
            assert_eq!(parse(bytes), Err(ProxyHeaderError::Missing), "{bytes:?}");
        }
    }

    #[test]
    fn malformed_and_endless_headers_are_refused() {
        let lines = [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711 80 1\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711 65536\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 +4711 80\r\n",
            "PROXY TCP4  10.0.0.1 4711 80\r\n",
            "PROXY TCP4 2001:db8::7 ::1 4711 80\r\n",
            "PROXY TCP6 203.0.113.7 10.0.0.1 4711 80\r\n",
            "PROXY UDP4 203.0.113.7 10.0.0.1 4711 80\r\n",
        ];
        for line in lines {
            assert_eq!(parse(line.as_bytes()), Err(ProxyHeaderError::Malformed), "{line}");
        }
        let endless = [b"PROXY TCP4 ", &[b'1'; 200][..]].concat();
        assert_eq!(parse(&endless), Err(ProxyHeaderError::Malformed));
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 11])), Err(ProxyHeaderError::Malformed), "half an address");
        assert_eq!(parse(&v2(0x11, 0x11, &[0; 12])), Err(ProxyHeaderError::Malformed), "version 1");
        assert_eq!(parse(&v2(0x22, 0x11, &[0; 12])), Err(ProxyHeaderError::Malformed), "an unknown command");
        assert_eq!(parse(&v2(0x21, 0x41, &[0; 12])), Err(ProxyHeaderError::Malformed), "an unknown family");
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 5000])[..FIXED]), Err(ProxyHeaderError::TooLong));
    }
}
