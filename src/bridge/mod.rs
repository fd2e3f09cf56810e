//! From what publishers send to drafts (sans-IO). Stream entries are decoded beside their reader, in `log/redis`.
//!
//! `emitter` reads what Socket.IO's emitters and adapters publish, `command` and `python` are parts of that, `streams` reads
//! their streams; `heard` remembers what the log lacks; `redis` listens and copies.

mod command;
pub mod copy_tracker;
pub mod emitter;
mod python;
pub mod redis;
pub mod request;
pub mod streams;
