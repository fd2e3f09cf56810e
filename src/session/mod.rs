//! Sessions.

pub mod config;
