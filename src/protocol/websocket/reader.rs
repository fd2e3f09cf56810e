//! Reads the frames of a client. Complete frames are passed on from the caller's buffer; only incomplete ones are
//! copied.

use crate::model::close::CloseReason;
use crate::protocol::websocket::writer::MAX_CONTROL;
use crate::protocol::websocket::{Message, Opcode, unmask};
use std::ops::ControlFlow;

/// Frames in one message. Each costs the receiver more than the sender (CVE-2026-48779).
pub const MAX_FRAGMENTS: u32 = 1024;

/// Two bytes, eight of length, four of mask (RFC 6455 section 5.2).
const MAX_HEADER: usize = 14;

/// A violation of RFC 6455, or of a limit. The connection ends with [`FrameError::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is longer than the limit.
    #[error("the message is over the limit")]
    TooBig,
    /// A client frame without a mask (section 5.1).
    #[error("client frames must be masked")]
    Unmasked,
    /// RSV1-3 is set without a negotiated extension (section 5.2).
    #[error("reserved bits are set, but no extension was negotiated")]
    ReservedBits,
    /// An opcode that is not defined (section 5.2).
    #[error("the opcode is not defined")]
    ReservedOpcode,
    /// A control frame without FIN (section 5.5).
    #[error("a control frame must not be fragmented")]
    FragmentedControl,
    /// A control frame over 125 bytes (section 5.5).
    #[error("a control frame takes at most 125 bytes")]
    LongControl,
    /// A length that fits a shorter form (section 5.2).
    #[error("the payload length must be written in its shortest form")]
    LongLength,
    /// A 64-bit length with its top bit set (section 5.2).
    #[error("the top bit of a 64-bit length must be 0")]
    NegativeLength,
    /// A continuation without a message (section 5.4).
    #[error("a continuation frame without a message to continue")]
    UnexpectedContinuation,
    /// A new message inside a fragmented one (section 5.4).
    #[error("a new message began before the last fragment of the previous one")]
    InterruptedMessage,
    /// More than [`MAX_FRAGMENTS`] frames in one message.
    #[error("too many fragments in one message")]
    TooManyFragments,
    /// Text, or the reason of a close, that is not UTF-8 (section 8.1).
    #[error("the text is not valid UTF-8")]
    InvalidUtf8,
    /// A close payload of one byte (section 5.5.1).
    #[error("a close payload must be empty or begin with a two-byte code")]
    BadClosePayload,
    /// A close code that must not be sent (section 7.4).
    #[error("the close code must not be sent")]
    BadCloseCode,
}

impl FrameError {
    /// How the connection ends.
    pub fn reason(&self) -> CloseReason {
        match self {
            Self::TooBig => CloseReason::TooBig,
            Self::InvalidUtf8 => CloseReason::InvalidText,
            _ => CloseReason::ParseError,
        }
    }

    /// A stable name, for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooBig => "message_too_big",
            Self::Unmasked => "unmasked_frame",
            Self::ReservedBits => "reserved_bits",
            Self::ReservedOpcode => "reserved_opcode",
            Self::FragmentedControl => "fragmented_control",
            Self::LongControl => "long_control",
            Self::LongLength => "non_minimal_length",
            Self::NegativeLength => "negative_length",
            Self::UnexpectedContinuation => "unexpected_continuation",
            Self::InterruptedMessage => "interrupted_message",
            Self::TooManyFragments => "too_many_fragments",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::BadClosePayload => "bad_close_payload",
            Self::BadCloseCode => "bad_close_code",
        }
    }
}

