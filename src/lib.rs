//! roomcast: a realtime broker that sits beside an existing backend. ARCHITECTURE.md has the map.

pub mod auth;
pub mod close;
pub mod draft;
pub mod event;
pub mod http;
pub mod id;
pub mod log;
pub mod metrics;
pub mod protocol;
pub mod rules;
pub mod secret;
pub mod session;
pub mod shutdown;
