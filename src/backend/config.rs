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
    /// How long an answer may take, from the arrival of what needs it.
    pub timeout: Duration,
    /// Requests under way at once, notices apart.
    pub concurrency: usize,
    /// The same of one user, or of an address of anonymous clients.
    pub per_user: usize,
    /// Requests that may wait or be under way, in sum.
    pub queue: usize,
    /// The same of one user.
    pub queue_per_user: usize,
    /// Bytes of the packets that wait, in sum. One user has at most a sixteenth of what is free.
    pub queue_bytes: usize,
    /// Bytes of the notices that wait. Over it the user or address with most of them loses the oldest.
    pub notices_bytes: usize,
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
            concurrency: 64,
            per_user: 8,
            queue: 10_000,
            queue_per_user: 500,
            queue_bytes: 64_000_000,
            notices_bytes: 16_000_000,
            notify: NOTIFICATIONS.iter().map(|kind| (*kind).to_owned()).collect(),
        }
    }
}
