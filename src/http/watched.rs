//! The socket as hyper has it: it notes what is read and what is not taken, keeps the answer to an upgrade back, and comes
//! back when hyper has dropped its connection.

use crate::http::keep_alive::Progress;
use crate::tls::Socket;
use bytes::{Buf as _, Bytes};
use socket2::SockRef;
use std::cell::Cell;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes of a stream that the kernel may hold unsent.
const UNSENT: u32 = 64 << 10;

/// What hyper leaves behind when it has dropped its connection.
#[derive(Default)]
pub(super) struct Handoff {
    stream: Cell<Option<Socket>>,
    answer: Cell<Option<Vec<u8>>>,
    is_stream: Cell<bool>,
    is_stalled: Cell<bool>,
}

/// Room for an answer to an upgrade and what follows it in the same write.
const UPGRADE_ANSWER: usize = 384;

impl Handoff {
    /// The socket.
    pub(super) fn take_stream(&self) -> Option<Socket> {
        self.stream.take()
    }

    /// Keeps what hyper writes from now on, so that it goes out in one write with what follows.
    pub(super) fn keep_answer(&self) {
        self.answer.set(Some(Vec::with_capacity(UPGRADE_ANSWER)));
    }

    /// What was kept.
    pub(super) fn take_answer(&self) -> Vec<u8> {
        self.answer.take().unwrap_or_default()
    }

    /// Whether the answer is a stream, which has its own limit for a client that does not read.
    pub(super) fn set_stream(&self, is_stream: bool) {
        self.is_stream.set(is_stream);
    }

    /// Whether the connection ended because its client did not read an answer.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled.get()
    }

    /// How many bytes were kept; `None` if they are to be written.
    fn keeps<'a>(&self, slices: impl IntoIterator<Item = &'a [u8]>) -> Option<usize> {
        let mut answer = self.answer.take()?;
        let before = answer.len();
        slices.into_iter().for_each(|bytes| answer.extend_from_slice(bytes));
        let count = answer.len() - before;
        self.answer.set(Some(answer));
        Some(count)
    }
}

/// A socket that notes when bytes arrive. hyper drops it with a connection that broke the protocol; it comes back here.
pub(super) struct Watched {
    /// `None` only while it is dropped.
    stream: Option<Socket>,
    /// What was read before hyper had it.
    early: Bytes,
    progress: Arc<Progress>,
    handoff: Rc<Handoff>,
    /// How long the client may take nothing of an answer, and when that time is over.
    timeout: Duration,
    stall: Option<Pin<Box<Sleep>>>,
    /// The kernel holds little of a stream.
    is_bounded: bool,
}

impl Watched {
    /// A socket, and what is left of it. `early` is read before anything else.
    pub(super) fn new(stream: Socket, early: Bytes, progress: Arc<Progress>, timeout: Duration) -> (Self, Rc<Handoff>) {
        let handoff = Rc::<Handoff>::default();
        let (stream, stall, is_bounded) = (Some(stream), None, false);
        (Self { stream, early, progress, handoff: handoff.clone(), timeout, stall, is_bounded }, handoff)
    }

    fn read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..count]);
            self.early.advance(count);
            return Poll::Ready(Ok(()));
        }
        self.stream.as_mut().map_or_else(gone, |stream| Pin::new(stream).poll_read(context, buffer))
    }

    /// The kernel would take megabytes of a stream, and say that there is room again only when a third of them is sent: a client
    /// that reads slowly would look like one that does not read.
    fn bound_stream(&mut self) {
        if self.handoff.is_stream.get()
            && !std::mem::replace(&mut self.is_bounded, true)
            && let Some(stream) = &self.stream
        {
            // Without it, the stream goes out all the same.
            let _ = SockRef::from(stream.wire()).set_tcp_notsent_lowat(UNSENT);
        }
    }

    /// Ends the connection of a client that takes nothing for too long. hyper would wait forever.
    fn limit<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        if self.handoff.is_stream.get() {
            return Poll::Pending;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(self.timeout)));
        if stall.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.handoff.is_stalled.set(true);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.handoff.stream.set(self.stream.take());
    }
}

/// The error of a socket that is used after it was returned, which does not happen.
fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.read(context, buffer);
        let count = buffer.filled().len() - before;
        match count > 0 && !self.progress.note_bytes(count) {
            true => Poll::Ready(Err(io::ErrorKind::OutOfMemory.into())),
            false => read,
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(count) = self.handoff.keeps([bytes]) {
            return Poll::Ready(Ok(count));
        }
        self.bound_stream();
        let written = self.stream.as_mut().map_or_else(gone, |stream| Pin::new(stream).poll_write(context, bytes));
        self.limit(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.as_mut().map_or_else(gone, |stream| Pin::new(stream).poll_flush(context));
        self.limit(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().map_or_else(gone, |stream| Pin::new(stream).poll_shutdown(context))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(count) = self.handoff.keeps(slices.iter().map(|slice| &**slice)) {
            return Poll::Ready(Ok(count));
        }
        self.bound_stream();
        let stream = self.stream.as_mut();
        let written = stream.map_or_else(gone, |stream| Pin::new(stream).poll_write_vectored(context, slices));
        self.limit(written, context)
    }
}
