//! What travels: positions in the log, arguments as raw JSON text, and events on their way out.

use crate::draft::Draft;
use crate::id::Id;
use crate::order::Order;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// The name of a room. Rooms are per namespace.
pub type Room = Arc<str>;
/// The name of a Socket.IO namespace, with its leading slash.
pub type Namespace = Arc<str>;

/// The namespace where `/ws` and SSE clients live, and the default everywhere.
pub const MAIN_NAMESPACE: &str = "/";

/// JSON nested deeper than this is refused wherever it enters: parsers of clients recurse.
pub const MAX_JSON_DEPTH: usize = 128;

/// A place in the log, in the shape of a Redis stream id: Unix milliseconds and a sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Unix milliseconds by the log's clock.
    pub ms: u64,
    /// Counts within one millisecond.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl Position {
    /// Reads the form `<ms>-<seq>` of a Redis stream id.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: decimal(ms)?, seq: decimal(seq)? })
    }

    /// The place right before this one; the first place has none but itself.
    pub fn predecessor(self) -> Self {
        match (self.ms, self.seq) {
            (ms, 1..) => Self { ms, seq: self.seq - 1 },
            (1.., 0) => Self { ms: self.ms - 1, seq: u64::MAX },
            (0, 0) => self,
        }
    }
}

/// `u64::from_str` also takes a leading `+`; a position does not.
fn decimal(text: &str) -> Option<u64> {
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Identifies one unbroken life of a log. It changes when entries that were accepted may be gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

/// The opaque resume token that clients and publishers see: epoch and position, `e7k2-1795225216959-0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offset {
    /// The life of the log that the position belongs to.
    pub epoch: Epoch,
    /// The place in it.
    pub position: Position,
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.epoch.0, self.position)
    }
}

impl Offset {
    /// Reads what [`Offset`] prints; anything else (garbage, foreign tokens, a megabyte) is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let (epoch, position) = text.split_once('-')?;
        if epoch.starts_with('+') {
            return None;
        }
        let epoch = Epoch(u32::from_str_radix(epoch, 16).ok()?);
        Some(Self { epoch, position: Position::parse(position)? })
    }
}

/// The arguments of an event: the raw text of a JSON array, kept byte for byte as the publisher wrote each value.
#[derive(Clone, PartialEq, Eq)]
pub struct Args {
    array: Arc<str>,
    count: u32,
    binary: bool,
}

/// Why a text is not a list of arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgsError {
    /// Not JSON, or not an array where one is needed; the parser's own words.
    Invalid(String),
    /// Nested deeper than [`MAX_JSON_DEPTH`].
    TooDeep,
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) => f.write_str(why),
            Self::TooDeep => write!(f, "nested deeper than {MAX_JSON_DEPTH} levels"),
        }
    }
}

impl Args {
    /// No arguments: `[]`.
    pub fn none() -> Self {
        Self { array: "[]".into(), count: 0, binary: false }
    }

    /// Exactly one argument from its JSON text.
    pub fn one(json: &str) -> Result<Self, ArgsError> {
        let value: &RawValue = parse(json)?;
        let array = format!("[{}]", value.get());
        Ok(Self { binary: mentions_binary(&array), array: array.into(), count: 1 })
    }

    /// All arguments from the text of a JSON array.
    pub fn list(json: &str) -> Result<Self, ArgsError> {
        let values: Vec<&RawValue> = parse(json)?;
        let count = u32::try_from(values.len()).map_err(|_| ArgsError::Invalid("too many arguments".into()))?;
        let array = json.trim_matches(JSON_SPACE);
        Ok(Self { binary: mentions_binary(array), array: array.into(), count })
    }

    /// All arguments from the text of a JSON array that is not parsed again. Only for code that put the text together
    /// from checked JSON values itself: `array` must be one valid JSON array, without space around it, of `count`
    /// values, nested at most [`MAX_JSON_DEPTH`] deep.
    pub fn trusted(array: String, count: u32) -> Self {
        debug_assert_eq!(Self::list(&array).map(|args| args.count), Ok(count), "not a list of {count}: {array}");
        Self { binary: mentions_binary(&array), array: array.into(), count }
    }

    /// The arguments as the text of a JSON array.
    pub fn as_array(&self) -> &str {
        &self.array
    }

    /// The text between the brackets.
    pub fn inner(&self) -> &str {
        self.array[1..self.array.len() - 1].trim_matches(JSON_SPACE)
    }

    /// The one argument's text, where there is exactly one.
    pub fn single(&self) -> Option<&str> {
        (self.count == 1).then(|| self.inner())
    }

    /// Number of arguments.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Whether the text may hold `{"$binary":…}` values; encoders look closer only then.
    pub fn may_hold_binary(&self) -> bool {
        self.binary
    }

    /// Bytes of JSON text held.
    pub fn len(&self) -> usize {
        self.array.len()
    }

