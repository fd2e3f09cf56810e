//! What was sent over a connection and has no reply yet. Redis replies in the order of the commands.

use crate::log::redis::RedisLog;
use crate::log::redis::shard_append::pending::PendingAppend;
use crate::log::redis::shard_append::round::Round;
use crate::redis::error::RedisError;
use crate::redis::resp::Token;
use std::collections::VecDeque;
use tokio::time::Instant;

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

/// Commands without a reply, in order.
#[derive(Default)]
pub(super) struct Unanswered {
    sent: VecDeque<Sent>,
    /// Of appends.
    bytes: usize,
    is_asking_time: bool,
    /// Appends with all their replies, which their callers get at the end of this turn.
    done: Vec<PendingAppend>,
}

impl Unanswered {
    pub(super) fn push_appends(&mut self, appends: impl Iterator<Item = PendingAppend>) {
        let Self { sent, bytes, .. } = self;
        sent.extend(appends.inspect(|append| *bytes += append.bytes()).map(Sent::Append));
    }

    pub(super) fn push_time(&mut self) {
        self.sent.push_back(Sent::Time);
        self.is_asking_time = true;
    }

    pub(super) fn push_script(&mut self) {
        self.sent.push_back(Sent::Script);
    }

    /// Bytes of appends without a reply.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether Redis was asked for its time.
    pub(super) fn is_asking_time(&self) -> bool {
        self.is_asking_time
    }

    /// Takes the next reply. Whether it is Redis' time.
    pub(super) fn take(&mut self, reply: Token<'_>, round: &mut Round, log: &RedisLog) -> Result<bool, RedisError> {
        match self.sent.front_mut() {
            None => return Err(RedisError::UnexpectedReply("nothing")),
            Some(Sent::Time) => {
                self.sent.pop_front();
                self.is_asking_time = false;
                return Ok(true);
            }
            // Without it, appends are repeated.
            Some(Sent::Script) => drop(self.sent.pop_front()),
            Some(Sent::Late { commands, bytes }) => {
                *commands -= 1;
                if *commands == 0 {
                    self.bytes -= *bytes;
                    self.sent.pop_front();
                }
            }
            Some(Sent::Append(append)) => {
                append.take(round.answer(reply, append.until_ms()), log);
                if append.unanswered() == 0
                    && let Some(Sent::Append(append)) = self.sent.pop_front()
                {
                    self.bytes -= append.bytes();
                    self.done.push(append);
                }
            }
        }
        Ok(false)
    }

    /// Takes out the appends that have all their replies.
    pub(super) fn take_done(&mut self) -> impl Iterator<Item = PendingAppend> {
        self.done.drain(..)
    }

    /// Takes out the appends that have not.
    pub(super) fn take_appends(&mut self) -> impl Iterator<Item = PendingAppend> {
        self.sent.drain(..).filter_map(|sent| match sent {
            Sent::Append(append) => Some(append),
            Sent::Late { .. } | Sent::Time | Sent::Script => None,
        })
    }

    /// When the time of the first append is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sent.iter().find_map(|sent| match sent {
            Sent::Append(append) => Some(append.deadline()),
            Sent::Late { .. } | Sent::Time | Sent::Script => None,
        })
    }

    /// Gives those to `expired` whose time is over. Their replies are still to come.
    pub(super) fn expire(&mut self, now: Instant, expired: impl Fn(PendingAppend)) {
        for sent in &mut self.sent {
            let Sent::Append(append) = sent else { continue };
            if append.deadline() > now {
                break;
            }
            let late = Sent::Late { commands: append.unanswered(), bytes: append.bytes() };
            if let Sent::Append(append) = std::mem::replace(sent, late) {
                expired(append);
            }
        }
    }
}
