//! The connection of a shard's appender: writes what waits and matches replies with it, in order.

use crate::log::AppendError;
use crate::log::redis::RedisLog;
use crate::log::redis::append_error::{timed_out, unavailable};
use crate::log::redis::shard_append::appender::ShardAppender;
use crate::log::redis::shard_append::output::Output;
use crate::log::redis::shard_append::pending::PendingAppend;
use crate::log::redis::shard_append::round::Round;
use crate::log::redis::shard_append::unanswered::Unanswered;
use crate::log::redis::transaction::{ADD_ONCE, PUBLISH_ONCE};
use crate::redis::clock::RedisClock;
use crate::redis::command::{Arguments as _, CommandWriter};
use crate::redis::error::RedisError;
use crate::redis::resp::{Scanner, Token, Tokens};
use crate::redis::socket::{RedisSocket, disconnected};
use crate::redis::url::Address;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, Sleep};

/// Above this many bytes without a reply nothing more is sent: it waits where it can still expire.
const MAX_UNANSWERED: usize = 1 << 20;
/// Bytes of one reply: an id, an error, the time.
const MAX_REPLY: usize = 64 << 10;
/// Bytes that one read has room for.
const READ_BYTES: usize = 4 << 10;
/// While something is appended, Redis is asked for its time so often.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Connection<'a> {
    log: &'a RedisLog,
    appender: &'a ShardAppender,
    /// Of its acknowledged positions.
    index: usize,
    socket: RedisSocket,
    output: Output,
    unanswered: Unanswered,
    input: Vec<u8>,
    scanner: Scanner,
    clock: RedisClock,
    timer: Pin<Box<Sleep>>,
    timer_is_set: bool,
    /// Whether something had no reply in time. The connection then ends with the last append that may still have one.
    is_late: bool,
}

