//! Socket.IO v5 packets from clients (docs/protocol/socketio.md section 3). Accepts what the stock parser accepts,
//! with its quirks; what it closes the connection for is an error.

use crate::model::args::{Args, ArgsError, MAX_JSON_DEPTH, is_too_deep};
use crate::model::draft::{MAX_ATTACHMENTS, RESERVED_EVENTS};
use crate::model::names::{MAIN_NAMESPACE, Namespace, main_namespace};
use crate::model::number::number_text;
use crate::protocol::json_text::unquote;
use crate::protocol::raw_json;
use crate::protocol::raw_json::Kind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

/// Bytes of a namespace in a packet. A longer one cannot be configured.
pub const MAX_NAMESPACE: usize = 256;
/// Digits of an acknowledgement id. For more, JavaScript writes an exponent, which no parser reads.
const MAX_ID_DIGITS: usize = 21;
/// Bytes of the attachments of one packet that a decoder keeps, if messages are not larger.
pub const MAX_HELD: usize = 16 << 20;

/// Bytes of all attachments of one packet, if each message may have `max_payload`: ten messages of the default limit,
/// or two if messages may be huge.
pub fn max_attached(max_payload: usize) -> usize {
    MAX_HELD.max(max_payload.saturating_mul(2))
}

/// A packet from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Joins a namespace.
    Connect {
        /// The namespace as written, with its query.
        namespace: Namespace,
        /// The text of the `auth` object.
        auth: Option<Box<str>>,
    },
    /// Leaves a namespace.
    Disconnect {
        /// The namespace.
        namespace: Namespace,
    },
    /// An event.
    Event {
        /// The namespace.
        namespace: Namespace,
        /// The id to acknowledge it with, as JavaScript would echo it.
        ack: Option<Box<str>>,
        /// The name. A number is written as JavaScript writes it; a packet without payload has an empty name.
        event: Box<str>,
        /// The arguments; attachments are `{"$binary":"<base64>"}`.
        args: Args,
    },
    /// Acknowledges an event from the server.
    Ack {
        /// The namespace.
        namespace: Namespace,
        /// The id of the event.
        id: Box<str>,
        /// The arguments; attachments are `{"$binary":"<base64>"}`.
        args: Args,
    },
}

impl Packet {
    /// An acknowledgement without an id (`43[]`) acknowledges nothing; the reference ignores it.
    fn means_something(&self) -> bool {
        !matches!(self, Self::Ack { id, .. } if id.is_empty())
    }
}

/// Why input is refused; the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a packet type that a client may send.
    #[error("the packet type must be 0 to 3, 5 or 6")]
    UnknownType,
    /// The number of attachments is missing, not a number, or zero.
    #[error("a binary packet must announce its attachments, as in 51-")]
    BadAttachmentCount,
    /// More attachments than a packet may have.
    #[error("a packet takes at most {MAX_ATTACHMENTS} attachments")]
    TooManyAttachments,
    /// The namespace is too long.
    #[error("a namespace takes at most {MAX_NAMESPACE} bytes")]
    NamespaceTooLong,
    /// A namespace with control characters. None is configured like that, and `\x1e` would end the packet of a polling
    /// answer that echoes it.
    #[error("a namespace must not contain control characters")]
    BadNamespace,
    /// An acknowledgement id that is not a number, or too long.
    #[error("an acknowledgement id must be a number of at most {MAX_ID_DIGITS} digits")]
    BadAckId,
    /// The payload is not the JSON that this packet type takes.
    #[error("the payload is not the JSON that this packet type takes")]
    BadPayload,
    /// JSON nested deeper than [`MAX_JSON_DEPTH`].
    #[error("the payload is nested deeper than {MAX_JSON_DEPTH} levels")]
    TooDeep,
    /// An event name that clients and servers use themselves.
    #[error("the event name is reserved by Socket.IO")]
    ReservedEvent,
    /// A placeholder without an attachment, or two placeholders for one.
    #[error("a placeholder must name an attachment of its own")]
    BadPlaceholder,
    /// The attachments are larger than the limit.
    #[error("the attachments of one packet are over the limit")]
    TooBig,
    /// An attachment that no packet waits for.
    #[error("a binary message came without a packet that announced it")]
    UnexpectedBinary,
    /// A packet before all attachments of the previous one.
    #[error("a packet came before all attachments of the previous packet")]
    UnexpectedText,
}

