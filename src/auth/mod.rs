//! From a token to an identity.

pub mod config;
