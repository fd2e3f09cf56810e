//! Wire formats, Sans-IO: bytes in, messages out, and back. Everything is limited in size.
//!
//! ```
//! use roomcast::protocol::engineio;
//! use roomcast::protocol::socketio::{Decoder, Packet};
//!
//! let Ok(engineio::Packet::Message(text)) = engineio::parse(r#"42["hello",{"n":1}]"#) else { panic!("a message") };
//! let Ok(Some(Packet::Event { event, args, .. })) = Decoder::new().text(text) else { panic!("an event") };
//! assert_eq!((&*event, args.inner()), ("hello", r#"{"n":1}"#));
//! ```
//!
//! `websocket` frames carry `engineio` packets, which carry `socketio` packets, or the `plain_ws` messages of `/ws`.
//! `sse` is for event streams. The arguments of events pass through as raw JSON text and never become a tree.

pub mod admin_ui;
pub mod base64;
pub mod engineio;
pub(crate) mod event_fields;
pub mod http1;
pub mod json_object;
pub mod json_text;
pub mod msgpack;
pub mod plain_ws;
pub mod proxy_header;
pub mod publish;
pub mod query;
pub mod raw_json;
pub mod socketio;
pub mod socketio_encode;
pub mod socketio_msgpack;
pub mod sse;
pub mod websocket;
