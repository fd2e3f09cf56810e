//! Clients with `socket.io-msgpack-parser` send each packet as one MessagePack map in a binary message. The handshake
//! does not show it. They are not supported: their CONNECT is recognized and refused in their own encoding, so that
//! they get a
//! `connect_error` with the reason instead of a connection that closes again and again.

use crate::protocol::msgpack;
use crate::protocol::socketio::MAX_NAMESPACE;
use crate::protocol::socketio_encode::Encoded;
use serde::Deserialize;

/// The message of the `connect_error`.
pub const REFUSAL: &str = "socket.io-msgpack-parser is not supported: leave out the client's `parser` option";
/// Its code.
pub const CODE: &str = "unsupported_parser";

const CONNECT: u8 = 0;
const CONNECT_ERROR: u8 = 4;

#[derive(Deserialize)]
struct Packet {
    #[serde(rename = "type")]
    kind: u8,
    nsp: String,
}

/// The namespace of a CONNECT packet; `None` for any other bytes.
pub fn connect(bytes: &[u8]) -> Option<String> {
    // A map of two keys (without `data`) or three, whose text is not much longer than its bytes.
    let small_map = matches!(bytes.first(), Some(0x82 | 0x83));
    let json = small_map.then(|| msgpack::to_json(bytes, bytes.len().saturating_mul(2)).ok())??;
    let Packet { kind, nsp } = serde_json::from_str(&json).ok()?;
    (kind == CONNECT && nsp.starts_with('/') && nsp.len() <= MAX_NAMESPACE).then_some(nsp)
}

/// Its CONNECT_ERROR: `{type:4,data:{message,data:{code}},nsp}`.
pub fn refusal(namespace: &str) -> Encoded {
    let mut out = vec![0x83];
    text(&mut out, "type");
    out.push(CONNECT_ERROR);
    text(&mut out, "data");
    out.push(0x82);
    text(&mut out, "message");
    text(&mut out, REFUSAL);
    text(&mut out, "data");
    out.push(0x81);
    text(&mut out, "code");
    text(&mut out, CODE);
    text(&mut out, "nsp");
    text(&mut out, namespace);
    Encoded::binary(out)
}

/// A text of less than 65,536 bytes.
fn text(out: &mut Vec<u8>, text: &str) {
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(length @ ..=31), _) => out.push(0xa0 | length),
        (Ok(length), _) => out.extend([0xd9, length]),
        (_, length) => {
            out.push(0xda);
            out.extend(length.unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex).unwrap()
    }

    #[test]
    fn connect_packets_of_the_parser_are_recognized() {
        let with_token = bytes("83a47479706500a46461746181a5746f6b656ea174a36e7370a12f");
        assert_eq!(connect(&with_token).as_deref(), Some("/"));
        let without = bytes("83a47479706500a464617461d40000a36e7370a52f64656e79");
        assert_eq!(connect(&without).as_deref(), Some("/deny"));
        for at in 0..with_token.len() {
            assert_eq!(connect(&with_token[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn whatever_else_is_binary_is_not() {
        for other in [
            "82a47479706501a36e7370a12f",
            "85a47479706502a46461746194a17801a2c3a9c4020102a76f7074696f6e7381a8636f6d7072657373c3a2696400a36e7370a12f",
            "82a47479706500a36e737001",
            "82a47479706500a36e7370a0",
            "82a474797065ff00a36e7370a12f",
            "00",
            "",
        ] {
            assert_eq!(connect(&bytes(other)), None, "{other}");
        }
        let long = [bytes("82a47479706500a36e7370da0101"), vec![b'/'; 257]].concat();
        assert_eq!(connect(&long), None, "a namespace that cannot be configured");
        assert_eq!(connect(&[vec![0x83], vec![0x91; 1 << 20]].concat()), None, "a bomb");
    }

    #[test]
    fn the_refusal_is_a_packet_that_the_parser_takes() {
        for namespace in ["/", "/chat", &"/x".repeat(100), &"/x".repeat(128)] {
            let packet = refusal(namespace);
            assert!(packet.text.is_empty());
            let json = msgpack::to_json(&packet.attachments[0], 4096).unwrap();
            assert_eq!(
                json,
                format!(
                    "{{\"type\":4,\"data\":{{\"message\":\"{REFUSAL}\",\"data\":{{\"code\":\"{CODE}\"}}}},\"nsp\":\"{namespace}\"}}"
                )
            );
        }
    }
}
