//! One client connection of a shard: whatever the protocol and transport, it has an outbox and timers.

use crate::budget::AccountPermit;
use crate::model::close::CloseReason;
use crate::model::event::Format;
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::model::transport::{Protocol, Transport};
use crate::session::accepted::ClientStream;
use crate::session::backpressure::Backpressure;
use crate::session::bucket::Bucket;
use crate::session::connection_limiter::Permit;
use crate::session::cut::Cut;
use crate::session::outbox::Outbox;
use crate::session::pending_packets::PendingPackets;
use crate::session::polling::Polling;
use crate::session::session_list::SessionList;
use crate::session::timers::Timers;
use crate::session::unfinished::Unfinished;
use std::sync::Arc;
use std::task::Waker;

pub use crate::session::keys::{ConnectionKey, SessionKey};

/// How the outbox of a connection is emptied just now.
pub enum Link {
    /// A WebSocket; its task reads, the shard writes.
    WebSocket(Arc<ClientStream>),
    /// Long-polling: a GET leases the outbox when there is one.
    Polling(Box<Polling>),
    /// A streamed response whose body takes the outbox; told to cut the connection when nobody reads.
    Sse(Arc<Cut>),
}

impl Link {
    /// The metric label.
    pub fn transport(&self) -> Transport {
        match self {
            Self::WebSocket(_) => Transport::WebSocket,
            Self::Polling(_) => Transport::Polling,
            Self::Sse(_) => Transport::Sse,
        }
    }
}

/// Whom an Engine.IO connection is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionUse {
    /// Clients of the application.
    #[default]
    Clients,
    /// It came to `admin_listen`: only for the Admin UI.
    AdminListener,
    /// A page of the Admin UI, whose key was accepted.
    AdminUi,
}

/// What the requests of an Engine.IO connection said. Most say nothing.
#[derive(Debug, Default)]
pub struct Handshake {
    /// The token in a header or the query, for clients that send none in band.
    pub token: Option<Box<str>>,
    /// The WebSocket takes no binary frames (`b64=1` in its URL).
    pub base64: bool,
    /// Whom the connection is for.
    pub of: ConnectionUse,
}

/// A client connection. Idle ones must stay small: `benches/idle` counts the bytes.
pub struct Connection {
    /// The Engine.IO sid; a secret of this client.
    pub id: Id,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// How bytes move.
    pub link: Link,
    /// What waits to be written.
    pub outbox: Outbox,
    /// What the client has still to take besides the outbox, and why that may be over its limit.
    pub backpressure: Option<Box<Backpressure>>,
    /// Listed for the next flush.
    pub dirty: bool,
    /// The socket took no more; its task waits until it does.
    pub blocked: bool,
    /// Everything is written, and the peer knows that nothing follows.
    pub half_closed: bool,
    /// Why it is ending, once it is.
    pub closing: Option<CloseReason>,
    /// Wakes the connection's task.
    pub waker: Option<Waker>,
    /// Its deadlines.
    pub timers: Timers,
    /// The deadline that stands in the shard's table.
    pub scheduled: Option<Millis>,
    /// What has not arrived whole yet.
    pub unfinished: Unfinished,
    /// Packets that wait behind one that is being worked on.
    pub pending: Option<Box<PendingPackets>>,
    /// The rate limit.
    pub bucket: Bucket,
    /// One session per joined namespace.
    pub sessions: SessionList,
    /// It has left a namespace. The rooms of the next one that it joins count as joins, or it could repeat that.
    pub has_left: bool,
    /// What its requests said, if that is anything.
    pub handshake: Option<Box<Handshake>>,
    /// Its user's or address's account, once it has a session.
    pub account: Option<AccountPermit>,
    /// Holds this connection's place in the node's count; released when dropped.
    pub permit: Permit,
}

