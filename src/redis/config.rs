//! `[redis]`.

use crate::model::partition::Partitions;
use crate::model::secret::Secret;
use std::time::Duration;

/// `[redis]`. Without a URL the log is embedded.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`; may contain a password.
    pub url: Option<Secret>,
    /// Every key and channel starts with it.
    pub prefix: String,
    /// How long an append waits for Redis before it is answered 503, and the timeout of every other call.
    pub timeout: Duration,
    /// Key prefix of Socket.IO's Redis adapters and emitters whose broadcasts are delivered too, such as `socket.io`.
    pub emitter_key: Option<String>,
    /// The stream of Socket.IO's Redis Streams adapters and emitters whose broadcasts are delivered too.
    pub streams_key: Option<String>,
    /// Replicas that must have an event before its publisher gets the acknowledgement; 0 waits for none.
    pub min_replicas: u32,
    /// How long nodes sign what they send each other with one key.
    pub node_key_lifetime: Duration,
    /// Bytes that the log's stream may have in Redis; beyond it the oldest entries are trimmed.
    pub max_stream_bytes: usize,
    /// Streams over which the events are spread, beside that of the control line; 1: all are in that.
    pub partitions: u8,
    /// Parts of a room's name, split at `:`, that decide about its partition; 0: the whole name.
    pub partition_segments: u8,
}

impl RedisConfig {
    /// How rooms are spread. Without Redis the log is one line.
    pub fn layout(&self) -> Partitions {
        match self.url {
            Some(_) => Partitions::new(self.partitions, self.partition_segments),
            None => Partitions::ONE,
        }
    }

    /// The key of the log's stream; it is the hash tag of the keys that must share its slot in a Cluster.
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
            node_key_lifetime: Duration::from_secs(3600),
            max_stream_bytes: 1_000_000_000,
            partitions: 1,
            partition_segments: 0,
        }
    }
}
