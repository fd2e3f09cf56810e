//! Socket.IO v5 packets to clients (docs/protocol/socketio.md section 3). Raw JSON is sent as it came; only
//! `{"$binary":"…"}` values are replaced, by attachments.

use crate::model::args::Args;
use crate::model::draft::{Draft, DraftError, DraftLimits, MAX_ATTACHMENTS};
use crate::model::event::Event;
use crate::model::names::MAIN_NAMESPACE;
use crate::model::offset::Offset;
use crate::protocol::base64;
use crate::protocol::engineio::SEPARATOR;
use crate::protocol::json_text::unquote;
use crate::protocol::raw_json;
use crate::protocol::raw_json::{Kind, Quoted, push_string, string_len};
use crate::protocol::websocket::{Opcode, header_len, push_frame, push_header};
use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::fmt;
use std::io::Write as _;

/// The Engine.IO type of all packets here.
const MESSAGE: u8 = b'4';

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its text, without the Engine.IO `4`. Empty: the packet is its attachment alone.
    pub text: String,
    /// Its attachments, in the order of their numbers.
    pub attachments: Vec<Vec<u8>>,
}

/// Why arguments cannot be sent to Socket.IO clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A `{"$binary":"…"}` that is not base64.
    #[error("a {{\"$binary\":…}} value must be base64")]
    BadBase64,
    /// More than [`MAX_ATTACHMENTS`]: stock clients drop the connection.
    #[error("an event takes at most {MAX_ATTACHMENTS} binary values; Socket.IO clients drop more")]
    TooManyAttachments,
    /// Binary values beside an object with `"_placeholder":true`, which clients would replace by an attachment.
    #[error(
        "arguments with binary values must not contain an object with \"_placeholder\":true; Socket.IO clients \
         take it for an attachment"
    )]
    Placeholder,
}

impl EncodeError {
    /// A stable name, for error bodies and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadBase64 => "bad_base64",
            Self::TooManyAttachments => "too_many_attachments",
            Self::Placeholder => "placeholder_in_arguments",
        }
    }
}

impl Encoded {
    fn text(text: String) -> Self {
        Self { text, attachments: Vec::new() }
    }

    /// A packet that is one binary message, for clients with another parser.
    pub fn binary(bytes: Vec<u8>) -> Self {
        Self { text: String::new(), attachments: vec![bytes] }
    }

    /// The packet as WebSocket frames: a text frame, followed by the attachments as binary frames.
    pub fn frames(&self) -> Bytes {
        let sizes = std::iter::once(1 + self.text.len()).chain(self.attachments.iter().map(Vec::len));
        let mut out = Vec::with_capacity(sizes.map(|size| header_len(size) + size).sum());
        if !self.text.is_empty() {
            push_header(&mut out, Opcode::Text, 1 + self.text.len());
            out.push(MESSAGE);
            out.extend_from_slice(self.text.as_bytes());
        }
        for attachment in &self.attachments {
            push_frame(&mut out, Opcode::Binary, attachment);
        }
        out.into()
    }

    /// The packet as WebSocket text frames, for a client that cannot take binary ones: attachments are `b` and base64.
    pub fn text_frames(&self) -> Bytes {
        let mut out = Vec::new();
        if !self.text.is_empty() {
            push_header(&mut out, Opcode::Text, 1 + self.text.len());
            out.push(MESSAGE);
            out.extend_from_slice(self.text.as_bytes());
        }
        for attachment in &self.attachments {
            push_frame(&mut out, Opcode::Text, format!("b{}", STANDARD.encode(attachment)).as_bytes());
        }
        out.into()
    }

    /// The packet as an Engine.IO polling payload, attachments as base64.
    pub fn payload(&self) -> Bytes {
        let attached: usize = self.attachments.iter().map(|bytes| 6 + bytes.len().div_ceil(3) * 4).sum();
        let mut out = String::with_capacity(1 + self.text.len() + attached);
        if !self.text.is_empty() {
            out.push(char::from(MESSAGE));
            out.push_str(&self.text);
        }
        for attachment in &self.attachments {
            if !out.is_empty() {
                out.push(SEPARATOR);
            }
            out.push('b');
            STANDARD.encode_string(attachment, &mut out);
        }
        out.into()
    }
}

/// Confirms a join; with a `pid` if recovery is on.
pub fn connect(namespace: &str, sid: &str, pid: Option<&str>) -> Encoded {
    let sid = Quoted(sid);
    Encoded::text(match pid {
        Some(pid) => format!("0{}{{\"sid\":{sid},\"pid\":{}}}", Prefix(namespace), Quoted(pid)),
        None => format!("0{}{{\"sid\":{sid}}}", Prefix(namespace)),
    })
}

