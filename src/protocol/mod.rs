//! Wire formats without I/O: bytes in, messages out, and back. No clock, no sockets, everything bounded.
//!
//! `websocket` frames carry either `engineio` packets, which carry `socketio` packets, or the `json` messages of `/ws`;
//! `sse` stands alone. Arguments of events pass through as raw JSON text, never as a tree.

pub mod base64;
pub mod engineio;
pub(crate) mod event_fields;
pub mod json_text;
pub mod msgpack;
pub mod plain_ws;
pub mod publish;
pub mod query;
pub mod raw_json;
pub mod socketio;
pub mod socketio_encode;
pub mod socketio_msgpack;
pub mod sse;
pub mod websocket;
