//! `[explain]`.

use std::time::Duration;

/// `[explain]`.
#[derive(Clone, Debug)]
pub struct ExplainConfig {
    /// How long a node remembers what happened to sessions.
    pub window: Duration,
    /// Bytes that it uses for that. 0: only live sessions are explained.
    pub bytes: usize,
}

impl Default for ExplainConfig {
    fn default() -> Self {
        Self { window: Duration::from_secs(600), bytes: 8_000_000 }
    }
}