impl DecodeError {
    /// A stable name, for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownType => "unknown_packet_type",
            Self::BadAttachmentCount => "bad_attachment_count",
            Self::TooManyAttachments => "too_many_attachments",
            Self::NamespaceTooLong => "namespace_too_long",
            Self::BadNamespace => "bad_namespace",
            Self::BadAckId => "bad_ack_id",
            Self::BadPayload => "bad_payload",
            Self::TooDeep => "json_too_deep",
            Self::ReservedEvent => "reserved_event",
            Self::BadPlaceholder => "bad_placeholder",
            Self::TooBig => "attachments_too_big",
            Self::UnexpectedBinary => "unexpected_binary",
            Self::UnexpectedText => "unexpected_text",
        }
    }
}

impl From<ArgsError> for DecodeError {
    fn from(error: ArgsError) -> Self {
        match error {
            ArgsError::TooDeep => Self::TooDeep,
            ArgsError::Invalid(_) => Self::BadPayload,
        }
    }
}

/// Reads the packets of one client. An idle decoder is one pointer; it keeps more only while attachments are missing.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Option<Box<Pending>>,
}

#[derive(Debug)]
struct Pending {
    packet: Packet,
    /// How often [`Decoder::grow_old`] found it.
    age: u8,
    missing: usize,
    attachments: Vec<Box<[u8]>>,
}

impl Decoder {
    /// Whether no attachments are missing.
    pub fn is_idle(&self) -> bool {
        self.pending.is_none()
    }

    /// A decoder that waits for a packet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the text of a message, after the Engine.IO `4`. `None`: attachments are missing, or the reference ignores
    /// this packet. After an error the connection must be closed.
    pub fn text(&mut self, text: &str) -> Result<Option<Packet>, DecodeError> {
        if self.pending.take().is_some() {
            return Err(DecodeError::UnexpectedText);
        }
        let head = Head::parse(text)?;
        let packet = head.packet()?;
        if head.attachments == 0 {
            return Ok(Some(packet).filter(Packet::means_something));
        }
        self.pending = Some(Box::new(Pending { packet, age: 0, missing: head.attachments, attachments: Vec::new() }));
        Ok(None)
    }

    /// Takes a binary message: [`Decoder::binary_within`] with [`MAX_HELD`].
    pub fn binary(&mut self, bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
        self.binary_within(bytes, MAX_HELD)
    }

    /// Takes a binary message; `max` limits the bytes of all attachments of one packet.
    pub fn binary_within(&mut self, bytes: &[u8], max: usize) -> Result<Option<Packet>, DecodeError> {
        let Some(mut pending) = self.pending.take() else { return Err(DecodeError::UnexpectedBinary) };
        let held: usize = pending.attachments.iter().map(|attachment| attachment.len()).sum();
        if bytes.len() > max.saturating_sub(held) {
            return Err(DecodeError::TooBig);
        }
        pending.attachments.push(bytes.into());
        pending.missing -= 1;
        if pending.missing == 0 {
            return pending.complete();
        }
        self.pending = Some(pending);
        Ok(None)
    }

    /// Called at regular intervals: how many of them a packet with missing attachments has seen.
    pub fn grow_old(&mut self) -> u8 {
        self.pending.as_mut().map_or(0, |pending| {
            pending.age = pending.age.saturating_add(1);
            pending.age
        })
    }

    /// Bytes of a packet with missing attachments.
    pub fn held(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| {
            let args = match &pending.packet {
                Packet::Event { args, .. } | Packet::Ack { args, .. } => args.len(),
                Packet::Connect { .. } | Packet::Disconnect { .. } => 0,
            };
            args + pending.attachments.iter().map(|attachment| attachment.len()).sum::<usize>()
        })
    }

    /// Whether attachments are missing.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }
}

