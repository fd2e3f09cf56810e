//! The connection of a shard's appender: writes what waits and matches replies with it, in order.

use crate::log::redis::append_error::{refusal_of, unavailable};
use crate::log::redis::shard_append::{PendingAppend, ShardAppender, timed_out};
use crate::log::redis::transaction::{ADD_ONCE, PUBLISH_ONCE, is_exhausted_text};
use crate::log::redis::{RedisLog, deadline, renewal};
use crate::log::{Accepted, AppendError, Appended};
use crate::model::offset::{Offset, Position};
use crate::redis::clock::RedisClock;
use crate::redis::command::{Arguments as _, CommandWriter};
use crate::redis::error::RedisError;
use crate::redis::resp::{Scanner, Token, Tokens};
use crate::redis::socket::{RedisSocket, disconnected};
use crate::redis::url::Address;
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::time::{Instant, Sleep};

/// Above this many bytes without a reply nothing more is sent: it waits where it can still expire.
const MAX_UNANSWERED: usize = 1 << 20;
/// Bytes of one reply: an id, an error, the time.
const MAX_REPLY: usize = 64 << 10;
/// Bytes that one read has room for.
const READ_BYTES: usize = 4 << 10;
/// A buffer that has grown beyond this by a burst is given back.
const KEPT_BYTES: usize = 256 << 10;
/// While something is appended, Redis is asked for its time so often.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// What a reply belongs to.
enum Sent {
    Append(PendingAppend),
    /// Of an append that was answered when its time was over: so many commands without a reply, and the append's bytes.
    Late {
        commands: usize,
        bytes: usize,
    },
    Time,
    Script,
}

