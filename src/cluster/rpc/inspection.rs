//! What nodes tell each other for operators. Fields that a node does not know are left out, so that releases can add some.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a node is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Its release.
    pub version: String,
    /// `ok`, `degraded` or `draining`, as on its `/health`.
    pub status: String,
    /// Its machine.
    pub hostname: String,
    /// Its process.
    pub pid: u32,
    /// Since its process began.
    pub uptime_seconds: u64,
    /// Open client connections.
    pub connections: u64,
    /// The same by what carries them.
    pub connections_by: Vec<ConnectionCount>,
    /// Live sessions by namespace.
    pub namespaces: BTreeMap<String, u64>,
    /// Live and resumable sessions.
    pub sessions: u64,
    /// Rooms with members on it.
    pub rooms: u64,
    /// How far it is behind the log.
    pub lag_ms: u64,
    /// Bytes that wait for clients.
    pub outbox_bytes: u64,
    /// What it holds of `limits.memory`.
    pub memory_bytes: u64,
    /// `limits.memory`.
    pub memory_limit_bytes: u64,
    /// Events accepted since its start.
    pub events_total: u64,
    /// Events handed to connections since its start.
    pub deliveries_total: u64,
    /// Connections closed since its start.
    pub closes_total: u64,
    /// Events not delivered since its start.
    pub drops_total: u64,
    /// Differs between nodes whose configurations differ in a key that they should share; empty: it does not say.
    pub config: String,
    /// Keys that were changed and need its restart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
    /// A drain that an operator asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
}

/// How many clients one kind of connection carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionCount {
    /// `websocket`, `polling` or `sse`.
    pub transport: String,
    /// `socketio`, `ws` or `sse`.
    pub protocol: String,
    /// So many.
    pub connections: u64,
}

/// How far a drain has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrainStatus {
    /// The time over which connections are closed.
    pub over_ms: u64,
    /// Since it was asked for.
    pub elapsed_ms: u64,
    /// Connections when it was asked for.
    pub connections: u64,
    /// Of these and those that came late, how many are open.
    pub left: u64,
    /// Whether all are closed.
    pub done: bool,
}

/// Which rooms are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoomsQuery {
    /// What their names begin with.
    pub prefix: String,
    /// At most so many.
    pub limit: usize,
    /// Those behind this room of this namespace.
    pub after: Option<(String, String)>,
}

/// A room with members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoomCount {
    /// Its name.
    pub room: String,
    /// Its namespace.
    pub namespace: String,
    /// Sessions in it.
    pub connections: u64,
}

/// Which sessions are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionsQuery {
    /// Those of this user.
    pub user: Option<String>,
    /// Those in this room, in whatever namespace.
    pub room: Option<String>,
    /// At most so many.
    pub limit: usize,
    /// Those behind this place, on this node.
    pub after: Option<SessionPlace>,
}

/// Where a session is on its node. Sessions are listed in this order, so that a cursor survives what comes and goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionPlace {
    /// Its shard.
    pub shard: u8,
    /// Its key there.
    pub key: u64,
}

/// A live session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionView {
    /// Its id, as its client knows it.
    pub session: String,
    /// Its node.
    pub node: String,
    /// Where it is there.
    pub place: SessionPlace,
    /// Its connection, on its shard. Sessions of several namespaces may share one.
    pub connection: u64,
    /// Whose it is.
    pub user: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// `websocket`, `polling` or `sse`.
    pub transport: Option<String>,
    /// `socketio`, `ws` or `sse`.
    pub protocol: Option<String>,
    /// Where its client is.
    pub address: Option<String>,
    /// When it began on this node, in Unix milliseconds.
    pub since_ms: u64,
    /// Its rooms; in a list, as many as fit into a kilobyte.
    pub rooms: Vec<String>,
    /// How many rooms it is in.
    pub room_count: u64,
    /// Bytes that wait for its client.
    pub outbox_bytes: u64,
    /// When its client sent something last.
    pub last_event_in_ms: Option<u64>,
    /// When the last event that it got was accepted.
    pub last_event_out_ms: Option<u64>,
    /// When it was refused something last, in Unix milliseconds, and the code.
    pub last_refusal: Option<(u64, String)>,
}

impl SessionView {
    /// Bytes of it, near enough for limits.
    pub fn size(&self) -> usize {
        let user = self.user.as_ref().map_or(0, String::len);
        500 + user + self.namespace.len() + self.rooms.iter().map(|room| room.len() + 3).sum::<usize>()
    }
}
