//! The backend: requests by signed webhook or by Redis stream, their answers, and notices.
//!
//! `client` bounds and times requests, `webhook` and `stream` carry them, `request` and `answer` encode and decode them,
//! `notices` retries what needs no answer.

pub mod answer;
mod circuit_breaker;
mod client;
pub mod config;
mod error;
mod notices;
pub mod request;
mod stream;
mod webhook;

pub use client::{Backend, BackendTransport};
pub use error::BackendError;
pub use stream::BackendStream;
pub use webhook::Webhook;

/// Requests at once, of all kinds. Others wait, within their timeout.
const MAX_IN_FLIGHT: usize = 64;
