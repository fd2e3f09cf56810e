//! The base words that all modules share: names, positions, arguments, events, commands, reasons.

pub mod address;
pub mod after;
pub mod args;
pub mod clock;
pub mod close;
pub mod command;
pub mod draft;
pub mod error_chain;
pub mod event;
pub mod happening;
pub mod http_url;
pub mod id;
pub mod millis;
pub mod names;
pub mod namespaces;
pub mod network;
pub mod number;
pub mod offset;
pub mod partition;
pub mod place;
pub mod provenance;
pub mod refusal;
pub mod secret;
pub mod session_note;
pub mod trace_context;
pub mod transport;
