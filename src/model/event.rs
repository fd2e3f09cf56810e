//! Events that the log has accepted, on their way to clients.

use crate::model::after::After;
use crate::model::command::SessionCommand;
use crate::model::draft::Draft;
use crate::model::id::Id;
use crate::model::offset::Offset;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// An event as the log's tail delivers it.
#[derive(Debug)]
pub struct Event {
    /// Its position in the log. A volatile event has the position of the last stored one (docs/protocol/socketio.md
    /// section 4.2).
    pub offset: Offset,
    /// What was published.
    pub draft: Draft,
    /// When a node accepted it, or the log if another program published it, in Unix microseconds of this node's clock.
    pub accepted_us: u64,
    /// What comes before it on other lines; none in a log of one.
    pub after: Option<Box<After>>,
}

impl Event {
    /// Approximate bytes in memory, for limits.
    pub fn size(&self) -> usize {
        let names: usize = self.draft.rooms.iter().chain(&self.draft.except).map(|room| room.len() + 16).sum();
        let trace = self.draft.trace.as_ref().map_or(0, |trace| trace.size());
        let after = self.after.as_ref().map_or(0, |after| after.size());
        self.draft.args.len() + self.draft.event.len() + names + trace + after + 160
    }
}

/// The wire formats in which an event is written, each encoded at most once per node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Format {
    /// Socket.IO packet and its attachments as complete WebSocket frames.
    SocketIoFrames,
    /// The same for a client that cannot take binary frames (`b64=1`): attachments are text frames of base64.
    SocketIoTextFrames,
    /// The same packets as an Engine.IO polling payload, joined by `\x1e`.
    SocketIoPayload,
    /// The `/ws` message as a complete WebSocket text frame. It names the first of the event's rooms.
    JsonFrame,
    /// A Server-Sent Events block.
    Sse,
}

/// An event on its way through the shards, with its encoded forms.
#[derive(Debug)]
pub struct Delivery {
    /// The event.
    pub event: Arc<Event>,
    encoded: [OnceLock<Bytes>; 5],
    traced: Option<Box<Progress>>,
}

/// How far the shards of this node are with an event.
#[derive(Debug)]
struct Progress {
    /// Shards that have not written it yet.
    shards: AtomicUsize,
    /// Sessions that got it.
    receivers: AtomicU64,
}

impl Delivery {
    /// Encodes nothing yet.
    pub fn new(event: Arc<Event>) -> Self {
        Self { event, encoded: Default::default(), traced: None }
    }

    /// One whose end is noted when so many shards have written it.
    pub fn traced(event: Arc<Event>, shards: usize) -> Self {
        let progress = Progress { shards: AtomicUsize::new(shards), receivers: AtomicU64::new(0) };
        Self { traced: Some(Box::new(progress)), ..Self::new(event) }
    }

    /// Whether [`Delivery::shard_wrote`] is to be called.
    pub fn is_traced(&self) -> bool {
        self.traced.is_some()
    }

    /// A shard has written it to so many sessions. Answers the sum of all shards at the last of them.
    pub fn shard_wrote(&self, receivers: u64) -> Option<u64> {
        let progress = self.traced.as_deref()?;
        progress.receivers.fetch_add(receivers, Ordering::Relaxed);
        let is_last = progress.shards.fetch_sub(1, Ordering::AcqRel) == 1;
        is_last.then(|| progress.receivers.load(Ordering::Relaxed))
    }

    /// The bytes in this format, encoded at the first call.
    pub fn bytes(&self, format: Format, encode: impl FnOnce(&Event) -> Bytes) -> &Bytes {
        self.encoded[format as usize].get_or_init(|| encode(&self.event))
    }
}

/// A session command at its place in the log.
#[derive(Clone, Debug)]
pub struct PlacedCommand {
    /// The number of events of the batch before it.
    pub after: usize,
    /// Its position in the log.
    pub offset: Offset,
    /// The command.
    pub command: Arc<SessionCommand>,
}

/// What the log's tail delivers at once, in log order.
#[derive(Debug, Default)]
pub struct Batch {
    /// The events.
    pub events: Vec<Arc<Event>>,
    /// Commands to sessions, each at its place among the events.
    pub commands: Vec<PlacedCommand>,
    /// Probes that arrived ([`crate::log::EventLog::probe`]).
    pub probes: Vec<Id>,
}

impl Batch {
    /// Puts a later batch after this one.
    pub fn append(&mut self, later: Self) {
        let before = self.events.len();
        self.events.extend(later.events);
        self.commands
            .extend(later.commands.into_iter().map(|placed| PlacedCommand { after: placed.after + before, ..placed }));
        self.probes.extend(later.probes);
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.commands.is_empty() && self.probes.is_empty()
    }
}
