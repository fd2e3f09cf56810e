//! `[socketio]` and `[limits]`.

use crate::auth::MAX_TOKEN;
use crate::budget::account::{AccountLimits, OwnerLimits};
use crate::budget::machine;
use crate::budget::pace::Pace;
use crate::session::bucket::Rate;
use std::time::Duration;

/// `[socketio]`.
#[derive(Clone, Debug)]
pub struct SocketIoConfig {
    /// Request path, with its trailing slash.
    pub path: String,
    /// Between a pong and the next ping.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub ping_timeout: Duration,
    /// Bytes of one message from a client; announced as `maxPayload`.
    pub max_payload: usize,
    /// How long a connection may stay without joining a namespace or authenticating.
    pub connect_timeout: Duration,
    /// Whether `polling` is among `transports`.
    pub polling: bool,
    /// Whether `websocket` is among `transports`.
    pub websocket: bool,
    /// Namespaces that clients may join.
    pub namespaces: Vec<String>,
}

impl Default for SocketIoConfig {
    fn default() -> Self {
        Self {
            path: "/socket.io/".into(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            max_payload: 1_000_000,
            connect_timeout: Duration::from_secs(10),
            polling: true,
            websocket: true,
            namespaces: vec!["/".into()],
        }
    }
}

/// Connections of one user that may join all their rooms at once.
const CONNECTIONS_AT_ONCE: u32 = 10;
/// How often all connections of one user may return at once: a node stops, and the next one does too.
const CONNECTS_AT_ONCE: u32 = 2;
/// Seconds of a user's or a tenant's rate that may come at once.
const BURST_SECONDS: u32 = 4;

/// `[limits]`.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Open client connections of this node; over it 503.
    pub connections: usize,
    /// Open client connections of one address; 0 is unlimited.
    pub connections_per_ip: usize,
    /// Open connections without an accepted token: sockets, WebSockets and polling sessions. Over it, the oldest of the
    /// address with the most is closed.
    pub unauthenticated: usize,
    /// Bytes of a client's handshake auth apart from the token.
    pub auth_bytes: usize,
    /// Rooms one session may be in.
    pub rooms_per_session: usize,
    /// Bytes of a room name.
    pub room_name_bytes: usize,
    /// Unsent bytes of one connection; past it it is closed as a slow consumer.
    pub outbox_bytes: usize,
    /// Messages per second of one connection that are worked on or answered, with a burst.
    pub events_per_second: u32,
    /// Headers of a request; over it 431.
    pub headers: usize,
    /// Memory of this node; near it new work is refused, then the largest holders are closed. `None`: a part of the machine's.
    pub memory: Option<usize>,
    /// Bytes of messages a second of one connection, with a burst.
    pub bytes_per_second: usize,
    /// Rooms that one connection joins a second, with a burst.
    pub joins_per_second: u32,
    /// Connections of one user to this node; 0 is unlimited, as below.
    pub user_connections: u32,
    /// Connections of one user that begin a second, with a burst; 0 is unlimited.
    pub user_connects_per_second: u32,
    /// Messages per second of all connections of one user. `None`: ten times those of one connection.
    pub user_events_per_second: Option<u32>,
    /// Bytes of messages a second of all connections of one user.
    pub user_bytes_per_second: usize,
    /// Rooms that all connections of one user join a second.
    pub user_joins_per_second: u32,
    /// The claim that names a user's tenant.
    pub tenant_claim: Option<String>,
    /// Connections of one tenant to this node.
    pub tenant_connections: u32,
    /// Messages per second of all connections of one tenant.
    pub tenant_events_per_second: u32,
    /// Bytes of messages a second of all connections of one tenant.
    pub tenant_bytes_per_second: usize,
    /// Rooms that all connections of one tenant join a second.
    pub tenant_joins_per_second: u32,
}

/// Bytes of a Socket.IO CONNECT or a `/ws` `auth` message besides the handshake auth and the token.
const AROUND_AUTH: usize = 4_096;

impl LimitsConfig {
    /// Bytes of one message of a client that has not proven itself: its auth and its token.
    pub fn unproven_message(&self) -> usize {
        self.auth_bytes + MAX_TOKEN + AROUND_AUTH
    }

    /// What one connection may send. `max_message`: bytes that one message may have.
    pub fn rate(&self, max_message: usize) -> Rate {
        Rate::new(self.events_per_second, self.rooms_per_session)
            .with_bytes(self.bytes_per_second, max_message)
            .with_joins(self.joins_per_second, self.rooms_per_session)
    }

    /// The node's memory in bytes.
    pub fn memory_limit(&self) -> usize {
        self.memory.or_else(machine::default_limit).unwrap_or(usize::MAX)
    }

    /// What one user, one address and one tenant may use. `max_message`: bytes that one message may have.
    pub fn accounts(&self, max_message: usize, knows_addresses: bool) -> AccountLimits {
        let number = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let pace = |per_second: u32, once: u32| {
            Pace::new(per_second, per_second.saturating_mul(BURST_SECONDS).saturating_add(once))
        };
        let rooms = CONNECTIONS_AT_ONCE.saturating_mul(number(self.rooms_per_session));
        let limits = |connections, events, bytes, joins| OwnerLimits {
            connections,
            connects: None,
            events: pace(events, rooms),
            bytes: pace(number(bytes), number(max_message)),
            joins: pace(joins, rooms),
        };
        let events = self.user_events_per_second;
        let events = events.unwrap_or_else(|| self.events_per_second.saturating_mul(CONNECTIONS_AT_ONCE));
        let user = limits(self.user_connections, events, self.user_bytes_per_second, self.user_joins_per_second);
        let storm = self.user_connections.saturating_mul(CONNECTS_AT_ONCE);
        AccountLimits {
            // How many an unlimited number that returns at once is, nobody knows.
            user: OwnerLimits { connects: pace(self.user_connects_per_second, storm).filter(|_| storm > 0), ..user },
            address: if knows_addresses { OwnerLimits { connections: 0, ..user } } else { OwnerLimits::default() },
            tenant: limits(
                self.tenant_connections,
                self.tenant_events_per_second,
                self.tenant_bytes_per_second,
                self.tenant_joins_per_second,
            ),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 1_000_000,
            connections_per_ip: 0,
            unauthenticated: 10_000,
            auth_bytes: 8_000,
            rooms_per_session: 256,
            room_name_bytes: 200,
            outbox_bytes: 1_000_000,
            events_per_second: 50,
            headers: 100,
            memory: None,
            bytes_per_second: 1_000_000,
            joins_per_second: 50,
            user_connections: 1_000,
            user_connects_per_second: 200,
            user_events_per_second: None,
            user_bytes_per_second: 10_000_000,
            user_joins_per_second: 200,
            tenant_claim: None,
            tenant_connections: 100_000,
            tenant_events_per_second: 5_000,
            tenant_bytes_per_second: 50_000_000,
            tenant_joins_per_second: 2_000,
        }
    }
}
