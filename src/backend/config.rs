//! `[backend]`.

use crate::model::secret::Secret;
use std::time::Duration;

/// Kinds that `notify` may name.
pub const NOTIFICATIONS: [&str; 6] = ["connect", "disconnect", "online", "offline", "occupied", "vacated"];

/// `[backend]`.
#[derive(Clone, Debug)]
pub struct BackendConfig {
    /// Where requests are posted. Exactly one of this and `stream` is set.
    pub url: Option<String>,
    /// The Redis stream to which they are added instead.
    pub stream: Option<String>,
    /// Entries that the stream may hold; above it requests are refused.
    pub stream_limit: u64,
    /// Signs the requests (`X-Roomcast-Signature`).
    pub secret: Option<Secret>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Kinds of notices that the backend gets, of [`NOTIFICATIONS`].
    pub notify: Vec<String>,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            url: None,
            stream: None,
            stream_limit: 100_000,
            secret: None,
            timeout: Duration::from_secs(5),
            notify: NOTIFICATIONS.iter().map(|kind| (*kind).to_owned()).collect(),
        }
    }
}