    /// Whether there are no arguments.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_array())
    }
}

const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

fn parse<'a, T: serde::Deserialize<'a>>(json: &'a str) -> Result<T, ArgsError> {
    if json_depth(json) > MAX_JSON_DEPTH {
        return Err(ArgsError::TooDeep);
    }
    serde_json::from_str(json).map_err(|e| ArgsError::Invalid(e.to_string()))
}

fn mentions_binary(array: &str) -> bool {
    memchr::memmem::find(array.as_bytes(), b"\"$binary\"").is_some()
}

/// The deepest nesting of arrays and objects in a JSON text, counted without recursion.
pub fn json_depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(inside) = bytes.next() {
                    match inside {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

/// An event as the log's tail hands it out.
#[derive(Debug)]
pub struct Event {
    /// Its place in the log; a volatile event carries the place of the last stored one (wire sheet C2).
    pub offset: Offset,
    /// What was published.
    pub draft: Draft,
    /// When a node accepted it, Unix microseconds; from the log's clock where no node did.
    pub accepted_us: u64,
}

impl Event {
    /// Bytes that holding this event costs, near enough for limits.
    pub fn size(&self) -> usize {
        let names: usize = self.draft.rooms.iter().chain(&self.draft.except).map(|room| room.len() + 16).sum();
        self.draft.args.len() + self.draft.event.len() + names + 160
    }
}

/// The wire formats in which an event is written, each encoded at most once per node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Format {
    /// Socket.IO packet and its attachments as complete WebSocket frames.
    SocketIoFrames,
    /// The same packets as an Engine.IO polling payload, joined by `\x1e`.
    SocketIoPayload,
    /// The `/ws` JSON message as a complete WebSocket text frame, naming the first of the event's rooms.
    JsonFrame,
    /// A Server-Sent Events block.
    Sse,
}

/// An event on its way through the shards, with its encoded forms.
#[derive(Debug)]
pub struct Delivery {
    /// The event.
    pub event: Arc<Event>,
    encoded: [OnceLock<Bytes>; 4],
}

impl Delivery {
    /// Nothing encoded yet.
    pub fn new(event: Arc<Event>) -> Self {
        Self { event, encoded: Default::default() }
    }

    /// The bytes in this format, encoded by the first who asks.
    pub fn bytes(&self, format: Format, encode: impl FnOnce(&Event) -> Bytes) -> &Bytes {
        self.encoded[format as usize].get_or_init(|| encode(&self.event))
    }
}

/// An order at its place in the log.
#[derive(Clone, Debug)]
pub struct Placed {
    /// So many events of the batch come before it.
    pub after: usize,
    /// Its offset.
    pub offset: Offset,
    /// The order.
    pub order: Arc<Order>,
}

/// What the log's tail hands to the hub at once, in log order.
#[derive(Debug, Default)]
pub struct Batch {
    /// The events.
    pub events: Vec<Arc<Event>>,
    /// Orders to sessions, each at its place among the events.
    pub orders: Vec<Placed>,
    /// Probes that came through ([`crate::log::EventLog::probe`]).
    pub probes: Vec<Id>,
}

impl Batch {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.orders.is_empty() && self.probes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_back_and_nothing_else_is() {
        let offset = Offset { epoch: Epoch(0xbeef), position: Position { ms: 1_795_225_216_959, seq: 3 } };
        assert_eq!(Offset::parse(&offset.to_string()), Some(offset));
        for bad in
            ["", "poison", "1795225216959-0", "beef-1-", "beef--1-2", "+1-1-1", "beef-+1-1", &"9".repeat(1 << 20)]
        {
            assert_eq!(Offset::parse(bad), None);
        }
    }

    #[test]
    fn arguments_keep_their_bytes() {
        let args = Args::one(" {\"n\":9007199254740993, \"s\":\"\\ud83d\\ude00é\"} ").unwrap();
        assert_eq!(args.as_array(), "[{\"n\":9007199254740993, \"s\":\"\\ud83d\\ude00é\"}]");
        assert_eq!(args.count(), 1);
        let args = Args::list(" [1, [2] ,3.10] ").unwrap();
        assert_eq!((args.inner(), args.count()), ("1, [2] ,3.10", 3));
        assert_eq!(Args::list("[]").unwrap().count(), 0);
        assert!(Args::list("{}").is_err());
        assert!(Args::one("1 2").is_err());
        assert!(Args::one("{\"$binary\":\"AA==\"}").unwrap().may_hold_binary());
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(Args::one(&deep), Err(ArgsError::TooDeep));
        assert_eq!(Args::one(&"[".repeat(1 << 20)), Err(ArgsError::TooDeep));
        assert!(Args::one("\"[[[[\\\"[[[\"").is_ok());
        assert_eq!(json_depth("{\"a\":[\"]\",{}]}"), 3);
    }
}
