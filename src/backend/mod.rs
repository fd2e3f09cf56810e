//! The backend: signed webhooks that ask it about joins and events, and tell it who came and went.

pub mod answer;
mod breaker;
pub mod call;
pub mod config;
mod error;
mod notices;
mod webhook;

pub use error::BackendError;
pub use webhook::Backend;
