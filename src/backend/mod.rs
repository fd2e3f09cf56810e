//! The backend: requests by signed webhook or by Redis stream, their answers, and notices.
//!
//! `client` bounds and times requests: `places` says how many may wait, `turns` whose is next. `webhook` and `stream` carry
//! them, `request` and `answer` encode and decode them. `sender` sends and retries what needs no answer, from `notices`,
//! whose order and bounds are in `notice_queue`. A `source` is who has to pay for all of it.

pub mod answer;
mod circuit_breaker;
mod client;
pub mod config;
mod error;
mod notice_queue;
mod notices;
mod places;
pub mod request;
mod sender;
mod source;
mod stream;
mod turns;
mod webhook;

pub use client::{Backend, BackendTransport, PreparedBackend};
pub use error::BackendError;
pub use notice_queue::Subject;
pub use places::Place;
pub use sender::run;
pub use source::Source;
pub use stream::BackendStream;
pub use webhook::Webhook;

/// Notices under way at once. They take none of the places of requests.
const MAX_SENDING: usize = 16;
