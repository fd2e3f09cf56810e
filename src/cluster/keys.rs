//! Redis keys and channels of the cluster, and what its scripts share.

use crate::model::id::NodeId;

/// A node that has not sent a heartbeat for this long, three and a half intervals, counts as dead.
pub(super) const DEAD_AFTER_MS: u64 = 3_500;

/// The field of a node's session hash that holds the replication id under which all its records were written. Under
/// another one they may be as an old replica had them.
pub(super) const GENERATION_FIELD: &str = "@";

/// Lua: the replication id of this master. A failover, a restart and a loss of data each begin a new one. Where a user
/// may not ask (`+info`) it is always the same.
macro_rules! replication_id {
    () => {
        "local function replication_id()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or '-'
end
"
    };
}
pub(super) use replication_id;

/// The keys are in the slot of the log's stream, so that one script may use several.
pub(super) struct Keys {
    /// A sorted set: when each node sent its last heartbeat, by Redis' clock.
    pub nodes: String,
    /// The key with which nodes sign their messages now.
    pub signing_key: String,
    /// Revoked users and tokens.
    pub revoked: String,
    /// A hash: the signing keys before and after it, since when each counts, and the key of ids.
    pub key_ring: String,
    /// A hash: what each live node understands, by its name. Nodes before there was such a hash are not in it.
    pub features: String,
    /// Prefix of the nodes' session hashes.
    pub sessions: String,
    /// Prefix of the nodes' channels.
    pub channels: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let key = |name: &str| format!("{prefix}:{{{prefix}:events}}:{name}");
        Self {
            nodes: key("nodes"),
            signing_key: key("seal"),
            revoked: key("revoked"),
            key_ring: key("keys"),
            features: key("features"),
            sessions: key("sessions:"),
            channels: format!("{prefix}:node:"),
        }
    }

    pub(super) fn sessions_of(&self, node: NodeId) -> String {
        format!("{}{node}", self.sessions)
    }

    pub(super) fn channel_of(&self, node: NodeId) -> String {
        format!("{}{node}", self.channels)
    }
}