/// Takes each message, and decides whether to continue.
type Handler<'h> = &'h mut dyn FnMut(Message<'_>) -> ControlFlow<()>;

/// Reads the frames of one client. An idle reader has no memory on the heap.
#[derive(Debug, Default)]
pub struct FrameReader {
    partial: Option<Box<Partial>>,
}

/// The state of an incomplete frame or message, or of a reader that is done.
#[derive(Debug, Default)]
struct Partial {
    /// Later input is ignored. Nothing else is kept then.
    is_finished: bool,
    /// The bytes of an incomplete header.
    head: [u8; MAX_HEADER],
    head_len: usize,
    /// A frame with an incomplete payload, and the number of bytes that have arrived.
    frame: Option<Header>,
    received: usize,
    /// The fragmented message: its type, and the number of its frames.
    message: Option<Opcode>,
    fragments: u32,
    /// Unmasked payload of the incomplete data message.
    data: Vec<u8>,
    /// Unmasked payload of an incomplete control frame, at most 125 bytes.
    control: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    len: usize,
}

impl FrameReader {
    /// A reader at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes that arrived and unmasks them in place. Calls `on` for each complete message, in order. A frame that
    /// is complete within `input` is passed on without a copy. `max` limits the bytes of a message and is checked at
    /// the header, before anything is buffered. After `on` breaks, after a close and after an error, the rest is
    /// dropped and later input is ignored.
    pub fn read(
        &mut self,
        input: &mut [u8],
        max: usize,
        on: &mut dyn FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<(), FrameError> {
        let mut rest = input;
        while !rest.is_empty() && !self.is_finished() {
            let step = self.step(&mut rest, max, on);
            if !matches!(step, Ok(ControlFlow::Continue(()))) {
                self.partial = Some(Box::new(Partial { is_finished: true, ..Partial::default() }));
            } else if self.partial.as_ref().is_some_and(|partial| partial.is_empty()) {
                self.partial = None;
            }
            let _ = step?;
        }
        Ok(())
    }

    /// Bytes of an incomplete frame or message.
    pub fn held(&self) -> usize {
        let partial = self.partial.as_ref().filter(|partial| !partial.is_finished);
        partial.map_or(0, |partial| partial.data.len() + size_of::<Partial>())
    }

    /// Whether no part of a frame or message is kept.
    pub fn is_idle(&self) -> bool {
        self.partial.as_ref().is_none_or(|partial| partial.is_finished)
    }

    fn is_finished(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.is_finished)
    }

    fn step(&mut self, rest: &mut &mut [u8], max: usize, on: Handler<'_>) -> Result<ControlFlow<()>, FrameError> {
        if let Some(header) = self.partial.as_ref().and_then(|partial| partial.frame) {
            return self.more_payload(header, rest, on);
        }
        let Some(header) = self.header(rest)? else { return Ok(ControlFlow::Continue(())) };
        self.admit(&header, max)?;
        if rest.len() < header.len {
            let partial = self.partial.get_or_insert_default();
            (partial.frame, partial.received) = (Some(header), 0);
            return self.more_payload(header, rest, on);
        }
        let payload = take(rest, header.len);
        unmask(payload, header.mask, 0);
        self.whole_frame(header, payload, on)
    }

    /// The next header, from the input and what was kept of it before. `None`: it is incomplete.
    fn header(&mut self, rest: &mut &mut [u8]) -> Result<Option<Header>, FrameError> {
        let Some(partial) = self.partial.as_mut().filter(|partial| partial.head_len > 0) else {
            if let Some((header, used)) = Header::parse(rest)? {
                take(rest, used);
                return Ok(Some(header));
            }
            let partial = self.partial.get_or_insert_default();
            partial.head_len = rest.len();
            partial.head[..rest.len()].copy_from_slice(rest);
            *rest = &mut [];
            return Ok(None);
        };
        let before = partial.head_len;
        let after = MAX_HEADER.min(before + rest.len());
        partial.head[before..after].copy_from_slice(&rest[..after - before]);
        let Some((header, used)) = Header::parse(&partial.head[..after])? else {
            partial.head_len = after;
            *rest = &mut [];
            return Ok(None);
        };
        partial.head_len = 0;
        take(rest, used - before);
        Ok(Some(header))
    }

    /// Checks a header: the order of fragments, their number, and the size of the message.
    fn admit(&self, header: &Header, max: usize) -> Result<(), FrameError> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let (held, fragments, unfinished) = match &self.partial {
            Some(partial) => (partial.data.len(), partial.fragments, partial.message.is_some()),
            None => (0, 0, false),
        };
        match (header.opcode, unfinished) {
            (Opcode::Continuation, false) => Err(FrameError::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, true) => Err(FrameError::InterruptedMessage),
            _ if header.len > max.saturating_sub(held) => Err(FrameError::TooBig),
            _ if fragments >= MAX_FRAGMENTS => Err(FrameError::TooManyFragments),
            _ => Ok(()),
        }
    }

    fn whole_frame(&mut self, header: Header, payload: &[u8], on: Handler<'_>) -> Result<ControlFlow<()>, FrameError> {
        let unfinished = self.partial.as_ref().is_some_and(|partial| partial.message.is_some());
        if header.opcode.is_control() || (header.fin && !unfinished) {
            return deliver(header.opcode, payload, on);
        }
        self.partial.get_or_insert_default().data.extend_from_slice(payload);
        self.data_frame_done(header, on)
    }

    fn more_payload(
        &mut self,
        header: Header,
        rest: &mut &mut [u8],
        on: Handler<'_>,
    ) -> Result<ControlFlow<()>, FrameError> {
        let partial = self.partial.get_or_insert_default();
        let piece = take(rest, rest.len().min(header.len - partial.received));
        unmask(piece, header.mask, partial.received);
        partial.received += piece.len();
        let control = header.opcode.is_control();
        let kept = if control { &mut partial.control } else { &mut partial.data };
        kept.extend_from_slice(piece);
        if partial.received < header.len {
            return Ok(ControlFlow::Continue(()));
        }
        partial.frame = None;
        match control {
            true => deliver(header.opcode, &std::mem::take(&mut partial.control), on),
            false => self.data_frame_done(header, on),
        }
    }

    /// The payload of a frame is complete in `data`: passes the message on, or waits for its next fragment.
    fn data_frame_done(&mut self, header: Header, on: Handler<'_>) -> Result<ControlFlow<()>, FrameError> {
        let partial = self.partial.get_or_insert_default();
        let opcode = partial.message.unwrap_or(header.opcode);
        if header.fin {
            (partial.message, partial.fragments) = (None, 0);
            return deliver(opcode, &std::mem::take(&mut partial.data), on);
        }
        partial.message = Some(opcode);
        partial.fragments += 1;
        Ok(ControlFlow::Continue(()))
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.head_len == 0 && self.frame.is_none() && self.message.is_none()
    }
}

