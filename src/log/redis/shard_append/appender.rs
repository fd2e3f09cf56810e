//! What callers leave for the connection of a shard, and whether they can.

use crate::log::redis::add_command::{self, Times, draft_bytes};
use crate::log::redis::deadline::TENTHS_TO_RUN;
use crate::log::redis::shard_append::pending::{Answered, Pending, PendingAppend};
use crate::log::redis::{RedisLog, trim_before_ms};
use crate::model::draft::Draft;
use crate::redis::clock::RedisClock;
use crate::redis::command::CommandWriter;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Milliseconds between two appends of one appender that trim.
const TRIM_INTERVAL_MS: u64 = 100;

/// What became of an append.
pub(in crate::log::redis) enum Pushed {
    /// It is sent; the answer comes, at the latest, at the end of `redis.timeout`.
    Sent(oneshot::Receiver<Answered>),
    /// This thread has no appender that can take it.
    NotHere,
    /// Too much waits.
    Full,
}

/// What one shard, or several, append with.
#[derive(Default)]
pub(in crate::log::redis) struct ShardAppender {
    state: Mutex<State>,
    /// Whether its task runs.
    is_running: AtomicBool,
    is_up: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    /// Redis' clock, while there is a connection.
    clock: Option<RedisClock>,
    pending: Pending,
    /// Of the appender's task.
    waker: Option<Waker>,
    /// When an append of this appender last trimmed, by Redis' clock.
    trimmed_ms: u64,
}

impl ShardAppender {
    /// Leaves drafts for the connection, and wakes its task.
    pub(super) fn push(&self, log: &RedisLog, drafts: &[Draft], after: Option<&str>, now: Instant) -> Pushed {
        let mut state = self.state.lock();
        let Some(clock) = state.clock else { return Pushed::NotHere };
        let until_ms = clock.redis_ms(now + log.timeout / 10 * TENTHS_TO_RUN);
        if log.newest_ms() > until_ms {
            // The ids are ahead of the clock: an entry would be void.
            return Pushed::NotHere;
        }
        let counted = drafts.iter().map(|draft| draft_bytes(draft) + after.map_or(0, str::len)).sum();
        if !log.backlog.try_add(counted, drafts.len()) {
            return Pushed::Full;
        }
        let accepted_us = clock.redis_us(now);
        let mut times = Times { accepted_us, until_ms: Some(until_ms), trim_before_ms: 0, after };
        if accepted_us / 1000 >= state.trimmed_ms + TRIM_INTERVAL_MS {
            state.trimmed_ms = accepted_us / 1000;
            times.trim_before_ms = trim_before_ms(log);
        }
        let (append, answered) = PendingAppend::new(log, now, counted, drafts.len(), until_ms);
        state.pending.push(append, |commands| {
            for draft in drafts {
                let mut command = CommandWriter::new(commands);
                add_command::write(log, draft, times, &mut command);
                command.finish();
                times.trim_before_ms = 0;
            }
        });
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Pushed::Sent(answered)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Its task runs, as long as the answer is kept.
    pub(super) fn running(&self) -> Running<'_> {
        self.is_running.store(true, Ordering::Relaxed);
        Running(self)
    }

    /// Whether it can append, or is not meant to.
    pub(in crate::log::redis) fn is_fine(&self) -> bool {
        self.is_up.load(Ordering::Relaxed) || !self.is_running.load(Ordering::Relaxed)
    }

    /// Whether it can append changes.
    pub(super) fn note_up(&self, is_up: bool, log: &RedisLog) {
        self.is_up.store(is_up, Ordering::Relaxed);
        log.note_up();
    }
}

impl State {
    /// From now on callers append over a connection; Redis' clock is this.
    pub(super) fn begin(&mut self, clock: RedisClock) {
        self.clock = Some(clock);
    }

    /// Redis' clock was read again.
    pub(super) fn note_clock(&mut self, clock: RedisClock) {
        if let Some(known) = &mut self.clock {
            *known = clock;
        }
    }

    /// From now on callers append elsewhere. Returns what was not sent.
    pub(super) fn end(&mut self) -> VecDeque<PendingAppend> {
        self.clock = None;
        self.pending.take_all()
    }

    /// The next append wakes this task.
    pub(super) fn note_waker(&mut self, context: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }

    pub(super) fn pending(&mut self) -> &mut Pending {
        &mut self.pending
    }
}

/// An appender whose task runs.
pub(super) struct Running<'a>(&'a ShardAppender);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::Relaxed);
        self.0.is_up.store(false, Ordering::Relaxed);
    }
}
