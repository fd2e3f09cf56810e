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
