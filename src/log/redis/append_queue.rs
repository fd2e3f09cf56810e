//! Appends that wait to be sent: a bounded queue between callers on any thread and the one task that sends.

use crate::log::Appended;
use crate::log::redis::backlog::Backlog;
use parking_lot::Mutex;
use redis::Cmd;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// A transaction takes no further append once it has this much.
const TRANSACTION_BYTES: usize = 1 << 20;
const TRANSACTION_COMMANDS: usize = 1000;

pub(in crate::log::redis) struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    appends: VecDeque<QueuedAppend>,
    backlog: Arc<Backlog>,
}

/// The commands of one caller.
pub(super) struct QueuedAppend {
    pub commands: Vec<Cmd>,
    bytes: usize,
    /// After this it is not sent.
    pub send_before: Instant,
    pub reply: oneshot::Sender<Vec<Appended>>,
}

impl Queue {
    pub(in crate::log::redis) fn new(backlog: Arc<Backlog>) -> Self {
        Self { state: Mutex::new(State { appends: VecDeque::new(), backlog }), wake: Notify::new() }
    }

    /// Queues an append; `None` where there is no room for it.
    pub(super) fn push(
        &self,
        commands: Vec<Cmd>,
        bytes: usize,
        send_before: Instant,
    ) -> Option<oneshot::Receiver<Vec<Appended>>> {
        let (reply, replied) = oneshot::channel();
        let mut state = self.state.lock();
        if !state.backlog.try_add(bytes, commands.len()) {
            state.drop_expired();
            if !state.backlog.try_add(bytes, commands.len()) {
                return None;
            }
        }
        state.appends.push_back(QueuedAppend { commands, bytes, send_before, reply });
        drop(state);
        self.wake.notify_one();
        Some(replied)
    }

    /// The next appends for one transaction, without those whose time is over: their publishers get 503, so they must not be
    /// stored.
    pub(super) async fn next(&self) -> Vec<QueuedAppend> {
        loop {
            let appends = self.state.lock().take();
            if !appends.is_empty() {
                return appends;
            }
            self.wake.notified().await;
        }
    }
}

impl State {
    fn pop(&mut self) -> Option<QueuedAppend> {
        let append = self.appends.pop_front()?;
        self.backlog.remove(append.bytes, append.commands.len());
        Some(append)
    }

    /// All have the same timeout, so the oldest expire first.
    fn drop_expired(&mut self) {
        let now = Instant::now();
        while self.appends.front().is_some_and(|append| append.send_before <= now) {
            self.pop();
        }
    }

    fn take(&mut self) -> Vec<QueuedAppend> {
        self.drop_expired();
        let (mut appends, mut bytes, mut commands) = (Vec::new(), 0, 0);
        while bytes < TRANSACTION_BYTES && commands < TRANSACTION_COMMANDS {
            let Some(append) = self.pop() else { break };
            bytes += append.bytes;
            commands += append.commands.len();
            appends.push(append);
        }
        appends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::redis::backlog::{MAX_BYTES, MAX_COMMANDS};
    use std::time::Duration;

    fn call(queue: &Queue, commands: usize, bytes: usize, deadline: Instant) -> bool {
        queue.push(vec![redis::cmd("PING"); commands], bytes, deadline).is_some()
    }

    #[test]
    fn the_queue_is_bounded_and_drops_expired_appends() {
        let queue = Queue::new(Arc::default());
        let (past, future) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        assert!(call(&queue, 1, MAX_BYTES * 2, past), "one always fits");
        assert!(call(&queue, 1, MAX_BYTES - 1, future), "in place of the expired one");
        assert!(!call(&queue, 1, 2, future));
        assert!(call(&queue, 1, 1, future));
        assert_eq!(queue.state.lock().take().len(), 1, "a transaction ends with the append that fills it");
        assert_eq!(queue.state.lock().take().len(), 1);
        assert!(call(&queue, 1, 1, past));
        assert!(queue.state.lock().take().is_empty());
        assert!(call(&queue, MAX_COMMANDS, 0, future));
        assert!(!call(&queue, 1, 0, future));
    }
}
