//! The server's side of WebSocket (RFC 6455): the handshake, a strict reader of masked frames, and a writer of unmasked
//! ones.

mod handshake;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use handshake::accept_key;
pub use reader::{FrameError, FrameReader, MAX_FRAGMENTS};
pub use writer::{binary_frame, close_frame, header_len, pong_frame, push_frame, push_header, text_frame};

/// What a frame is (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0x0,
    /// UTF-8 text.
    Text = 0x1,
    /// Bytes.
    Binary = 0x2,
    /// The end of the connection.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xa,
}

impl Opcode {
    /// Reads the four bits; `None` for the reserved ones.
    pub fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong: never fragmented, at most 125 bytes, allowed between fragments.
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// A complete message from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// Asks for a [`pong_frame`] with this payload of at most 125 bytes.
    Ping(&'a [u8]),
    /// Answers a ping, or is unsolicited.
    Pong(&'a [u8]),
    /// The client closes, with a code (`None`: without) and a reason. Nothing is read after it.
    Close(Option<u16>, &'a str),
}

/// Applies the masking key to a payload (RFC 6455 section 5.3). `offset`: the number of payload bytes before this part.
pub fn unmask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut key = mask;
    key.rotate_left(offset % 4);
    let wide = u64::from(u32::from_ne_bytes(key));
    let wide = wide | wide << 32;
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}