impl Pending {
    /// The packet with its attachments; `None` for an acknowledgement without an id, which acknowledges nothing.
    fn complete(mut self) -> Result<Option<Packet>, DecodeError> {
        if let Packet::Event { args, .. } | Packet::Ack { args, .. } = &mut self.packet {
            *args = fill(args, &self.attachments)?;
        }
        Ok(Some(self.packet).filter(Packet::means_something))
    }
}

/// Replaces the placeholders by their attachments. Each may occur once: the stock encoder never writes one twice, and a
/// small packet must not grow into a huge one.
fn fill(args: &Args, attachments: &[Box<[u8]>]) -> Result<Args, DecodeError> {
    let json = args.as_array();
    let mut used = [false; MAX_ATTACHMENTS];
    let mut out =
        String::with_capacity(json.len() + attachments.iter().map(|bytes| bytes.len() / 3 * 4 + 20).sum::<usize>());
    let mut copied = 0;
    for special in raw_json::specials(json) {
        let Kind::Placeholder(num) = special.kind else { continue };
        let found = num.and_then(|num| Some((attachments.get(num)?, used.get_mut(num)?)));
        let Some((bytes, used)) = found.filter(|(_, used)| !**used) else { return Err(DecodeError::BadPlaceholder) };
        *used = true;
        out.push_str(&json[copied..special.span.start]);
        out.push_str("{\"$binary\":\"");
        STANDARD.encode_string(bytes, &mut out);
        out.push_str("\"}");
        copied = special.span.end;
    }
    out.push_str(&json[copied..]);
    Ok(Args::list(&out)?)
}

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Connect,
    Disconnect,
    Event,
    Ack,
}

/// `<type>[<n>-][<namespace>,][<id>]` and the text after it.
struct Head<'a> {
    kind: Type,
    attachments: usize,
    namespace: &'a str,
    id: Option<Box<str>>,
    payload: Option<&'a str>,
}

impl<'a> Head<'a> {
    fn parse(text: &'a str) -> Result<Self, DecodeError> {
        let (kind, binary) = match text.bytes().next() {
            Some(b'0') => (Type::Connect, false),
            Some(b'1') => (Type::Disconnect, false),
            Some(b'2') => (Type::Event, false),
            Some(b'3') => (Type::Ack, false),
            Some(b'5') => (Type::Event, true),
            Some(b'6') => (Type::Ack, true),
            _ => return Err(DecodeError::UnknownType),
        };
        let mut rest = &text[1..];
        let mut attachments = 0;
        if binary {
            let (count, behind) = rest.split_once('-').ok_or(DecodeError::BadAttachmentCount)?;
            (attachments, rest) = (attachment_count(count)?, behind);
        }
        let mut namespace = MAIN_NAMESPACE;
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
            if namespace.len() > MAX_NAMESPACE {
                return Err(DecodeError::NamespaceTooLong);
            }
            if namespace.contains(char::is_control) {
                return Err(DecodeError::BadNamespace);
            }
        }
        let payload = rest.trim_start_matches(part_of_id);
        let id = &rest[..rest.len() - payload.len()];
        let id = if id.is_empty() { None } else { Some(echoed_id(id)?) };
        Ok(Self { kind, attachments, namespace, id, payload: (!payload.is_empty()).then_some(payload) })
    }

    /// The packet, with placeholders for its attachments.
    fn packet(&self) -> Result<Packet, DecodeError> {
        let namespace = namespace(self.namespace);
        Ok(match (self.kind, self.payload) {
            (Type::Connect, None) => Packet::Connect { namespace, auth: None },
            (Type::Connect, Some(payload)) => Packet::Connect { namespace, auth: Some(object(payload)?.into()) },
            (Type::Disconnect, None) => Packet::Disconnect { namespace },
            (Type::Disconnect, Some(_)) => return Err(DecodeError::BadPayload),
            (Type::Event, payload) => {
                let (event, args) = payload.map_or_else(|| Ok(("".into(), Args::none())), event)?;
                Packet::Event { namespace, ack: self.id.clone(), event, args }
            }
            (Type::Ack, payload) => {
                let args = payload.map_or_else(|| Ok(Args::none()), Args::list)?;
                Packet::Ack { namespace, id: self.id.clone().unwrap_or_default(), args }
            }
        })
    }
}