impl<'a> Connection<'a> {
    pub(super) async fn open(
        log: &'a RedisLog,
        appender: &'a ShardAppender,
        index: usize,
        address: &Address,
    ) -> Result<Self, RedisError> {
        let socket = log.connector.open_socket(address, log.timeout).await?;
        let mut connection = Self {
            log,
            appender,
            index,
            socket,
            output: Output::default(),
            unanswered: Unanswered::default(),
            input: Vec::new(),
            scanner: Scanner::new(MAX_REPLY),
            clock: RedisClock::now(0),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_is_set: false,
            is_late: false,
        };
        connection.cache_scripts();
        connection.ask_time();
        let asked = poll_fn(|context| match connection.poll(context) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending if connection.unanswered.is_asking_time() => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        });
        tokio::time::timeout(log.timeout, asked).await.unwrap_or(Err(RedisError::Timeout(log.timeout)))?;
        Ok(connection)
    }

    /// From now on callers append over this connection.
    pub(super) fn begin(&self) {
        self.appender.lock().begin(self.clock);
    }

    /// Sends and receives until that fails.
    pub(super) async fn run(&mut self) -> RedisError {
        poll_fn(|context| self.poll(context)).await
    }

    /// Answers everybody: what was sent may be in the log or not, what was not is appended elsewhere.
    pub(super) fn fail(&mut self, error: RedisError) -> RedisError {
        let failed = unavailable(&error);
        for append in self.unanswered.take_appends() {
            append.finish(&self.log.backlog, || Err(failed.clone()));
        }
        self.take_no_more(&failed);
        self.log.acknowledged.disconnected(self.index);
        error
    }

    /// From now on callers append elsewhere, as do those whose appends were not sent.
    fn take_no_more(&self, failed: &AppendError) {
        let not_sent = self.appender.lock().end();
        for mut append in not_sent {
            append.repeat_all();
            append.finish(&self.log.backlog, || Err(failed.clone()));
        }
    }

    /// Ready when the connection is broken.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<RedisError> {
        loop {
            let was_blocked = !self.output.is_empty();
            self.take_waiting(context);
            match self.output.poll_write(&mut self.socket, context) {
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                // More may wait since.
                Poll::Ready(Ok(())) if was_blocked => continue,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            match self.poll_read(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => break,
            }
        }
        self.poll_timer(context)
    }

    /// Takes what callers have written, as far as it may be sent now.
    fn take_waiting(&mut self, context: &Context<'_>) {
        let mut state = self.appender.lock();
        state.note_waker(context);
        let pending = state.pending();
        if pending.is_empty() || !self.output.is_empty() || self.unanswered.bytes() >= MAX_UNANSWERED {
            return;
        }
        let now = Instant::now();
        pending.expire(now, |append| append.finish(&self.log.backlog, || Err(timed_out(self.log.timeout))));
        let room = MAX_UNANSWERED - self.unanswered.bytes();
        self.unanswered.push_appends(pending.take(room, self.output.buffer()));
        drop(state);
        if !self.output.is_empty() && !self.unanswered.is_asking_time() && self.clock.age(now) >= CLOCK_INTERVAL {
            self.ask_time();
        }
    }

    /// An append whose script Redis has not cached is repeated, and comes after those behind it. So Redis gets the scripts first.
    fn cache_scripts(&mut self) {
        let (keys, id) = (&self.log.keys, self.log.keys.id(""));
        for (script, keys) in [(ADD_ONCE, &[&keys.events, &id][..]), (PUBLISH_ONCE, &[&id])] {
            let mut command = CommandWriter::new(self.output.buffer());
            command.text("EVAL");
            command.text(script);
            command.number(keys.len() as u64);
            keys.iter().for_each(|key| command.text(key));
            command.number(1);
            // This deadline is over, so it does nothing.
            command.number(0);
            command.finish();
            self.unanswered.push_script();
        }
    }

    fn ask_time(&mut self) {
        let mut command = CommandWriter::new(self.output.buffer());
        command.text("TIME");
        command.finish();
        self.unanswered.push_time();
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RedisError>> {
        self.input.reserve(READ_BYTES);
        match pin!(self.socket.read_buf(&mut self.input)).poll(context) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(disconnected(std::io::ErrorKind::UnexpectedEof.into()))),
            Poll::Ready(Ok(_)) => Poll::Ready(self.read_replies()),
            Poll::Ready(Err(error)) => Poll::Ready(Err(disconnected(error))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn read_replies(&mut self) -> Result<(), RedisError> {
        let mut round = Round::new(self.log);
        let input = std::mem::take(&mut self.input);
        let (mut at, mut read) = (0, Ok(()));
        while read.is_ok() {
            match self.scanner.scan(&input[at..]) {
                Ok(Some(bytes)) => {
                    read = self.read_reply(Tokens::new(&input[at..at + bytes]), &mut round);
                    at += bytes;
                }
                Ok(None) => break,
                Err(_) => read = Err(RedisError::UnexpectedReply("an append")),
            }
        }
        self.input = input;
        self.input.drain(..at);
        round.note(self.log, self.index);
        for append in self.unanswered.take_done() {
            append.finish(&self.log.backlog, || Err(timed_out(self.log.timeout)));
        }
        read.and(round.not_serving.map_or(Ok(()), Err))
    }

    fn read_reply(&mut self, mut reply: Tokens<'_>, round: &mut Round) -> Result<(), RedisError> {
        let Some(token) = reply.next() else { return Err(RedisError::UnexpectedReply("an append")) };
        if self.unanswered.take(token, round, self.log)? {
            self.clock = read_time(token, reply).ok_or(RedisError::UnexpectedReply("TIME"))?;
            self.appender.lock().note_clock(self.clock);
        }
        Ok(())
    }

    /// The connection is broken where what was sent has no answer in time. But what was sent later keeps its own time: Redis may
    /// go on before that is over, and add an entry that counts.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<RedisError> {
        loop {
            let Some(first) = self.unanswered.deadline() else {
                return if self.is_late { Poll::Ready(RedisError::Timeout(self.log.timeout)) } else { Poll::Pending };
            };
            if !self.timer_is_set {
                if first <= Instant::now() {
                    self.expire();
                    continue;
                }
                self.timer.as_mut().reset(first);
                self.timer_is_set = true;
            }
            match self.timer.as_mut().poll(context) {
                // That was for an append which has its answer, mostly.
                Poll::Ready(()) => self.timer_is_set = false,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Answers those whose time is over.
    fn expire(&mut self) {
        let finish = |append: PendingAppend| append.finish(&self.log.backlog, || Err(timed_out(self.log.timeout)));
        self.unanswered.expire(Instant::now(), finish);
        if !std::mem::replace(&mut self.is_late, true) {
            self.appender.note_up(false, self.log);
            self.take_no_more(&timed_out(self.log.timeout));
        }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // Where the shard ends; otherwise everybody has an answer.
        self.fail(RedisError::Disconnected("the shard has ended".to_owned()));
    }
}

fn read_time(token: Token<'_>, mut rest: Tokens<'_>) -> Option<RedisClock> {
    let number = |token: Option<Token<'_>>| match token {
        Some(Token::Bulk(text)) => std::str::from_utf8(text).ok()?.parse::<u64>().ok(),
        _ => None,
    };
    let Token::Array(2) = token else { return None };
    let (seconds, micros) = (number(rest.next())?, number(rest.next())?);
    Some(RedisClock::now(seconds * 1_000_000 + micros))
}
