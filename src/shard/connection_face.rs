//! What code outside the shard does with a connection.

use crate::auth::Identity;
use crate::budget::account::Refused;
use crate::model::close::CloseReason;
use crate::model::id::Id;
use crate::model::transport::Protocol;
use crate::protocol::socketio::Decoder;
use crate::protocol::socketio_encode::Encoded;
use crate::session::accepted::ClientStream;
use crate::session::connection::{Connection, ConnectionKey, ConnectionUse, Link, SessionKey};
use crate::session::frame::Frame;
use crate::session::pending_packets::Inbound;
use crate::session::polling::{PollAnswer, Polling};
use crate::session::unproven::Ticket;
use crate::shard::face::Shard;
use crate::shard::packets::{Begun, Next, RefusedTurn};
use crate::shard::release::Released;
use crate::tls::Socket;
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

impl Shard {
    /// Adds a connection. Its timers do not run yet.
    pub fn open(&self, connection: Box<Connection>) -> ConnectionKey {
        self.hub.borrow_mut().open(connection)
    }

    /// Starts the heartbeat and the connect timeout of a new connection, which has `waited` for so much of the latter.
    pub fn start_timers(&self, key: ConnectionKey, waited: Duration) {
        let now = self.now();
        self.hub.borrow_mut().start_timers(key, waited, now);
    }

    /// Counts a connection among the unproven; `end` may be called to make room for others.
    pub fn await_proof(&self, key: ConnectionKey, end: impl FnOnce() + Send + 'static) -> Option<Ticket> {
        self.hub.borrow_mut().connections.get_mut(key).map(|connection| connection.permit.await_proof(end))
    }

    /// The client's token was accepted.
    pub fn prove(&self, key: ConnectionKey) {
        if let Some(connection) = self.hub.borrow_mut().connections.get_mut(key) {
            connection.permit.prove();
        }
    }

    /// Whether the client's token was accepted.
    pub fn is_proven(&self, key: ConnectionKey) -> bool {
        self.read(key, |connection| connection.permit.is_proven()).unwrap_or(false)
    }

    /// Closes a connection that makes room for others, unless its token was accepted meanwhile.
    pub fn evict(&self, key: ConnectionKey) {
        if !self.is_proven(key) {
            self.close(key, CloseReason::Evicted);
        }
    }

    /// Begins to end a connection; see [`CloseReason`] for what its client gets.
    pub fn close(&self, key: ConnectionKey, reason: CloseReason) {
        let now = self.now();
        self.hub.borrow_mut().close(key, reason, now);
    }

    /// Forgets a connection whose transport is gone; its sessions may resume.
    pub fn remove(&self, key: ConnectionKey) {
        let now = self.now();
        self.hub.borrow_mut().remove(key, now);
    }

    /// All connections.
    pub fn connections(&self) -> Vec<ConnectionKey> {
        self.hub.borrow().connections.keys()
    }

    /// The connection that began as polling with this Engine.IO sid.
    pub fn by_sid(&self, sid: Id) -> Option<ConnectionKey> {
        self.hub.borrow().connections.by_sid(sid)
    }

    fn read<T>(&self, key: ConnectionKey, read: impl FnOnce(&Connection) -> T) -> Option<T> {
        self.hub.borrow().connections.get(key).map(read)
    }

    /// Whether a connection is there and not closing.
    pub fn is_open(&self, key: ConnectionKey) -> bool {
        self.read(key, |connection| connection.closing.is_none()).unwrap_or(false)
    }

    /// What a connection speaks.
    pub fn protocol(&self, key: ConnectionKey) -> Option<Protocol> {
        self.read(key, |connection| connection.protocol)
    }

    /// Whether a connection still polls.
    pub fn is_polling(&self, key: ConnectionKey) -> bool {
        self.read(key, |connection| matches!(connection.link, Link::Polling(_))).unwrap_or(false)
    }

    /// Whether a Socket.IO client has not said anything yet that we understood.
    pub fn is_silent(&self, key: ConnectionKey) -> bool {
        let silent = |connection: &Connection| {
            let quiet = connection.unfinished.is_decoder_idle() && connection.sessions.is_empty();
            quiet && connection.protocol == Protocol::SocketIo
        };
        self.read(key, silent).unwrap_or(false)
    }

    /// Whether a connection has joined a namespace.
    pub fn has_sessions(&self, key: ConnectionKey) -> bool {
        self.read(key, |connection| !connection.sessions.is_empty()).unwrap_or(false)
    }

    /// Whom a connection is for.
    pub fn connection_use(&self, key: ConnectionKey) -> ConnectionUse {
        self.read(key, Connection::use_of).unwrap_or_default()
    }

    /// From now on a page of the Admin UI is on this connection, and nothing else. It needs no session to stay.
    pub fn become_admin_ui(&self, key: ConnectionKey) {
        let mut hub = self.hub.borrow_mut();
        if let Some(connection) = hub.connections.get_mut(key) {
            connection.handshake.get_or_insert_default().of = ConnectionUse::AdminUi;
            connection.permit.prove();
        }
        hub.connections.change_timers(key, |timers| timers.connect_by = None);
    }

