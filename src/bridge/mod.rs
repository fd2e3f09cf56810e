//! The bridge to Socket.IO: what its Redis emitters and adapters publish is copied into the log.
//!
//! `emitter` decodes messages by their channel, with `command` and `python` for two of the formats; `streams` decodes stream
//! entries; `request` has what they share. `copy_tracker` knows what the log lacks. `redis` subscribes and copies.

mod command;
pub mod copy_tracker;
pub mod emitter;
mod python;
pub mod redis;
pub mod request;
pub mod streams;