impl Header {
    /// Reads a header and its size; `None` while bytes are missing. Refuses as soon as a byte is invalid.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(FrameError::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(FrameError::ReservedOpcode)?;
        let fin = first & 0x80 != 0;
        if opcode.is_control() && !fin {
            return Err(FrameError::FragmentedControl);
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(FrameError::Unmasked);
        }
        let short = usize::from(second & 0x7f);
        if opcode.is_control() && short > MAX_CONTROL {
            return Err(FrameError::LongControl);
        }
        let Some((len, at)) = Self::length(short, bytes)? else { return Ok(None) };
        let Some(mask) = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>()) else { return Ok(None) };
        Ok(Some((Self { fin, opcode, mask: *mask, len }, at + 4)))
    }

    /// The length of the payload, and the position of the mask.
    fn length(short: usize, bytes: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
        let long = &bytes[2..];
        match short {
            126 => {
                let Some(len) = long.first_chunk::<2>() else { return Ok(None) };
                let len = usize::from(u16::from_be_bytes(*len));
                if len < 126 { Err(FrameError::LongLength) } else { Ok(Some((len, 4))) }
            }
            127 => {
                let Some(len) = long.first_chunk::<8>() else { return Ok(None) };
                let len = u64::from_be_bytes(*len);
                match len {
                    0..=0xffff => Err(FrameError::LongLength),
                    len if len >> 63 != 0 => Err(FrameError::NegativeLength),
                    len => Ok(Some((usize::try_from(len).map_err(|_| FrameError::TooBig)?, 10))),
                }
            }
            _ => Ok(Some((short, 2))),
        }
    }
}

fn take<'a>(rest: &mut &'a mut [u8], n: usize) -> &'a mut [u8] {
    let (front, back) = std::mem::take(rest).split_at_mut(n);
    *rest = back;
    front
}

fn deliver(opcode: Opcode, payload: &[u8], on: Handler<'_>) -> Result<ControlFlow<()>, FrameError> {
    let text = |bytes| str::from_utf8(bytes).map_err(|_| FrameError::InvalidUtf8);
    Ok(match opcode {
        Opcode::Text => on(Message::Text(text(payload)?)),
        Opcode::Binary | Opcode::Continuation => on(Message::Binary(payload)),
        Opcode::Ping => on(Message::Ping(payload)),
        Opcode::Pong => on(Message::Pong(payload)),
        Opcode::Close => {
            let (code, reason) = match payload {
                [] => (None, ""),
                [_] => return Err(FrameError::BadClosePayload),
                [high, low, reason @ ..] => (Some(u16::from_be_bytes([*high, *low])), text(reason)?),
            };
            if code.is_some_and(|code| !may_be_received(code)) {
                return Err(FrameError::BadCloseCode);
            }
            let _ = on(Message::Close(code, reason));
            ControlFlow::Break(())
        }
    })
}

/// Codes that an endpoint may send: RFC 6455 section 7.4, and 1012 to 1014 of the IANA registry.
fn may_be_received(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
