//! One shard per core: its sessions, its part of every room, and how events reach them.

pub mod deadlines;
pub mod delivery;
pub mod drain;
pub mod feed;
pub mod heartbeat;
pub mod ledger;
pub mod members;
pub mod node;
pub mod orders;
pub mod presence;
pub mod probe;
pub mod release;
pub mod rooms;
pub mod select;
pub mod shard;
pub mod table;