    /// Bytes that wait for a client; `None` when its connection is gone or closing.
    pub fn unsent(&self, key: ConnectionKey) -> Option<usize> {
        self.read(key, |connection| connection.closing.is_none().then(|| connection.outbox.bytes())).flatten()
    }

    /// The token of the handshake.
    pub fn handshake_token(&self, key: ConnectionKey) -> Option<Box<str>> {
        self.read(key, |connection| connection.token().map(Into::into)).flatten()
    }

    /// Queues a frame for one connection.
    pub fn push(&self, key: ConnectionKey, frame: Frame) {
        self.hub.borrow_mut().push(key, frame);
    }

    /// Queues a Socket.IO packet for one connection.
    pub fn push_packet(&self, key: ConnectionKey, packet: Encoded) {
        self.hub.borrow_mut().push_packet(key, packet);
    }

    /// Queues a `/ws` message for one connection.
    pub fn push_json(&self, key: ConnectionKey, message: &str) {
        self.hub.borrow_mut().push_json(key, message);
    }

    /// Queues what waited for a client where its connection was before.
    pub fn push_waiting(&self, key: ConnectionKey, frames: impl Iterator<Item = Frame>) {
        self.hub.borrow_mut().push_waiting(key, frames);
    }

    /// Writes what waits on a connection, as far as its transport takes it now.
    pub fn flush(&self, key: ConnectionKey) {
        let now = self.now();
        self.hub.borrow_mut().flush(key, now);
    }

    /// The client of this connection has sent something.
    pub fn alive(&self, key: ConnectionKey) {
        let now = self.now();
        self.hub.borrow_mut().alive(key, now);
    }

    /// The client of this connection has answered a ping.
    pub fn pong(&self, key: ConnectionKey) {
        let now = self.now();
        self.hub.borrow_mut().pong(key, now);
    }

    /// Counts a message against the connection's rate; `None` when the connection is closing.
    pub fn take_turn(&self, key: ConnectionKey) -> Option<bool> {
        let now = self.now();
        self.hub.borrow_mut().take_turn(key, now)
    }

    /// See [`Hub::enter_account`].
    ///
    /// # Errors
    /// The limit that is reached; the connection's account stays as it was.
    pub fn enter_account(&self, key: ConnectionKey, identity: &Identity) -> Result<(), Refused> {
        let now = self.now();
        self.hub.borrow_mut().enter_account(key, identity, now)
    }

    /// Counts rooms that a client asks to join against the rate of its connection and its user.
    ///
    /// # Errors
    /// How long it should wait; `None` if it does not stop and is to be closed.
    pub fn take_joins(&self, key: ConnectionKey, count: usize) -> Result<(), Option<Duration>> {
        let now = self.now();
        self.hub.borrow_mut().take_joins(key, count, now)
    }

    /// The same for the rooms of a namespace. A connection that has left none gets them whatever it joined before.
    ///
    /// # Errors
    /// As above.
    pub fn take_first_joins(&self, key: ConnectionKey, count: usize) -> Result<(), Option<Duration>> {
        let now = self.now();
        let mut hub = self.hub.borrow_mut();
        match hub.connections.get(key).is_some_and(|connection| connection.has_left) {
            true => hub.take_joins(key, count, now),
            false => Ok(()),
        }
    }

    /// Notes that a connection leaves a namespace.
    pub fn note_left(&self, key: ConnectionKey) {
        if let Some(connection) = self.hub.borrow_mut().connections.get_mut(key) {
            connection.has_left = true;
        }
    }

    /// Notes that a message was refused while `ahead` others wait for the rate; `None` when the connection is closing.
    pub fn refuse_turn(&self, key: ConnectionKey, ahead: usize) -> Option<RefusedTurn> {
        let now = self.now();
        self.hub.borrow_mut().refuse_turn(key, ahead, now)
    }

    /// The sessions of a connection.
    pub fn sessions_of(&self, key: ConnectionKey) -> Vec<SessionKey> {
        self.hub.borrow().connections.get(key).map_or_else(Vec::new, |connection| connection.sessions.to_vec())
    }

    /// Runs `read` with the decoder of the connection's Socket.IO packets.
    pub fn with_decoder<T>(&self, key: ConnectionKey, read: impl FnOnce(&mut Decoder) -> T) -> Option<T> {
        self.hub.borrow_mut().with_decoder(key, read)
    }

    /// Takes a packet.
    pub fn begin_packet(&self, key: ConnectionKey, packet: Inbound) -> Begun {
        let now = self.now();
        self.hub.borrow_mut().begin_packet(key, packet, now)
    }