/// Refuses a join; `data` is raw JSON.
pub fn connect_error(namespace: &str, message: &str, data: Option<&str>) -> Encoded {
    let message = Quoted(message);
    Encoded::text(match data {
        Some(data) => format!("4{}{{\"message\":{message},\"data\":{data}}}", Prefix(namespace)),
        None => format!("4{}{{\"message\":{message}}}", Prefix(namespace)),
    })
}

/// Removes a client from a namespace; it does not reconnect by itself.
pub fn disconnect(namespace: &str) -> Encoded {
    Encoded::text(format!("1{}", Prefix(namespace)))
}

/// An event. `offset` is appended as one more argument (docs/protocol/socketio.md section 4.1); `ack` asks for an
/// acknowledgement.
pub fn event(
    namespace: &str,
    event: &str,
    args: &Args,
    offset: Option<&str>,
    ack: Option<u64>,
) -> Result<Encoded, EncodeError> {
    let ack = ack.map(|ack| ack.to_string());
    let packet = Packet { kind: b'2', namespace, id: ack.as_deref().unwrap_or(""), event: Some(event), offset };
    packet.encode(args)
}

/// Acknowledges a client's event by its id.
pub fn ack(namespace: &str, id: &str, args: &Args) -> Result<Encoded, EncodeError> {
    Packet { kind: b'3', namespace, id, event: None, offset: None }.encode(args)
}

/// An event as WebSocket frames, in one allocation if it has no binary values.
pub fn event_frames(event: &Event, with_offset: bool) -> Bytes {
    event_frames_at(event, with_offset.then_some(OffsetText::default().write(&event.offset)))
}

/// The same with the text of a place.
pub fn event_frames_at(event: &Event, offset: Option<&str>) -> Bytes {
    of_log(event, offset, Encoded::frames, text_frame)
}

/// The same for a client that cannot take binary frames.
pub fn event_text_frames(event: &Event, with_offset: bool) -> Bytes {
    event_text_frames_at(event, with_offset.then_some(OffsetText::default().write(&event.offset)))
}

/// The same with the text of a place.
pub fn event_text_frames_at(event: &Event, offset: Option<&str>) -> Bytes {
    of_log(event, offset, Encoded::text_frames, text_frame)
}

fn text_frame(packet: &Packet<'_>, inner: &str) -> Bytes {
    let payload = 1 + packet.len(inner);
    let mut out = Vec::with_capacity(header_len(payload) + payload);
    push_header(&mut out, Opcode::Text, payload);
    out.push(MESSAGE);
    packet.push(&mut out, inner, 0);
    out.into()
}

/// An event as an Engine.IO polling payload.
pub fn event_payload(event: &Event, with_offset: bool) -> Bytes {
    event_payload_at(event, with_offset.then_some(OffsetText::default().write(&event.offset)))
}

/// The same with the text of a place.
pub fn event_payload_at(event: &Event, offset: Option<&str>) -> Bytes {
    of_log(event, offset, Encoded::payload, |packet, inner| {
        let mut out = Vec::with_capacity(1 + packet.len(inner));
        out.push(MESSAGE);
        packet.push(&mut out, inner, 0);
        out.into()
    })
}

