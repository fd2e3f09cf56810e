//! The protocols of clients, and the transports below them.

/// A client's protocol: the `protocol` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Socket.IO.
    SocketIo,
    /// JSON on `/ws`.
    PlainWs,
    /// Server-Sent Events.
    Sse,
}

/// What carries a client's protocol: the `transport` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// WebSocket.
    WebSocket,
    /// HTTP long-polling.
    Polling,
    /// A streamed response.
    Sse,
}

impl Protocol {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::SocketIo, Self::PlainWs, Self::Sse];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::SocketIo => "socketio",
            Self::PlainWs => "ws",
            Self::Sse => "sse",
        }
    }
}

impl Transport {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Polling => "polling",
            Self::Sse => "sse",
        }
    }
}
