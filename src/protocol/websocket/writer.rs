//! Frames from the server: never masked, never fragmented.

use crate::protocol::websocket::Opcode;
use bytes::Bytes;

const FIN: u8 = 0x80;
/// Longest payload of a control frame (RFC 6455 section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// The length of the header that [`push_header`] writes.
pub fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Appends the header of an unmasked, final frame. The payload of that length must follow.
pub fn push_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    out.push(FIN | opcode as u8);
    match (u8::try_from(payload_len), u16::try_from(payload_len)) {
        (Ok(short @ 0..=125), _) => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
}

/// Appends a complete unmasked frame.
pub fn push_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(header_len(payload.len()) + payload.len());
    push_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(header_len(payload.len()) + payload.len());
    push_frame(&mut out, opcode, payload);
    out.into()
}

/// A complete text frame.
pub fn text_frame(text: &str) -> Bytes {
    frame(Opcode::Text, text.as_bytes())
}

/// A complete binary frame.
pub fn binary_frame(payload: &[u8]) -> Bytes {
    frame(Opcode::Binary, payload)
}

/// The answer to a ping. A payload over 125 bytes is cut; no ping has one.
pub fn pong_frame(payload: &[u8]) -> Bytes {
    frame(Opcode::Pong, &payload[..payload.len().min(MAX_CONTROL)])
}

/// A close frame. Codes that must not be on the wire (1004, 1005, 1006, 1015: RFC 6455 section 7.4.1) and codes below
/// 1000 become a frame without a code. A reason needs a code, and is cut at a character boundary.
pub fn close_frame(code: Option<u16>, reason: &str) -> Bytes {
    let Some(code) = code.filter(|code| *code >= 1000 && !matches!(code, 1004..=1006 | 1015)) else {
        return frame(Opcode::Close, &[]);
    };
    let mut payload = code.to_be_bytes().to_vec();
    let fits = (0..=reason.len().min(MAX_CONTROL - 2)).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    payload.extend_from_slice(&reason.as_bytes()[..fits]);
    frame(Opcode::Close, &payload)
}
