//! A TCP connection that breaks when a reply is larger than allowed: somebody else may have put hundreds of megabytes into
//! one entry of a stream, and a reply is kept in memory as a whole.

use crate::redis::error::{RedisError, with_timeout};
use redis::AsyncConnectionConfig;
use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes of one reply, or of the replies to one pipeline.
#[derive(Debug)]
pub(super) struct ReplyLimit {
    max: usize,
    read: AtomicUsize,
    is_over: AtomicBool,
}

impl ReplyLimit {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, read: AtomicUsize::new(0), is_over: AtomicBool::new(false) })
    }

    /// The next reply begins.
    pub(super) fn begin(&self) {
        self.read.store(0, Ordering::Relaxed);
    }

    /// The error of a call, where it was that its reply is too large.
    pub(super) fn explain(&self, error: RedisError) -> RedisError {
        match self.is_over.load(Ordering::Relaxed) {
            true => RedisError::ReplyTooLarge(self.max),
            false => error,
        }
    }
}

struct Bounded {
    stream: TcpStream,
    limit: Arc<ReplyLimit>,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        if self.limit.read.fetch_add(read, Ordering::Relaxed) + read <= self.limit.max {
            return Poll::Ready(Ok(()));
        }
        self.limit.is_over.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::other("the reply is too large")))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Connects and authenticates within the timeout.
pub(super) async fn dial(
    address: (&str, u16),
    info: &ConnectionInfo,
    config: AsyncConnectionConfig,
    limit: Arc<ReplyLimit>,
    timeout: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    with_timeout(timeout, async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = Bounded { stream, limit };
        let (connection, driver) =
            MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await?;
        // It ends when the connection is dropped and what was sent is answered.
        tokio::spawn(driver);
        Ok(connection)
    })
    .await
}
