//! roomcast: a realtime broker that sits beside an existing backend. ARCHITECTURE.md has the map.

pub mod app;
pub mod auth;
pub mod backend;
pub mod bridge;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod handlers;
pub mod http;
pub mod log;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod node;
pub mod peer;
pub mod peer_server;
pub mod presence;
pub mod protocol;
pub mod redis;
pub mod refusals;
pub mod rules;
pub mod session;
pub mod shard;
pub mod shutdown;
pub mod transport;
