//! The backend: signed webhooks, or a stream, that ask it about joins and events, and tell it who came and went.

pub mod answer;
mod breaker;
pub mod call;
pub mod config;
mod error;
mod notices;
mod requests;
mod stream;
mod webhook;

pub use error::BackendError;
pub use requests::{Backend, BackendTransport};
pub use stream::BackendStream;
pub use webhook::Webhook;
