//! How clients speak, and how their bytes move.

/// How a client speaks: the `protocol` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Socket.IO.
    SocketIo,
    /// JSON on `/ws`.
    PlainWs,
    /// Server-Sent Events.
    Sse,
}

/// How bytes move: the `transport` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// WebSocket.
    WebSocket,
    /// HTTP long-polling.
    Polling,
    /// A streamed response.
    Sse,
}
