//! Server-Sent Events: a streamed response body that takes the outbox.

use crate::node::context::LocalNode;
use crate::session::accepted::AcceptedSocket;
use crate::session::connection::ConnectionKey;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The body of an SSE response; its connection ends with it.
pub struct SseBody {
    local: Rc<LocalNode>,
    key: ConnectionKey,
    /// Proven while it carries the stream.
    socket: Arc<AcceptedSocket>,
}

impl SseBody {
    /// The body for a connection of this shard.
    pub fn new(local: Rc<LocalNode>, key: ConnectionKey, socket: Arc<AcceptedSocket>) -> Self {
        Self { local, key, socket }
    }
}

impl Body for SseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.local.shard.poll_stream(self.key, context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for SseBody {
    fn drop(&mut self) {
        self.local.shard.remove(self.key);
        self.socket.rest();
    }
}
