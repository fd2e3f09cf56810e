//! The client's side of WebSocket, as little of it as the benches need: servers do not mask.

/// Bytes of one frame from the server: its opcode and payload, and how long it is in all; `None` if it is not all here.
pub(crate) fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (header, length) = match *bytes {
        [_, length @ 0..126, ..] => (2, usize::from(length)),
        [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize),
        _ => return None,
    };
    assert!(bytes[0] & 0xf0 == 0x80, "fragments and extensions were not agreed on: {:#x}", bytes[0]);
    let payload = bytes.get(header..header + length)?;
    Some((bytes[0] & 0x0f, payload, header + length))
}

/// An unmasked text frame, as a server writes it.
pub(crate) fn server_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length => frame.extend([126, (length >> 8) as u8, length as u8]),
    }
    frame.extend(payload);
    frame
}

/// A client's frame. Its masking key is zero, which is a key like any other and leaves the payload as it is.
pub(crate) fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => frame.extend([0x80 | 126, (length >> 8) as u8, length as u8]),
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The payload of a client's frame at the start, and how long the frame is; `None` if it is not all here. The masks of
/// clients here are zero.
pub(crate) fn client_payload(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (header, length) = match *bytes {
        [_, length @ 128..254, ..] => (6, usize::from(length - 128)),
        [_, 254, a, b, ..] => (8, usize::from(u16::from_be_bytes([a, b]))),
        _ => return None,
    };
    Some((bytes.get(header..header + length)?, header + length))
}

/// The request that opens a WebSocket at a path.
pub(crate) fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
