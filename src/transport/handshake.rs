//! What the request of an Engine.IO WebSocket says, be it a new connection or one that takes over from polling.

use crate::session::connection::{Connection, ConnectionUse};

/// What the request of a WebSocket says besides its headers for the protocol itself.
#[derive(Default)]
pub struct WebSocketHandshake {
    /// The token in its header or query.
    pub token: Option<Box<str>>,
    /// `b64=1`: the client takes no binary frames.
    pub base64: bool,
    /// Whom the connection is for, as far as the listener tells.
    pub of: ConnectionUse,
}

impl WebSocketHandshake {
    /// Keeps it on the connection. A token that the connection has from its first request stays, as the reference keeps the
    /// handshake of the first request.
    pub fn apply(self, connection: &mut Connection) {
        connection.keep_token(self.token);
        if self.base64 {
            connection.handshake.get_or_insert_default().base64 = true;
        }
        if self.of != ConnectionUse::Clients && connection.use_of() == ConnectionUse::Clients {
            connection.handshake.get_or_insert_default().of = self.of;
        }
    }
}
