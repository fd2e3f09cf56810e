//! The Redis client: which server holds the data (one server, Sentinel, Cluster), connections, scripts. It knows nothing
//! of what is stored.
//!
//! A task owns its connection, and connects again when a call fails:
//!
//! ```ignore
//! let mut reconnect = Reconnect::default();
//! loop {
//!     let Err(error) = work(&mut reconnect).await; // opens a `RedisConnection`, calls `reconnect.reset()`, works
//!     reconnect.wait("appending", &connector, &error).await;
//! }
//! ```

pub(crate) mod clock;
pub(crate) mod command;
pub mod config;
pub(crate) mod connection;
mod dial;
pub(crate) mod direct;
pub(crate) mod discovery;
pub(crate) mod error;
pub(crate) mod reconnect;
pub(crate) mod reply;
pub mod resp;
pub(crate) mod script;
pub(crate) mod socket;
pub mod url;
