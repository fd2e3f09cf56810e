//! `listen`, `admin_listen`, `[publish]` and `[cors]`.

use crate::model::secret::Secret;
use std::net::{Ipv4Addr, SocketAddr};

/// Where the node listens.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// HTTP, WebSocket, everything.
    pub listen: SocketAddr,
    /// If set, `/metrics`, `/publish` and the admin API are here instead.
    pub admin_listen: Option<SocketAddr>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)), admin_listen: None }
    }
}

/// `[publish]`.
#[derive(Clone, Debug)]
pub struct PublishConfig {
    /// Bearer keys; none: `/publish` and the admin API answer 403.
    pub keys: Vec<Secret>,
    /// Bytes of a request body; over it 413.
    pub max_body: usize,
    /// Bytes of one event's arguments.
    pub max_event: usize,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self { keys: Vec::new(), max_body: 5_000_000, max_event: 1_000_000 }
    }
}

/// `[cors]`.
#[derive(Clone, Debug, Default)]
pub struct CorsConfig {
    /// Allowed origins besides the same one; `*` allows all.
    pub origins: Vec<String>,
}
