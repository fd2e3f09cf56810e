//! Webhooks and the inbox stream to the backend.

pub mod config;
