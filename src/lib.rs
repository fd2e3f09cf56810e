//! roomcast: a realtime broker that sits beside an existing backend. ARCHITECTURE.md has the map.

pub mod app;
pub mod auth;
pub mod backend;
pub mod causes;
pub mod cli;
pub mod client;
pub mod close;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod draft;
pub mod event;
pub mod http;
pub mod hub;
pub mod id;
pub mod ingest;
pub mod log;
pub mod metrics;
pub mod order;
pub mod presence;
pub mod protocol;
pub mod rules;
pub mod secret;
pub mod session;
pub mod shutdown;
pub mod transport;
