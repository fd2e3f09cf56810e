//! A connection that reads replies where they arrive, for what is read at a high rate: it has no task of its own, so one
//! reply is one wake of the caller, and nothing is copied.

use crate::redis::error::RedisError;
use crate::redis::resp::{RespError, Scanner, Tokens, value};
use crate::redis::socket::{RedisSocket, disconnected};
use redis::{ConnectionInfo, Value};
use std::io;
use std::ops::Range;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes that there is room for before the socket is read.
const READ_BYTES: usize = 16 << 10;
/// The first byte of a message that is no reply (RESP3).
const PUSH: u8 = b'>';
/// A buffer keeps this much for the next replies.
const KEPT_BYTES: usize = 1 << 20;

/// The replies to some commands, where they arrived. To be used again and again.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    bytes: Vec<u8>,
    /// Where each reply is.
    places: Vec<Range<usize>>,
    /// Replies, and messages that are none, end here.
    end: usize,
}

impl Replies {
    /// The reply to the command of this index.
    pub(crate) fn get(&self, index: usize) -> Option<Tokens<'_>> {
        Some(Tokens::new(self.bytes.get(self.places.get(index)?.clone())?))
    }

    /// The last reply, and the one before it first.
    pub(crate) fn last_two(&self) -> [Option<Tokens<'_>>; 2] {
        [2, 1].map(|back| self.get(self.places.len().checked_sub(back)?))
    }

    fn clear(&mut self) {
        self.places.clear();
        self.end = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
    }

    /// Makes room for a reply that has at least so many bytes.
    fn reserve(&mut self, at_least: usize) {
        let missing = (self.end + at_least).saturating_sub(self.bytes.len());
        if self.bytes.capacity() - self.bytes.len() < missing.max(READ_BYTES / 2) {
            self.bytes.reserve(missing.max(READ_BYTES));
        }
    }
}

/// See the module.
pub(super) struct DirectConnection {
    socket: RedisSocket,
    max_reply: usize,
    /// Whether commands were sent whose replies were not read: what comes next would be taken for the reply to others.
    is_broken: bool,
    /// Whether a tracked key was changed since this was asked last.
    is_changed: bool,
    /// The beginning of messages that came after the last reply.
    rest: Vec<u8>,
    replies: Replies,
}

impl DirectConnection {
    /// Connects and logs in within the timeout. A reply with more than `max_reply` bytes breaks the connection.
    pub(super) async fn open(info: &ConnectionInfo, timeout: Duration, max_reply: usize) -> Result<Self, RedisError> {
        let socket = RedisSocket::open(info, timeout).await?;
        let (rest, replies) = (Vec::new(), Replies::default());
        Ok(Self { socket, max_reply, is_broken: false, is_changed: false, rest, replies })
    }

    /// Whether a tracked key was changed since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Sends commands as they are and reads their replies. After an error, or when it is dropped before it completes, the
    /// connection cannot be used any more.
    pub(super) async fn exchange(
        &mut self,
        commands: &[u8],
        count: usize,
        timeout: Duration,
        replies: &mut Replies,
    ) -> Result<(), RedisError> {
        if std::mem::replace(&mut self.is_broken, true) {
            return Err(disconnected(io::Error::other("an earlier call did not end")));
        }
        let exchange = self.exchange_untimed(commands, count, replies);
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(RedisError::Timeout(timeout)))?;
        self.is_broken = false;
        Ok(())
    }

    async fn exchange_untimed(
        &mut self,
        commands: &[u8],
        count: usize,
        replies: &mut Replies,
    ) -> Result<(), RedisError> {
        self.socket.write_all(commands).await.map_err(disconnected)?;
        self.socket.flush().await.map_err(disconnected)?;
        replies.clear();
        replies.bytes.append(&mut self.rest);
        let mut scanner = Scanner::new(self.max_reply);
        while replies.places.len() < count || replies.bytes.get(replies.end) == Some(&PUSH) {
            let start = replies.end;
            match scanner.scan(&replies.bytes[start..]).map_err(|error| self.explain(error))? {
                Some(bytes) => {
                    replies.end += bytes;
                    match replies.bytes[start] {
                        // Only changes of tracked keys come unasked.
                        PUSH => self.is_changed = true,
                        _ => replies.places.push(start..replies.end),
                    }
                }
                None if replies.places.len() == count => break,
                None => {
                    replies.reserve(scanner.at_least());
                    if self.socket.read_buf(&mut replies.bytes).await.map_err(disconnected)? == 0 {
                        return Err(disconnected(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
        self.rest.extend_from_slice(&replies.bytes[replies.end..]);
        match self.rest.first() {
            None | Some(&PUSH) => Ok(()),
            Some(_) => Err(RedisError::UnexpectedReply("more than was asked")),
        }
    }

    /// The same, with the replies as values of the client library.
    pub(super) async fn values(
        &mut self,
        commands: &[u8],
        count: usize,
        timeout: Duration,
    ) -> Result<Vec<Value>, RedisError> {
        let mut replies = std::mem::take(&mut self.replies);
        let exchanged = self.exchange(commands, count, timeout, &mut replies).await;
        let read = |index| replies.get(index).and_then(|mut tokens| value(&mut tokens));
        let values = exchanged
            .and_then(|()| (0..count).map(read).collect::<Option<_>>().ok_or(RedisError::UnexpectedReply("a command")));
        self.replies = replies;
        values
    }

    fn explain(&self, error: RespError) -> RedisError {
        match error {
            RespError::TooLarge => RedisError::ReplyTooLarge(self.max_reply),
            RespError::Malformed | RespError::TooDeep => RedisError::Disconnected(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reply_is_found_and_room_is_made_for_what_comes() {
        let mut replies = Replies { bytes: b":1\r\n+OK\r\n".to_vec(), places: vec![0..4, 4..9], end: 9 };
        let one = |index| replies.get(index).and_then(|mut tokens| value(&mut tokens));
        assert_eq!([one(0), one(1), one(2)], [Some(Value::Int(1)), Some(Value::Okay), None]);
        let last = replies.last_two().map(|reply| reply.and_then(|mut tokens| value(&mut tokens)));
        assert_eq!(last, [Some(Value::Int(1)), Some(Value::Okay)]);
        replies.reserve(100_000);
        assert!(replies.bytes.capacity() >= 100_009);
        replies.reserve(KEPT_BYTES * 2);
        replies.clear();
        assert!(replies.bytes.capacity() <= KEPT_BYTES && replies.get(0).is_none());
    }
}
