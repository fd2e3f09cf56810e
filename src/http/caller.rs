//! Where a request comes from.

use crate::http::upgrade::Slot;
use crate::session::accepted::AcceptedSocket;
use crate::session::unproven::Ticket;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Which of the two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// `listen`.
    Public,
    /// `admin_listen`.
    Admin,
}

/// Polling sessions that one socket may have begun without a token being accepted. A proxy uses a socket for many
/// clients, but for one request at a time.
const SESSIONS_OF_A_SOCKET: usize = 64;

/// The connection that a request came in on.
pub struct Caller {
    /// The listener that accepted it.
    pub listener: ListenerKind,
    /// The address of the other end.
    pub peer: IpAddr,
    /// Its socket.
    pub socket: Arc<AcceptedSocket>,
    /// Where a handler of an upgrade leaves what the socket becomes.
    pub slot: Slot,
    accepted: Instant,
    waited: Cell<Option<Duration>>,
    /// The newest polling sessions that began on this socket.
    begun: RefCell<VecDeque<Ticket>>,
}

impl Caller {
    /// For a connection that was just accepted.
    pub fn new(listener: ListenerKind, peer: IpAddr, socket: Arc<AcceptedSocket>) -> Self {
        let (slot, waited, begun) = (Slot::default(), Cell::new(None), RefCell::default());
        Self { listener, peer, socket, slot, accepted: Instant::now(), waited, begun }
    }

    /// A request has arrived.
    pub fn begin_request(&self) {
        let is_first = self.waited.get().is_none();
        self.waited.set(Some(if is_first { self.accepted.elapsed() } else { Duration::ZERO }));
    }

    /// Whether any request has arrived.
    pub fn has_asked(&self) -> bool {
        self.waited.get().is_some()
    }

    /// How much of `socketio.connect_timeout` is used up: the time since the TCP connection, for its first request.
    pub fn waited(&self) -> Duration {
        self.waited.get().unwrap_or_default()
    }

    /// A polling session begins on this socket. The answer is the one that has to end for it, unless its token was accepted
    /// since.
    pub fn begin_session(&self, session: Ticket) -> Option<Ticket> {
        let mut begun = self.begun.borrow_mut();
        begun.push_back(session);
        if begun.len() > SESSIONS_OF_A_SOCKET { begun.pop_front() } else { None }
    }
}