    /// The packet behind the one that is done.
    pub fn next_packet(&self, key: ConnectionKey) -> Next {
        let now = self.now();
        self.hub.borrow_mut().next_packet(key, now)
    }

    /// Notes how many bytes of the connection's packets wait for the backend; `None` if none do.
    pub fn set_asking(&self, key: ConnectionKey, bytes: Option<usize>) {
        self.hub.borrow_mut().set_asking(key, bytes);
    }

    /// The client's address.
    pub fn address(&self, key: ConnectionKey) -> Option<IpAddr> {
        self.read(key, |connection| connection.permit.peer())
    }

    /// The polling connection with this sid, if its time is not over.
    ///
    /// # Errors
    /// What its request is answered instead.
    pub fn polling(&self, sid: Id) -> Result<ConnectionKey, PollAnswer> {
        let now = self.now();
        let mut hub = self.hub.borrow_mut();
        let key = hub.connections.by_sid(sid).ok_or(PollAnswer::Unknown)?;
        // Exact to the millisecond, even when the table has not fired yet (docs/protocol/socketio.md section 6).
        hub.check_deadline(key, now);
        match hub.connections.get(key).ok_or(PollAnswer::Unknown)?.link {
            Link::Polling(_) => Ok(key),
            _ => Err(PollAnswer::Moved),
        }
    }

    /// Runs `act` with the link of a connection that polls.
    pub fn with_polling<T>(&self, key: ConnectionKey, act: impl FnOnce(&mut Polling) -> T) -> Option<T> {
        match self.hub.borrow_mut().connections.get_mut(key).map(|connection| &mut connection.link) {
            Some(Link::Polling(polling)) => Some(act(polling)),
            _ => None,
        }
    }

    /// A polling connection's WebSocket takes over, once `prepare` has noted what its handshake said.
    pub fn upgrade(&self, key: ConnectionKey, stream: Arc<ClientStream>, prepare: impl FnOnce(&mut Connection)) {
        let mut hub = self.hub.borrow_mut();
        if let Some(connection) = hub.connections.get_mut(key) {
            prepare(connection);
            connection.permit.become_websocket();
        }
        hub.upgrade(key, Link::WebSocket(stream));
    }

    /// Whether the client's last words are still being worked on, so that its connection cannot be released.
    pub fn is_busy(&self, sid: Id) -> bool {
        let hub = self.hub.borrow();
        hub.connections.by_sid(sid).is_some_and(|key| !hub.is_idle(key))
    }

    /// Takes a polling connection out of the tables, with its sessions. No rule runs, because they go on elsewhere.
    pub fn release(&self, sid: Id) -> Option<Released> {
        self.hub.borrow_mut().release(sid)
    }

    /// Wakes this task when the connection has something for it, and answers its socket; `None` when the connection is gone.
    pub fn wake_on_change(&self, key: ConnectionKey, context: &Context<'_>) -> Option<Arc<ClientStream>> {
        let mut hub = self.hub.borrow_mut();
        let connection = hub.connections.get_mut(key)?;
        connection.wake_with(context.waker());
        match &connection.link {
            Link::WebSocket(stream) => Some(stream.clone()),
            Link::Polling(_) | Link::Sse(_) => None,
        }
    }

    /// Whether the client of this connection is not read just now: its task is woken when it is.
    pub fn is_reading_held(&self, key: ConnectionKey) -> bool {
        self.hub.borrow().connections.get(key).is_some_and(|connection| connection.is_reading_held())
    }

    /// The next bytes of a streamed response; ready with `None` when it is over.
    pub fn poll_stream(&self, key: ConnectionKey, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let now = self.now();
        let mut hub = self.hub.borrow_mut();
        let (bytes, is_behind) = hub.take_sse(key, now);
        if !bytes.is_empty() {
            return Poll::Ready(Some(bytes));
        }
        if is_behind {
            context.waker().wake_by_ref();
        }
        match hub.connections.get_mut(key) {
            Some(connection) if connection.closing.is_none() => {
                connection.wake_with(context.waker());
                Poll::Pending
            }
            _ => Poll::Ready(None),
        }
    }

    /// Flushes to a WebSocket that has room again, and shuts it down once when a closing connection is flushed. Ready when the
    /// connection is gone.
    pub fn poll_flush(&self, key: ConnectionKey, stream: &Socket, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut hub = self.hub.borrow_mut();
            let Some(connection) = hub.connections.get_mut(key) else { return Poll::Ready(()) };
            let hangs_up = connection.closing.is_some_and(|reason| !reason.may_be_sending());
            if hangs_up && connection.outbox.is_empty() && !connection.half_closed && !stream.has_unsent() {
                // Half-closed, so that the peer reads the close frame; it hangs up, or is cut at its deadline.
                connection.half_closed = true;
                let _ = stream.end();
            }
            if !connection.blocked {
                return Poll::Pending;
            }
            match stream.poll_write_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    connection.blocked = false;
                    hub.flush(key, self.now());
                }
            }
        }
    }
}