fn attachment_count(text: &str) -> Result<usize, DecodeError> {
    if text.is_empty() || text.len() > MAX_ID_DIGITS || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecodeError::BadAttachmentCount);
    }
    match text.parse() {
        Ok(0) => Err(DecodeError::BadAttachmentCount),
        Ok(count) if count <= MAX_ATTACHMENTS => Ok(count),
        _ => Err(DecodeError::TooManyAttachments),
    }
}

/// The stock parser reads on while `Number(c) == c`, which holds for digits and, by a quirk, for white space.
fn part_of_id(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// An id as JavaScript echoes it: a double, written without an exponent (docs/protocol/socketio.md section 3.3).
fn echoed_id(text: &str) -> Result<Box<str>, DecodeError> {
    let digits = text.trim_matches(|c| part_of_id(c) && !c.is_ascii_digit());
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return if digits.bytes().all(|byte| byte == b'0') { Ok("0".into()) } else { Err(DecodeError::BadAckId) };
    }
    if significant.len() > MAX_ID_DIGITS || !significant.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecodeError::BadAckId);
    }
    // 15 digits are exact in a double. Rust writes a double's shortest digits without an exponent, as JavaScript does
    // below 10^21.
    if significant.len() <= 15 {
        return Ok(significant.into());
    }
    match significant.parse::<f64>() {
        Ok(number) if number < 1e21 => Ok(number.to_string().into()),
        _ => Err(DecodeError::BadAckId),
    }
}

fn namespace(text: &str) -> Namespace {
    if text == MAIN_NAMESPACE { main_namespace() } else { text.into() }
}

fn object(json: &str) -> Result<&str, DecodeError> {
    if is_too_deep(json) {
        return Err(DecodeError::TooDeep);
    }
    let value: &RawValue = serde_json::from_str(json).map_err(|_| DecodeError::BadPayload)?;
    if value.get().starts_with('{') { Ok(value.get()) } else { Err(DecodeError::BadPayload) }
}

const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Cuts the name off `["name",…]`. The rest stays as written.
fn event(json: &str) -> Result<(Box<str>, Args), DecodeError> {
    let inside = json.trim_start_matches(JSON_SPACE).strip_prefix('[').ok_or(DecodeError::BadPayload)?;
    let inside = inside.trim_start_matches(JSON_SPACE);
    let end = match inside.bytes().next() {
        Some(b'"') => raw_json::string_end(inside.as_bytes(), 1),
        Some(b'-' | b'0'..=b'9') => inside.find([',', ']']).ok_or(DecodeError::BadPayload)?,
        _ => return Err(DecodeError::BadPayload),
    };
    let (name, rest) = inside.split_at_checked(end).ok_or(DecodeError::BadPayload)?;
    let name = event_name(name.trim_end_matches(JSON_SPACE))?;
    let rest = rest.trim_start_matches(JSON_SPACE);
    let rest = match rest.strip_prefix(',').map(|rest| rest.trim_start_matches(JSON_SPACE)) {
        Some(rest) if !rest.starts_with(']') => rest,
        // After a name alone only the end of the array may follow. The parser checks what comes after that.
        None if rest.starts_with(']') => rest,
        _ => return Err(DecodeError::BadPayload),
    };
    let args = Args::list(&format!("[{rest}"))?;
    Ok((name, args))
}

fn event_name(literal: &str) -> Result<Box<str>, DecodeError> {
    let value: &RawValue = serde_json::from_str(literal).map_err(|_| DecodeError::BadPayload)?;
    if !literal.starts_with('"') {
        return Ok(number_text(value.get()).into());
    }
    let name = unquote(literal).ok_or(DecodeError::BadPayload)?;
    if RESERVED_EVENTS.contains(&name.as_ref()) {
        return Err(DecodeError::ReservedEvent);
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests;
