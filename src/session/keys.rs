//! Places in the tables of a shard.

use slotmap::new_key_type;

new_key_type! {
    /// A connection's place in its shard; stale after it ended.
    pub struct ConnectionKey;
    /// A session's place in its shard; stale after it ended.
    pub struct SessionKey;
}
