//! Calls that wait to be sent: a bounded queue between callers on any thread and the one task that sends.

use crate::log::Appended;
use parking_lot::Mutex;
use redis::Cmd;
use std::collections::VecDeque;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Bytes and commands that may wait; over it appends are answered [`AppendError::Overloaded`].
const QUEUE_BYTES: usize = 64 << 20;
const QUEUE_COMMANDS: usize = 200_000;
/// A pipeline takes no further call once it has this much.
const PIPELINE_BYTES: usize = 1 << 20;
const PIPELINE_COMMANDS: usize = 1000;
/// The calls that wait to be sent.
#[derive(Default)]
pub(in crate::log::redis) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    calls: VecDeque<Call>,
    bytes: usize,
    commands: usize,
}

/// One call of `append` or `probe`.
pub(super) struct Call {
    pub commands: Vec<Cmd>,
    bytes: usize,
    /// Later it is not worth sending.
    pub send_before: Instant,
    pub answer: oneshot::Sender<Vec<Appended>>,
}

impl Queue {
    /// Puts a call in; `None` where there is no room for it.
    pub(super) fn push(
        &self,
        commands: Vec<Cmd>,
        bytes: usize,
        send_before: Instant,
    ) -> Option<oneshot::Receiver<Vec<Appended>>> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if !waiting.has_room(bytes, commands.len()) {
            waiting.drop_expired();
            if !waiting.has_room(bytes, commands.len()) {
                return None;
            }
        }
        waiting.bytes += bytes;
        waiting.commands += commands.len();
        waiting.calls.push_back(Call { commands, bytes, send_before, answer });
        drop(waiting);
        self.wake.notify_one();
        Some(answered)
    }

    /// The next calls for one pipeline, without those whose time is over: nobody waits for them any more, and
    /// what was answered "unavailable" must not be stored later.
    pub(super) async fn next(&self) -> Vec<Call> {
        loop {
            let calls = self.waiting.lock().take();
            if !calls.is_empty() {
                return calls;
            }
            self.wake.notified().await;
        }
    }
}

impl Waiting {
    fn has_room(&self, bytes: usize, commands: usize) -> bool {
        self.calls.is_empty() || (self.bytes + bytes <= QUEUE_BYTES && self.commands + commands <= QUEUE_COMMANDS)
    }

    fn pop(&mut self) -> Option<Call> {
        let call = self.calls.pop_front()?;
        self.bytes -= call.bytes;
        self.commands -= call.commands.len();
        Some(call)
    }

    /// All calls have the same timeout, so the oldest expire first.
    fn drop_expired(&mut self) {
        let now = Instant::now();
        while self.calls.front().is_some_and(|call| call.send_before <= now) {
            self.pop();
        }
    }

    fn take(&mut self) -> Vec<Call> {
        self.drop_expired();
        let (mut calls, mut bytes, mut commands) = (Vec::new(), 0, 0);
        while bytes < PIPELINE_BYTES && commands < PIPELINE_COMMANDS {
            let Some(call) = self.pop() else { break };
            bytes += call.bytes;
            commands += call.commands.len();
            calls.push(call);
        }
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn call(queue: &Queue, commands: usize, bytes: usize, deadline: Instant) -> bool {
        queue.push(vec![redis::cmd("PING"); commands], bytes, deadline).is_some()
    }

    #[test]
    fn the_queue_is_bounded_and_forgets_the_expired() {
        let queue = Queue::default();
        let (past, future) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        assert!(call(&queue, 1, QUEUE_BYTES * 2, past), "one always fits");
        assert!(call(&queue, 1, QUEUE_BYTES - 1, future), "in place of the expired one");
        assert!(!call(&queue, 1, 2, future));
        assert!(call(&queue, 1, 1, future));
        assert_eq!(queue.waiting.lock().take().len(), 1, "a pipeline ends with the call that fills it");
        assert_eq!(queue.waiting.lock().take().len(), 1);
        assert!(call(&queue, 1, 1, past));
        assert!(queue.waiting.lock().take().is_empty());
        let left = queue.waiting.lock();
        assert_eq!((left.bytes, left.commands), (0, 0));
        drop(left);
        assert!(call(&queue, QUEUE_COMMANDS, 0, future));
        assert!(!call(&queue, 1, 0, future));
    }
}