pub(super) struct Connection<'a> {
    log: &'a RedisLog,
    appender: &'a ShardAppender,
    /// Of its acknowledged positions.
    index: usize,
    socket: RedisSocket,
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    scanner: Scanner,
    sent: VecDeque<Sent>,
    /// Bytes of what has no reply.
    unanswered: usize,
    /// Answered in this turn.
    done: Vec<PendingAppend>,
    clock: RedisClock,
    is_asking_time: bool,
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
            output: Vec::new(),
            written: 0,
            input: Vec::new(),
            scanner: Scanner::new(MAX_REPLY),
            sent: VecDeque::new(),
            unanswered: 0,
            done: Vec::new(),
            clock: RedisClock::now(0),
            is_asking_time: false,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_is_set: false,
            is_late: false,
        };
        connection.cache_scripts();
        connection.ask_time();
        let asked = poll_fn(|context| match connection.poll(context) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending if connection.is_asking_time => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        });
        tokio::time::timeout(log.timeout, asked).await.unwrap_or(Err(RedisError::Timeout(log.timeout)))?;
        Ok(connection)
    }

    /// From now on callers append over this connection.
    pub(super) fn begin(&self) {
        self.appender.state.lock().clock = Some(self.clock);
    }

    /// Sends and receives until that fails.
    pub(super) async fn run(&mut self) -> RedisError {
        poll_fn(|context| self.poll(context)).await
    }

    /// Answers everybody: what was sent may be in the log or not, what was not is appended elsewhere.
    pub(super) fn fail(&mut self, error: RedisError) -> RedisError {
        let failed = unavailable(&error);
        for sent in self.sent.drain(..) {
            if let Sent::Append(append) = sent {
                append.finish(&self.log.backlog, || Err(failed.clone()));
            }
        }
        self.take_no_more(&failed);
        self.log.acknowledged.disconnected(self.index);
        error
    }

    /// From now on callers append elsewhere, as do those whose appends were not sent.
    fn take_no_more(&self, failed: &AppendError) {
        let waiting = {
            let mut state = self.appender.state.lock();
            state.clock = None;
            state.commands.clear();
            std::mem::take(&mut state.waiting)
        };
        for mut append in waiting {
            append.answered.repeat = (0..append.commands).collect();
            append.finish(&self.log.backlog, || Err(failed.clone()));
        }
    }

    /// Ready when the connection is broken.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<RedisError> {
        loop {
            let was_blocked = !self.output.is_empty();
            self.take_waiting(context);
            match self.poll_write(context) {
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
        let mut state = self.appender.state.lock();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        if state.waiting.is_empty() || !self.output.is_empty() || self.unanswered >= MAX_UNANSWERED {
            return;
        }
        let now = Instant::now();
        // All have the same timeout, so the oldest expire first.
        let mut expired = 0;
        while state.waiting.front().is_some_and(|append| append.send_before <= now) {
            let Some(append) = state.waiting.pop_front() else { break };
            expired += append.bytes;
            append.finish(&self.log.backlog, || Err(timed_out(self.log)));
        }
        state.commands.drain(..expired);
        let room = MAX_UNANSWERED - self.unanswered;
        let (mut bytes, mut count) = (0, 0);
        for append in &state.waiting {
            if bytes >= room {
                break;
            }
            bytes += append.bytes;
            count += 1;
        }
        match count == state.waiting.len() {
            true => std::mem::swap(&mut self.output, &mut state.commands),
            false => self.output.extend(state.commands.drain(..bytes)),
        }
        self.unanswered += bytes;
        self.sent.extend(state.waiting.drain(..count).map(Sent::Append));
        drop(state);
        if !self.output.is_empty() && !self.is_asking_time && self.clock.age(now) >= CLOCK_INTERVAL {
            self.ask_time();
        }
    }

    /// An append whose script Redis has not cached is repeated, and comes after those behind it. So Redis gets the scripts first.
    fn cache_scripts(&mut self) {
        let (keys, id) = (&self.log.keys, self.log.keys.id(""));
        for (script, keys) in [(ADD_ONCE, &[&keys.events, &id][..]), (PUBLISH_ONCE, &[&id])] {
            let mut command = CommandWriter::new(&mut self.output);
            command.text("EVAL");
            command.text(script);
            command.number(keys.len() as u64);
            keys.iter().for_each(|key| command.text(key));
            command.number(1);
            // This deadline is over, so it does nothing.
            command.number(0);
            command.finish();
            self.sent.push_back(Sent::Script);
        }
    }

    fn ask_time(&mut self) {
        let mut command = CommandWriter::new(&mut self.output);
        command.text("TIME");
        command.finish();
        self.sent.push_back(Sent::Time);
        self.is_asking_time = true;
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RedisError>> {
        if self.output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.output.len() {
            let rest = &self.output[self.written..];
            match Pin::new(&mut self.socket).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(disconnected(std::io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(bytes)) => self.written += bytes,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(disconnected(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        match Pin::new(&mut self.socket).poll_flush(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(disconnected(error))),
            Poll::Pending => return Poll::Pending,
        }
        self.written = 0;
        self.output.clear();
        if self.output.capacity() > KEPT_BYTES {
            self.output = Vec::new();
        }
        Poll::Ready(Ok(()))
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
        let (mut at, mut read) = (0, Ok(()));
        while read.is_ok() {
            match self.scanner.scan(&self.input[at..]) {
                Ok(Some(bytes)) => {
                    let input = std::mem::take(&mut self.input);
                    read = self.read_reply(Tokens::new(&input[at..at + bytes]), &mut round);
                    self.input = input;
                    at += bytes;
                }
                Ok(None) => break,
                Err(_) => read = Err(RedisError::UnexpectedReply("an append")),
            }
        }
        self.input.drain(..at);
        // Before anybody knows of it.
        round.note(self.log, self.index);
        for append in self.done.drain(..) {
            append.finish(&self.log.backlog, || Err(timed_out(self.log)));
        }
        read.and(round.not_serving.map_or(Ok(()), Err))
    }

    fn read_reply(&mut self, mut reply: Tokens<'_>, round: &mut Round) -> Result<(), RedisError> {
        let Some(token) = reply.next() else { return Err(RedisError::UnexpectedReply("an append")) };
        match self.sent.front_mut() {
            None => Err(RedisError::UnexpectedReply("nothing")),
            Some(Sent::Time) => {
                self.sent.pop_front();
                self.is_asking_time = false;
                self.clock = read_time(token, reply).ok_or(RedisError::UnexpectedReply("TIME"))?;
                if let Some(clock) = &mut self.appender.state.lock().clock {
                    *clock = self.clock;
                }
                Ok(())
            }
            // Without it, appends are repeated.
            Some(Sent::Script) => {
                self.sent.pop_front();
                Ok(())
            }
            Some(Sent::Late { commands, bytes }) => {
                *commands -= 1;
                if *commands == 0 {
                    self.unanswered -= *bytes;
                    self.sent.pop_front();
                }
                Ok(())
            }
            Some(Sent::Append(append)) => {
                let answer = round.answer(token, append.until_ms);
                if answer.is_none() {
                    append.answered.repeat.push(append.answered.appended.len());
                }
                append.answered.appended.push(answer.unwrap_or_else(|| Err(timed_out(self.log))));
                if append.answered.appended.len() == append.commands
                    && let Some(Sent::Append(append)) = self.sent.pop_front()
                {
                    self.unanswered -= append.bytes;
                    self.done.push(append);
                }
                Ok(())
            }
        }
    }

    /// The connection is broken where what was sent has no answer in time. But what was sent later keeps its own time: Redis may
    /// go on before that is over, and add an entry that counts.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<RedisError> {
        loop {
            let first = self.sent.iter().find_map(|sent| match sent {
                Sent::Append(append) => Some(append.deadline),
                Sent::Late { .. } | Sent::Time | Sent::Script => None,
            });
            let Some(first) = first else {
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
        let now = Instant::now();
        for sent in &mut self.sent {
            let Sent::Append(append) = sent else { continue };
            if append.deadline > now {
                break;
            }
            let late = Sent::Late { commands: append.commands - append.answered.appended.len(), bytes: append.bytes };
            if let Sent::Append(append) = std::mem::replace(sent, late) {
                append.finish(&self.log.backlog, || Err(timed_out(self.log)));
            }
        }
        if !std::mem::replace(&mut self.is_late, true) {
            self.appender.is_up.store(false, Ordering::Relaxed);
            self.log.note_up();
            self.take_no_more(&timed_out(self.log));
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

/// What the replies of one read have in common.
pub(super) struct Round {
    /// With any position.
    offset: Option<Offset>,
    /// A position after this is of a stream that is about to be renewed.
    last_ms: u64,
    pub newest_ms: u64,
    pub acknowledged: Option<Position>,
    pub is_refused: bool,
    pub not_serving: Option<RedisError>,
}

impl Round {
    pub(super) fn new(log: &RedisLog) -> Self {
        Self {
            offset: log.epoch().map(|epoch| Offset { epoch, line: log.line, position: Position::default() }),
            last_ms: renewal::max_ms(log),
            newest_ms: 0,
            acknowledged: None,
            is_refused: false,
            not_serving: None,
        }
    }

    /// The result of a command; `None` where it is to be repeated over the control thread's connection.
    pub(super) fn answer(&mut self, reply: Token<'_>, until_ms: u64) -> Option<Appended> {
        match reply {
            // The number of receivers of a volatile event.
            Token::Integer(_) => Some(Ok(Accepted::volatile())),
            // `XADD`.
            Token::Bulk(id) => match position(id) {
                Some(position) if deadline::is_void(position, until_ms) => {
                    self.newest_ms = self.newest_ms.max(position.ms);
                    None
                }
                position => Some(self.accept(position, false)),
            },
            // A script, which has compared the deadline. The id was first used by a volatile event where it is `-`.
            Token::Simple(b"-" | b"=-") => Some(Ok(Accepted::volatile())),
            Token::Simple(id) => {
                let first = id.strip_prefix(b"=");
                Some(self.accept(position(first.unwrap_or(id)), first.is_some()))
            }
            Token::Null => None,
            Token::Error(error) => self.refuse(error).map(Err),
            _ => Some(self.accept(None, false)),
        }
    }

    fn accept(&mut self, position: Option<Position>, is_repeat: bool) -> Appended {
        let position = position.ok_or_else(|| unavailable(&RedisError::UnexpectedReply("XADD")))?;
        self.newest_ms = self.newest_ms.max(position.ms);
        if position.ms <= self.last_ms {
            self.acknowledged = self.acknowledged.max(Some(position));
        }
        Ok(Accepted { offset: self.offset.map(|offset| Offset { position, ..offset }), replicas: None, is_repeat })
    }

    fn refuse(&mut self, text: &[u8]) -> Option<AppendError> {
        if text.starts_with(b"NOSCRIPT") || is_exhausted_text(&String::from_utf8_lossy(text)) {
            return None;
        }
        let error = RedisError::of_reply(text);
        if let RedisError::NotServing(_) = error {
            // The control thread's connection looks for the server as soon as it gets the same answer.
            self.not_serving = Some(error);
            return None;
        }
        let refusal = refusal_of(&error);
        self.is_refused |= matches!(refusal, AppendError::Refused(_));
        Some(refusal)
    }

    fn note(&self, log: &RedisLog, index: usize) {
        if self.newest_ms > 0 {
            log.note_newest(self.newest_ms);
        }
        if let Some(position) = self.acknowledged {
            log.acknowledged.note(index, position);
        }
        if self.is_refused {
            log.refused_appends.suspect();
        }
    }
}

fn position(id: &[u8]) -> Option<Position> {
    std::str::from_utf8(id).ok().and_then(Position::parse)
}
