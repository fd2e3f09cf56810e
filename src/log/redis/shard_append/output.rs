//! Bytes on their way to Redis.

use crate::redis::error::RedisError;
use crate::redis::socket::{RedisSocket, disconnected};
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite as _;

/// A buffer that has grown beyond this by a burst is given back.
const KEPT_BYTES: usize = 256 << 10;

/// Bytes that are written before anything else is.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Where more is added.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ready when all is written.
    pub(super) fn poll_write(
        &mut self,
        socket: &mut RedisSocket,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), RedisError>> {
        if self.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.bytes.len() {
            let rest = &self.bytes[self.written..];
            match ready!(Pin::new(&mut *socket).poll_write(context, rest)).map_err(disconnected)? {
                0 => return Poll::Ready(Err(disconnected(ErrorKind::WriteZero.into()))),
                bytes => self.written += bytes,
            }
        }
        ready!(Pin::new(socket).poll_flush(context)).map_err(disconnected)?;
        self.written = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}
