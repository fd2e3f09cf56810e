//! The state of a long-polling link: one GET, one POST, one upgrade at a time (docs/protocol/socketio.md sections 2.6
//! and 2.8).

use bytes::Bytes;
use tokio::sync::oneshot;

/// What a GET or POST is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PollAnswer {
    /// 200 with this payload.
    Payload(Bytes),
    /// 200 `ok`, to a POST.
    Accepted,
    /// 400 with an empty body: overlapping requests.
    Overlap,
    /// 413 with an empty body; the session stays.
    TooBig,
    /// 400 code 1: no such session (any more).
    Unknown,
    /// 400 code 3: the session has moved to a WebSocket.
    Moved,
    /// 413: the session's client must prove who it is before it sends so much.
    TooBigUnproven,
    /// 503: too much is on its way to the session's node.
    Busy,
}

/// Bytes of a POST of a client that has not proven itself: the CONNECTs of several namespaces, with their tokens.
const UNPROVEN_BODY: usize = 64 << 10;

/// How much of a POST's body may be read.
pub struct BodyLimit {
    /// So many bytes.
    pub bytes: usize,
    /// The answer to a larger one.
    pub over: PollAnswer,
}

impl BodyLimit {
    /// For a client that has proven itself or not; `max` is `socketio.max_payload`.
    pub fn of(proven: bool, max: usize) -> Self {
        match proven {
            true => Self { bytes: max, over: PollAnswer::TooBig },
            false => Self { bytes: max.min(UNPROVEN_BODY), over: PollAnswer::TooBigUnproven },
        }
    }
}

/// A long-polling link.
#[derive(Default)]
pub struct Polling {
    /// The GET that waits for packets, and its number, so that a late abort does not end a later one.
    pub waiting: Option<(u64, oneshot::Sender<PollAnswer>)>,
    /// The number of the POST whose body is being read, so that the late end of an earlier one does not end it.
    pub posting: Option<u64>,
    /// A WebSocket is probing: GETs are answered at once, so that the client's poll ends (docs/protocol/socketio.md
    /// section 2.8).
    pub upgrading: bool,
    /// A probe was answered: a GET without packets gets a noop.
    pub probed: bool,
}

impl Polling {
    /// Answers the waiting GET, if there is one and its connection still is.
    pub fn answer(&mut self, payload: Bytes) -> bool {
        self.waiting.take().is_some_and(|(_, reply)| reply.send(PollAnswer::Payload(payload)).is_ok())
    }
}
