//! Appends that wait to be sent, with their commands as Redis will get them.

use crate::log::Appended;
use crate::log::redis::RedisLog;
use crate::log::redis::append_error::timed_out;
use crate::log::redis::backlog::Backlog;
use crate::log::redis::deadline::TENTHS_TO_SEND;
use std::collections::VecDeque;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Results of an append, one for each draft.
#[derive(Default)]
pub(in crate::log::redis) struct Answered {
    pub appended: Vec<Appended>,
    /// Drafts that are not in the log but may be added over the control thread's connection, in order: their script is not
    /// cached, the stream has the largest id, or its ids are ahead of Redis' clock so that the entry is void, or the server
    /// does not serve the stream any more.
    pub repeat: Vec<usize>,
}

/// The commands of one caller.
pub(super) struct PendingAppend {
    /// Bytes of the commands.
    bytes: usize,
    /// Bytes in the backlog.
    counted: usize,
    commands: usize,
    /// After this it is not sent.
    send_before: Instant,
    /// After this it has no answer.
    deadline: Instant,
    until_ms: u64,
    answered: Answered,
    reply: oneshot::Sender<Answered>,
}

impl PendingAppend {
    /// Begins now. `counted` bytes of so many commands are in the backlog, and void where Redis runs them after `until_ms`.
    pub(super) fn new(
        log: &RedisLog,
        now: Instant,
        counted: usize,
        commands: usize,
        until_ms: u64,
    ) -> (Self, oneshot::Receiver<Answered>) {
        let (reply, receiver) = oneshot::channel();
        let append = Self {
            bytes: 0,
            counted,
            commands,
            send_before: now + log.timeout / 10 * TENTHS_TO_SEND,
            deadline: now + log.timeout,
            until_ms,
            answered: Answered { appended: Vec::with_capacity(commands), repeat: Vec::new() },
            reply,
        };
        (append, receiver)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// How many of its commands have no result yet.
    pub(super) fn unanswered(&self) -> usize {
        self.commands - self.answered.appended.len()
    }

    /// Takes the result of its next command; `None` where that is to be repeated.
    pub(super) fn take(&mut self, result: Option<Appended>, log: &RedisLog) {
        if result.is_none() {
            self.answered.repeat.push(self.answered.appended.len());
        }
        self.answered.appended.push(result.unwrap_or_else(|| Err(timed_out(log.timeout))));
    }

    /// It was not sent: all its commands are to be repeated.
    pub(super) fn repeat_all(&mut self) {
        self.answered.repeat = (0..self.commands).collect();
    }

    /// Answers the caller. Commands without a result get `rest`.
    pub(super) fn finish(mut self, backlog: &Backlog, rest: impl Fn() -> Appended) {
        self.answered.appended.resize_with(self.commands, rest);
        backlog.remove(self.counted, self.commands);
        // The caller may be gone.
        let _ = self.reply.send(self.answered);
    }
}

/// What waits, the oldest first.
#[derive(Default)]
pub(super) struct Pending {
    /// The commands of all of `appends`, one after the other.
    commands: Vec<u8>,
    appends: VecDeque<PendingAppend>,
}

impl Pending {
    /// Adds an append, whose commands `write` writes.
    pub(super) fn push(&mut self, mut append: PendingAppend, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.commands.len();
        write(&mut self.commands);
        append.bytes = self.commands.len() - start;
        self.appends.push_back(append);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    /// Gives those to `expired` that may not be sent any more.
    pub(super) fn expire(&mut self, now: Instant, mut expired: impl FnMut(PendingAppend)) {
        let mut bytes = 0;
        // All have the same timeout, so the oldest expire first.
        while let Some(append) = self.appends.pop_front_if(|append| append.send_before <= now) {
            bytes += append.bytes;
            expired(append);
        }
        self.commands.drain(..bytes);
    }

    /// Takes out what is sent next: appends until they have `room` bytes or more. Their commands are moved to `output`, which is
    /// empty.
    pub(super) fn take(&mut self, room: usize, output: &mut Vec<u8>) -> impl Iterator<Item = PendingAppend> {
        let (mut bytes, mut count) = (0, 0);
        for append in &self.appends {
            if bytes >= room {
                break;
            }
            bytes += append.bytes;
            count += 1;
        }
        match count == self.appends.len() {
            true => std::mem::swap(output, &mut self.commands),
            false => output.extend(self.commands.drain(..bytes)),
        }
        self.appends.drain(..count)
    }

    /// Takes out all appends. Their commands are not sent.
    pub(super) fn take_all(&mut self) -> VecDeque<PendingAppend> {
        self.commands.clear();
        std::mem::take(&mut self.appends)
    }
}