/// Arguments that should have been refused when they were published (see [`binary_values`]) are sent as plain data. A
/// packet that makes all clients of a room drop their connections must not leave this node.
fn of_log(
    event: &Event,
    offset: Option<&str>,
    encoded: impl FnOnce(&Encoded) -> Bytes,
    plain: impl FnOnce(&Packet<'_>, &str) -> Bytes,
) -> Bytes {
    let draft = &event.draft;
    let packet = Packet { kind: b'2', namespace: &draft.namespace, id: "", event: Some(&draft.event), offset };
    match Attached::of(&draft.args) {
        Ok(Some(attached)) => encoded(&packet.with(attached)),
        _ => plain(&packet, draft.args.inner()),
    }
}

/// The number of `{"$binary":"…"}` values in the arguments. Publishing refuses errors, and more than
/// [`MAX_ATTACHMENTS`].
pub fn binary_values(args: &Args) -> Result<usize, EncodeError> {
    if !args.may_hold_binary() {
        return Ok(0);
    }
    let json = args.as_array();
    let (mut count, mut placeholder) = (0, false);
    for special in raw_json::specials(json) {
        match special.kind {
            Kind::Binary(literal) => {
                attachment(&json[literal])?;
                count += 1;
            }
            Kind::Placeholder(_) => placeholder = true,
        }
    }
    if placeholder && count > 0 { Err(EncodeError::Placeholder) } else { Ok(count) }
}

/// Checks that these arguments can be sent to Socket.IO clients.
///
/// # Errors
/// What is wrong with their binary values.
pub fn check_args(args: &Args) -> Result<(), EncodeError> {
    if binary_values(args)? > MAX_ATTACHMENTS { Err(EncodeError::TooManyAttachments) } else { Ok(()) }
}

/// Checks all limits of a draft: its own, and those of binary values for Socket.IO clients.
///
/// # Errors
/// The first limit that is exceeded.
pub fn check_draft(draft: &Draft, limits: &DraftLimits) -> Result<(), DraftError> {
    draft.check(limits)?;
    match check_args(&draft.args) {
        Ok(()) => Ok(()),
        Err(EncodeError::TooManyAttachments) => Err(DraftError::TooManyAttachments),
        Err(error) => Err(DraftError::Field(error.to_string())),
    }
}

/// The bytes of a base64 string literal.
fn attachment(literal: &str) -> Result<Vec<u8>, EncodeError> {
    let text = unquote(literal).ok_or(EncodeError::BadBase64)?;
    base64::decode(&text).ok_or(EncodeError::BadBase64)
}

/// Arguments without their binary values.
struct Attached {
    /// The text between the brackets, with placeholders.
    inner: String,
    attachments: Vec<Vec<u8>>,
}

impl Attached {
    /// `None`: there are no binary values.
    fn of(args: &Args) -> Result<Option<Self>, EncodeError> {
        match binary_values(args)? {
            0 => return Ok(None),
            1..=MAX_ATTACHMENTS => {}
            _ => return Err(EncodeError::TooManyAttachments),
        }
        let json = args.inner();
        let (mut inner, mut attachments, mut copied) = (String::with_capacity(json.len()), Vec::new(), 0);
        for special in raw_json::specials(json) {
            let Kind::Binary(literal) = special.kind else { continue };
            inner.push_str(&json[copied..special.span.start]);
            inner.push_str(&format!("{{\"_placeholder\":true,\"num\":{}}}", attachments.len()));
            attachments.push(attachment(&json[literal])?);
            copied = special.span.end;
        }
        inner.push_str(&json[copied..]);
        Ok(Some(Self { inner, attachments }))
    }
}

/// On the wire, `/` is omitted, and any other namespace is followed by a comma.
struct Prefix<'a>(&'a str);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == MAIN_NAMESPACE { Ok(()) } else { write!(f, "{},", self.0) }
    }
}

/// An event (with a name) or an acknowledgement.
struct Packet<'a> {
    kind: u8,
    namespace: &'a str,
    id: &'a str,
    event: Option<&'a str>,
    offset: Option<&'a str>,
}

impl Packet<'_> {
    fn encode(&self, args: &Args) -> Result<Encoded, EncodeError> {
        let attached = Attached::of(args)?;
        Ok(self.with(attached.unwrap_or_else(|| Attached { inner: args.inner().to_owned(), attachments: Vec::new() })))
    }

    fn with(&self, attached: Attached) -> Encoded {
        let mut out = Vec::with_capacity(3 + self.len(&attached.inner));
        self.push(&mut out, &attached.inner, attached.attachments.len());
        let text = String::from_utf8(out).expect("a packet is composed of strings and ASCII only");
        Encoded { text, attachments: attached.attachments }
    }

    /// Bytes that [`Packet::push`] writes without attachments.
    fn len(&self, inner: &str) -> usize {
        let namespace = if self.namespace == MAIN_NAMESPACE { 0 } else { self.namespace.len() + 1 };
        let items = [self.event.map_or(0, string_len), inner.len(), self.offset.map_or(0, |offset| offset.len() + 2)];
        let commas = items.iter().filter(|len| **len > 0).count().saturating_sub(1);
        1 + namespace + self.id.len() + 2 + items.iter().sum::<usize>() + commas
    }

    fn push(&self, out: &mut Vec<u8>, inner: &str, attachments: usize) {
        if attachments == 0 {
            out.push(self.kind);
        } else {
            // 2 becomes 5 and 3 becomes 6. Writing to a Vec cannot fail.
            out.push(self.kind + 3);
            let _ = write!(out, "{attachments}-");
        }
        if self.namespace != MAIN_NAMESPACE {
            out.extend_from_slice(self.namespace.as_bytes());
            out.push(b',');
        }
        out.extend_from_slice(self.id.as_bytes());
        out.push(b'[');
        if let Some(event) = self.event {
            push_string(out, event);
        }
        if !inner.is_empty() {
            comma(out);
            out.extend_from_slice(inner.as_bytes());
        }
        if let Some(offset) = self.offset {
            comma(out);
            push_string(out, offset);
        }
        out.push(b']');
    }
}

fn comma(out: &mut Vec<u8>) {
    if out.last() != Some(&b'[') {
        out.push(b',');
    }
}

/// The text of an offset, without an allocation.
pub(super) struct OffsetText([u8; 64]);

impl Default for OffsetText {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl OffsetText {
    /// Writes the offset; its longest form has 50 bytes.
    pub(super) fn write(&mut self, offset: &Offset) -> &str {
        let mut free = &mut self.0[..];
        let _ = write!(free, "{offset}");
        let len = 64 - free.len();
        str::from_utf8(&self.0[..len]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
