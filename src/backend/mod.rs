//! The backend: signed webhooks, or a stream, that ask it about joins and events, and tell it who came and went.

pub mod answer;
mod breaker;
pub mod call;
pub mod config;
mod error;
mod inbox;
mod notices;
mod requests;
mod webhook;

pub use error::BackendError;
pub use inbox::Inbox;
pub use requests::{Backend, Way};
pub use webhook::Webhook;