impl Connection {
    /// An open connection with nothing on it.
    pub fn new(id: Id, protocol: Protocol, link: Link, permit: Permit) -> Box<Self> {
        Box::new(Self {
            id,
            protocol,
            link,
            outbox: Outbox::default(),
            backpressure: None,
            dirty: false,
            blocked: false,
            half_closed: false,
            closing: None,
            waker: None,
            timers: Timers::default(),
            scheduled: None,
            unfinished: Unfinished::default(),
            pending: None,
            bucket: Bucket::default(),
            sessions: SessionList::default(),
            has_left: false,
            handshake: None,
            account: None,
            permit,
        })
    }

    /// The format in which the link takes frames.
    pub fn format(&self) -> Format {
        match (&self.link, self.protocol) {
            (Link::Sse(_), _) => Format::Sse,
            (Link::Polling(_), _) => Format::SocketIoPayload,
            (Link::WebSocket(_), Protocol::PlainWs) => Format::JsonFrame,
            (Link::WebSocket(_), _) if self.is_base64() => Format::SocketIoTextFrames,
            (Link::WebSocket(_), _) => Format::SocketIoFrames,
        }
    }

    /// The token of the handshake.
    pub fn token(&self) -> Option<&str> {
        self.handshake.as_ref()?.token.as_deref()
    }

    /// Keeps the token of a handshake, unless an earlier request had one.
    pub fn keep_token(&mut self, token: Option<Box<str>>) {
        if token.is_some() && self.token().is_none() {
            self.handshake.get_or_insert_default().token = token;
        }
    }

    /// Whether the WebSocket takes no binary frames.
    pub fn is_base64(&self) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.base64)
    }

    /// Whom the connection is for.
    pub fn use_of(&self) -> ConnectionUse {
        self.handshake.as_ref().map_or(ConnectionUse::Clients, |handshake| handshake.of)
    }

    /// Bytes in the outbox that its limit does not count.
    pub fn allowed(&self) -> usize {
        self.backpressure.as_ref().map_or(0, |backpressure| backpressure.allowed)
    }

    /// The outbox may be over its limit by so much more, until it is empty.
    pub fn allow(&mut self, bytes: usize) {
        self.backpressure.get_or_insert_default().allowed += bytes;
    }

    /// The client is not read until all that waits now is written: what it sends brings more answers.
    pub fn hold_reading(&mut self) {
        self.backpressure.get_or_insert_default().read_after = self.outbox.bytes();
    }

    /// Whether its client is not read just now. What a closing one still sends is thrown away.
    pub fn is_reading_held(&self) -> bool {
        self.closing.is_none() && self.backpressure.as_ref().is_some_and(|backpressure| backpressure.read_after > 0)
    }

    /// So much is written. Answers whether its client, which was not read, is read again.
    pub fn wrote(&mut self, bytes: usize) -> bool {
        let Some(backpressure) = self.backpressure.as_mut().filter(|backpressure| backpressure.read_after > 0) else {
            return false;
        };
        backpressure.read_after =
            if self.outbox.is_empty() { 0 } else { backpressure.read_after.saturating_sub(bytes) };
        backpressure.read_after == 0
    }

    /// Everything in the outbox is written.
    pub fn drained(&mut self) {
        if let Some(backpressure) = &mut self.backpressure {
            backpressure.allowed = 0;
            if !backpressure.has_replays() {
                self.backpressure = None;
            }
        }
    }

    /// Whether a session is behind the log, so that it gets nothing live.
    pub fn is_replaying(&self, session: SessionKey) -> bool {
        self.backpressure.as_ref().is_some_and(|backpressure| backpressure.is_replaying(session))
    }

    /// Whether any session is behind the log.
    pub fn has_replays(&self) -> bool {
        self.backpressure.as_ref().is_some_and(|backpressure| backpressure.has_replays())
    }

    /// Wakes this task from now on.
    pub fn wake_with(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Wakes the connection's task, if it sleeps.
    pub fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_small() {
        assert!(size_of::<Connection>() <= 224, "more would cost 256 bytes of memory: {}", size_of::<Connection>());
        assert!(size_of::<Permit>() <= 32 && size_of::<Outbox>() == 8 && size_of::<Bucket>() <= 20);
    }
}
