//! Sessions that are over, on their way to the `disconnect` rule and the backend.

use crate::model::close::CloseReason;
use crate::model::names::Room;
use crate::session::Session;
use std::net::IpAddr;
use tokio::sync::mpsc;

/// Ended sessions of a shard that may wait. All clients of a full shard may lose their connections at once, as when a
/// balancer restarts; more only pile up when the log or the backend is slower than clients come and go.
pub const MAX_ENDED: usize = 100_000;

/// A session that is over or lost its connection.
pub struct Ended {
    /// What it was.
    pub session: Box<Session>,
    /// The rooms it was in.
    pub rooms: Vec<Room>,
    /// Why it ended.
    pub reason: CloseReason,
    /// Where it came from.
    pub address: Option<IpAddr>,
}

/// The shard's end of the queue, and how much of it is not worked off yet.
pub(super) struct EndedQueue {
    sender: mpsc::Sender<Ended>,
    /// Ended sessions, and calls to the backend for them, that are not done; the graceful stop waits for them.
    pending: usize,
}

impl EndedQueue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Ended>) {
        let (sender, receiver) = mpsc::channel(MAX_ENDED);
        (Self { sender, pending: 0 }, receiver)
    }

    /// `false` where [`MAX_ENDED`] wait already: the session ends without its rule.
    pub(super) fn push(&mut self, ended: Ended) -> bool {
        let taken = self.sender.try_send(ended).is_ok();
        self.pending += usize::from(taken);
        taken
    }

    pub(super) fn begin(&mut self) {
        self.pending += 1;
    }

    pub(super) fn finish(&mut self, count: usize) {
        self.pending = self.pending.saturating_sub(count);
    }

    pub(super) fn pending(&self) -> usize {
        self.pending
    }
}
