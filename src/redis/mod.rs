//! The Redis client: where the data is (one server, Sentinel, Cluster), connections that are made again, scripts.
//! It knows nothing of what is stored.

pub(crate) mod backoff;
pub(crate) mod clock;
pub mod config;
pub(crate) mod connection;
pub(crate) mod discovery;
pub(crate) mod reply;
pub(crate) mod script;
pub mod url;
