//! `[socketio]` and `[limits]`.

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
}

impl LimitsConfig {
    /// What one connection may send.
    pub fn rate(&self) -> Rate {
        Rate::new(self.events_per_second, self.rooms_per_session)
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 1_000_000,
            connections_per_ip: 0,
            unauthenticated: 10_000,
            rooms_per_session: 256,
            room_name_bytes: 200,
            outbox_bytes: 1_000_000,
            events_per_second: 50,
            headers: 100,
        }
    }
}
