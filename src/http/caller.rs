//! Where a request comes from.

use crate::http::Api;
use crate::http::client_address::TrustedProxies;
use crate::http::upgrade::Slot;
use crate::model::refusal::Refusal;
use crate::refusals::Who;
use crate::session::accepted::AcceptedSocket;
use crate::session::connection_limiter::LimitError;
use crate::session::unproven::Ticket;
use hyper::header::HeaderMap;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
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

/// Why a connection that has proven nothing ends.
pub(super) const MAKES_ROOM: &str = "a connection without an accepted token is closed: newer ones need the room";

/// Polling sessions that one socket may have begun without a token being accepted. A proxy uses a socket for many
/// clients, but for one request at a time.
const SESSIONS_OF_A_SOCKET: usize = 64;

/// The connection that a request came in on.
pub struct Caller {
    /// The listener that accepted it.
    pub listener: ListenerKind,
    /// Whether it came by a Unix socket, which no website reaches.
    pub is_unix: bool,
    /// The address of the other end.
    peer: IpAddr,
    /// Whether the other end is a proxy that is trusted to name its clients.
    is_proxy: bool,
    /// The address of the client, as far as the request names it.
    client: Cell<IpAddr>,
    /// Its socket.
    pub socket: Arc<AcceptedSocket>,
    /// Where a handler of an upgrade leaves what the socket becomes.
    pub slot: Slot,
    accepted: Instant,
    waited: Cell<Option<Duration>>,
    /// How often it has gone on on another shard's thread.
    pub(super) moves: Cell<u8>,
    /// The newest polling sessions that began on this socket.
    begun: RefCell<VecDeque<Ticket>>,
}

impl Caller {
    /// For a connection that was just accepted.
    pub fn new(listener: ListenerKind, peer: IpAddr, is_proxy: bool, socket: Arc<AcceptedSocket>) -> Self {
        let (slot, waited, begun) = (Slot::default(), Cell::new(None), RefCell::default());
        let (client, moves, accepted) = (Cell::new(peer), Cell::new(0), Instant::now());
        Self { listener, is_unix: false, peer, is_proxy, client, socket, slot, accepted, waited, moves, begun }
    }

    /// Who sent the request: the other end, or the client that a trusted proxy names.
    pub fn client(&self) -> IpAddr {
        self.client.get()
    }

    /// Whether the other end is believed about which clients it asks for.
    pub(super) fn is_proxy(&self) -> bool {
        self.is_proxy
    }

    /// Takes from a proxy's request which client it comes from, and charges the socket to that client.
    ///
    /// # Errors
    /// When the client has all the sockets it may have.
    pub fn name_client(&self, proxies: &TrustedProxies, headers: &HeaderMap) -> Result<(), LimitError> {
        if !self.is_proxy {
            return Ok(());
        }
        let client = proxies.client(self.peer, headers);
        self.client.set(client);
        // What the proxy asks for itself, such as a health check, stays on its own account.
        if client == self.peer { Ok(()) } else { self.socket.charge_client(client) }
    }

    /// The request was answered.
    pub fn forget_client(&self) {
        if self.is_proxy {
            self.client.set(self.peer);
            self.socket.leave_client();
        }
    }

    /// When the connection was accepted.
    pub fn accepted(&self) -> Instant {
        self.accepted
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

/// Notes a refusal of whoever is at the other end.
pub(super) fn note(api: &Api, caller: &Caller, reason: Refusal, why: fmt::Arguments<'_>) {
    api.node.context.refusals.note(reason, &Who::at(caller.client()), why);
}
