//! `[console] admin_ui` and its limits.

use crate::model::secret::Secret;
use std::time::Duration;

/// Settings of Socket.IO's Admin UI.
#[derive(Clone, Debug)]
pub struct AdminUiConfig {
    /// Whether the namespace `/admin` is there.
    pub enabled: bool,
    /// Whether it only shows.
    pub readonly: bool,
    /// Sockets that a page gets, of all nodes together. 0: none, as `mode: "production"` of the real package.
    pub sockets: usize,
    /// Events that a page gets in a second, by name. 0: none.
    pub events: usize,
    /// Pages of this node at once.
    pub sessions: usize,
}

impl Default for AdminUiConfig {
    fn default() -> Self {
        Self { enabled: false, readonly: false, sockets: 1_000, events: 20, sessions: 8 }
    }
}

/// What the node knows of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings.
    pub config: AdminUiConfig,
    /// The keys of operators: its passwords.
    pub keys: Vec<Secret>,
    /// How long a page may come back without the password, and stays connected: `console.session_ttl`.
    pub lifetime: Duration,
    /// Wrong passwords of an address in a minute: `console.sign_ins_per_minute`.
    pub guesses_per_minute: u32,
    /// Whether operators have a listener of their own, so that the page is not served on that of clients.
    pub admin_apart: bool,
}
