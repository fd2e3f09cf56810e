//! The server's part of the opening handshake (RFC 6455 section 4.2).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Appended to the client's key before it is hashed (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`, or `None` if the key is not 16 bytes in base64.
pub fn accept_key(key: &[u8]) -> Option<String> {
    let nonce = STANDARD.decode(key).ok()?;
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    (nonce.len() == 16).then(|| STANDARD.encode(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_6455_section_1_3() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ==").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn a_key_is_16_bytes_in_base64() {
        for key in [&b""[..], b"c2hvcnQ=", b"not base64", b"\xff"] {
            assert_eq!(accept_key(key), None, "{key:?}");
        }
    }
}
