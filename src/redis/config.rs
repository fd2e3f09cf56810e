//! `[redis]`.

use crate::model::secret::Secret;
use std::time::Duration;

/// `[redis]`. Without a URL the log is embedded.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`; holds a password.
    pub url: Option<Secret>,
    /// Every key and channel starts with it.
    pub prefix: String,
    /// How long an append waits for Redis before it is answered 503.
    pub timeout: Duration,
    /// The key prefix of Socket.IO's Redis adapters and emitters whose broadcasts are delivered too: `socket.io`.
    pub emitter_key: Option<String>,
    /// The stream of Socket.IO's Redis Streams adapters and emitters whose broadcasts are delivered too.
    pub streams_key: Option<String>,
    /// Replicas that must have an event before it is acknowledged to its publisher; 0: none.
    pub min_replicas: u32,
}

impl RedisConfig {
    /// The key of the log's stream. What shares its slot of a Cluster has it as its hash tag.
    pub fn events_key(&self) -> String {
        format!("{}:events", self.prefix)
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: None,
            prefix: "roomcast".into(),
            timeout: Duration::from_secs(2),
            emitter_key: None,
            streams_key: None,
            min_replicas: 0,
        }
    }
}
