//! One shard per core: its sessions, its part of every room, and how events reach them.

pub mod commands;
pub mod context;
pub mod deadlines;
pub mod delivery;
pub mod handle;
pub mod persist;
pub mod presence;
pub mod release;
pub mod rooms;
pub mod runner;
pub mod session_persister;
pub mod state;
pub mod timers;
