//! How bytes move: WebSocket, long-polling, Server-Sent Events.

pub mod adopt;
pub mod handshake;
pub mod packets;
pub mod polling;
pub mod sse;
pub mod upgrade;
pub mod websocket;
