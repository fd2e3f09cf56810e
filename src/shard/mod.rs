//! One shard per core: its clients, their sessions, its part of every room, and how events reach them.
//!
//! A shard is one thread. [`runner::spawn`] starts it, other threads reach it by its [`handle::ShardHandle`], and code that
//! runs on it uses [`face::Shard`]. It ends with [`handle::ShardCommand::Stop`]. It knows its node only as a
//! [`context::ShardContext`] and a [`context::ShardObserver`].

mod closing;
mod commands;
mod connection_face;
mod connections;
pub mod context;
mod deadlines;
mod delivery;
pub mod ended;
pub mod explanation;
pub mod face;
mod flush;
mod flusher;
pub mod handle;
mod holdings;
mod hub;
mod hub_cell;
mod inspection;
mod last_refusals;
mod membership;
mod on_behalf;
pub mod packets;
pub mod persist;
mod presence;
pub mod release;
mod remembering;
mod replay;
mod reporting;
pub mod rooms;
pub mod runner;
pub mod session_face;
mod session_notes;
mod session_persister;
mod sessions;
pub mod settings;
mod timers;
mod written;
