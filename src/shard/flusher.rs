//! Connections that wait to be flushed, and deliveries that the metrics do not count yet.

use crate::model::event::Delivery;
use crate::model::offset::Offset;
use crate::model::transport::Protocol;
use crate::session::connection::{Connection, ConnectionKey};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// Frames put into outboxes before others get their turn: some 50 ns each.
const PUSHES_PER_TURN: usize = 8_192;

/// A connection with `dirty` set is in the queue once; one that is `blocked` waits for its socket instead.
pub(super) struct Flusher {
    queue: VecDeque<ConnectionKey>,
    /// Connections taken from the queue so far.
    taken: u64,
    /// Frames put into outboxes so far.
    pushed: usize,
    /// How many these were when others last had their turn.
    turn_began: usize,
    /// Slices of replays that were queued since others last had their turn.
    slices: usize,
    /// Deliveries that the metrics do not count yet, by protocol.
    delivered: [u64; 3],
    /// Whoever lists connections now also flushes them.
    attended: bool,
    /// Wakes the shard's loop when the queue is no longer empty.
    wake: Arc<Notify>,
}

/// An event in outboxes whose receivers are not all flushed yet.
pub(super) struct Unwritten {
    /// The value of [`Flusher::flushed`] at which it is written.
    pub(super) flushed_at: u64,
    /// When it was accepted (Unix microseconds).
    pub(super) accepted_us: u64,
    /// Where in the log it is.
    pub(super) offset: Offset,
    /// The event with the number of its receivers here, if its way is recorded.
    pub(super) traced: Option<(Arc<Delivery>, u64)>,
}

impl Flusher {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self {
            queue: VecDeque::new(),
            taken: 0,
            pushed: 0,
            turn_began: 0,
            slices: 0,
            delivered: [0; 3],
            attended: false,
            wake,
        }
    }

    /// Whether the caller flushes what is listed from now on, so that the shard's loop need not be woken for it. It is for
    /// what is still listed when that ends.
    pub(super) fn attend(&mut self, attended: bool) {
        self.attended = attended;
        if !attended && !self.queue.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Lists a connection for the next flush.
    pub(super) fn list(&mut self, key: ConnectionKey, connection: &mut Connection) {
        if !connection.dirty && !connection.blocked {
            connection.dirty = true;
            self.queue.push_back(key);
            if self.queue.len() == 1 && !self.attended {
                self.wake.notify_one();
            }
        }
    }

    /// The next connection to be flushed. The caller clears its `dirty`.
    pub(super) fn next(&mut self) -> Option<ConnectionKey> {
        let key = self.queue.pop_front()?;
        self.taken += 1;
        Some(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Counts a slice of a replay.
    pub(super) fn note_slice(&mut self) {
        self.slices += 1;
    }

    /// Slices since the last call.
    pub(super) fn take_slices(&mut self) -> usize {
        std::mem::take(&mut self.slices)
    }

    /// Counts an event that was put into an outbox.
    pub(super) fn note_delivery(&mut self, protocol: Protocol) {
        self.delivered[protocol as usize] += 1;
        self.pushed += 1;
    }

    /// Frames put into outboxes so far.
    pub(super) fn pushed(&self) -> usize {
        self.pushed
    }

    /// Whether so much was put into outboxes since this was last so that others should have their turn.
    pub(super) fn is_turn_over(&mut self) -> bool {
        let is_over = self.pushed - self.turn_began >= PUSHES_PER_TURN;
        if is_over {
            self.turn_began = self.pushed;
        }
        is_over
    }

    /// How many connections are flushed by now.
    pub(super) fn flushed(&self) -> u64 {
        self.taken
    }

    /// The value of [`Flusher::flushed`] once all that are listed now are flushed.
    pub(super) fn flushed_when_empty(&self) -> u64 {
        self.taken + self.queue.len() as u64
    }

    /// Deliveries since the last call.
    pub(super) fn take_delivered(&mut self) -> impl Iterator<Item = (Protocol, u64)> + use<> {
        let counts = std::mem::take(&mut self.delivered);
        [Protocol::SocketIo, Protocol::PlainWs, Protocol::Sse].into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }
}
