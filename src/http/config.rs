//! `listen`, `admin_listen`, `[publish]`, `[console]` and `[cors]`.

use crate::model::network::Network;
use crate::model::secret::Secret;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where the node listens.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// For everything, or for clients only if there is an `admin_listen`.
    pub listen: SocketAddr,
    /// For `/metrics`, `/publish` and the admin API, if set.
    pub admin_listen: Option<ListenAddress>,
    /// The rights of its file, if that is a Unix socket.
    pub admin_socket_mode: u32,
}

/// Where operators reach the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address.
    Tcp(SocketAddr),
    /// A Unix socket, by its path.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)), admin_listen: None, admin_socket_mode: 0o600 }
    }
}

/// `[http]`.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// How long a kept-alive connection may wait for its next request. Longer than that of a proxy in front: if the
    /// node closes first, a request of the proxy may fail.
    pub idle_timeout: Duration,
    /// How long the head of a request may take: the first from the TCP connection on, a later one from its first byte.
    pub head_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it; streams have their own limit.
    pub write_timeout: Duration,
    /// Names by which the node may be reached; without any, all.
    pub allowed_hosts: Vec<String>,
    /// Proxies that name the clients of their requests.
    pub trusted_proxies: Vec<Network>,
    /// Whether every connection of `listen` begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(75),
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

/// `[publish]`.
#[derive(Clone, Debug)]
pub struct PublishConfig {
    /// Bearer keys. Without any, `/publish` and the admin API answer 403.
    pub keys: Vec<Secret>,
    /// Bytes of a request body. A longer one gets 413.
    pub max_body: usize,
    /// Bytes of one event's arguments.
    pub max_event: usize,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self { keys: Vec::new(), max_body: 5_000_000, max_event: 1_000_000 }
    }
}

/// `[console]`.
#[derive(Clone, Debug)]
pub struct ConsoleConfig {
    /// Whether `/console` is served.
    pub enabled: bool,
    /// After which an operator gives the key again.
    pub session_ttl: Duration,
    /// How often one address may give a key, right or wrong.
    pub sign_ins_per_minute: u32,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self { enabled: true, session_ttl: Duration::from_secs(12 * 3600), sign_ins_per_minute: 10 }
    }
}

/// `[cors]`.
#[derive(Clone, Debug, Default)]
pub struct CorsConfig {
    /// Allowed origins besides the node's own; `*` allows all.
    pub origins: Vec<String>,
    /// Whether pages of this machine may connect from any port, as under `roomcast dev`. Not a setting.
    pub localhost: bool,
}
