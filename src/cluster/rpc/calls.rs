//! The state of this node's messages: the keys, the calls that wait for a response, the numbers read last.

use crate::cluster::rpc::message::{Body, Envelope, RpcResponse};
use crate::cluster::rpc::signer::{EnvelopeError, KeyRing, KeyTexts};
use crate::model::id::NodeId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How far a message's time may be from now, by the clock of Redis. It is on its way for milliseconds; a node's idea of
/// that clock is as old as its last heartbeat.
const MAX_AGE_MS: u64 = 30_000;

/// Calls of one node that may wait for one other: each waiting GET of a forwarded polling session is one. Worst case some
/// 30 MB.
const MAX_CALLS: usize = 100_000;

/// See the module.
pub(crate) struct Calls {
    me: NodeId,
    /// Unknown before the first heartbeat.
    keys: Mutex<Option<Arc<Keys>>>,
    waiting: Mutex<Waiting>,
    /// Of messages and calls alike. A process draws a new [`NodeId`] when it starts, so no receiver knows higher ones.
    next_number: AtomicU64,
    /// The number of the message read last from each node. Only nodes can sign, so this is as small as they are few.
    last_read: Mutex<HashMap<NodeId, u64>>,
}

/// What a heartbeat said.
pub(crate) struct Keys {
    ring: Arc<KeyRing>,
    redis_ms: u64,
    read_at: Instant,
}

impl Keys {
    /// Unix milliseconds by the clock of Redis.
    fn now_ms(&self) -> u64 {
        self.redis_ms + u64::try_from(self.read_at.elapsed().as_millis()).unwrap_or_default()
    }
}

#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, (NodeId, oneshot::Sender<RpcResponse>)>,
    /// How many of them each node is to answer.
    counts: HashMap<NodeId, usize>,
}

impl Waiting {
    fn remove(&mut self, call: u64) -> Option<oneshot::Sender<RpcResponse>> {
        let (node, reply) = self.calls.remove(&call)?;
        if let Some(count) = self.counts.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&node);
            }
        }
        Some(reply)
    }
}

/// What became of a message that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// It is new.
    New(Envelope),
    /// It was read before, or is older than [`MAX_AGE_MS`].
    Replayed,
    /// This node does not know the keys yet.
    TooEarly,
}

impl Calls {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            me,
            keys: Mutex::default(),
            waiting: Mutex::default(),
            next_number: AtomicU64::new(1),
            last_read: Mutex::default(),
        }
    }

    /// Takes over the keys that are in Redis, and its clock.
    pub(crate) fn set_keys(&self, texts: KeyTexts, redis_ms: u64) {
        let mut keys = self.keys.lock();
        let known = keys.as_ref().map(|keys| keys.ring.clone()).filter(|ring| ring.is_from(&texts));
        let ring = known.unwrap_or_else(|| Arc::new(KeyRing::new(texts)));
        *keys = Some(Arc::new(Keys { ring, redis_ms, read_at: Instant::now() }));
    }

    /// What signs messages; `None` before the keys are known.
    pub(crate) fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.lock().clone()
    }

    /// The signed form of a message. To be called in the order in which messages are sent: their numbers rise.
    pub(crate) fn sign(&self, keys: &Keys, to: NodeId, body: Body) -> Vec<u8> {
        keys.ring.sign(&Envelope { from: self.me, to, number: self.next(), at: Some(keys.now_ms()), body })
    }

    /// A new call, and what receives its response; `None` where too many wait for this node already.
    pub(crate) fn begin(&self, node: NodeId) -> Option<(u64, oneshot::Receiver<RpcResponse>)> {
        let (reply, response) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let count = waiting.counts.entry(node).or_default();
        if *count >= MAX_CALLS {
            return None;
        }
        *count += 1;
        let call = self.next();
        waiting.calls.insert(call, (node, reply));
        Some((call, response))
    }

    /// Hands a response to its caller, if it still waits for one of this node.
    pub(crate) fn respond(&self, from: NodeId, call: u64, response: RpcResponse) {
        let mut waiting = self.waiting.lock();
        if waiting.calls.get(&call).is_some_and(|(asked, _)| *asked == from)
            && let Some(reply) = waiting.remove(call)
        {
            // The caller may be gone.
            let _ = reply.send(response);
        }
    }

    /// The caller no longer waits.
    pub(crate) fn forget(&self, call: u64) {
        self.waiting.lock().remove(call);
    }

    /// No response can arrive any more: all callers see that.
    pub(crate) fn fail_all(&self) {
        *self.waiting.lock() = Waiting::default();
    }

    /// Verifies a message. `needs_time` says whether a node is of a release whose messages carry their time.
    ///
    /// # Errors
    /// When it is not a message of a node to this one.
    pub(crate) fn receive(
        &self,
        signed: &[u8],
        needs_time: impl FnOnce(NodeId) -> bool,
    ) -> Result<Received, EnvelopeError> {
        let Some(keys) = self.keys() else { return Ok(Received::TooEarly) };
        let envelope = keys.ring.verify(signed, self.me)?;
        let is_old = match envelope.at {
            Some(at) => at.abs_diff(keys.now_ms()) > MAX_AGE_MS,
            None => needs_time(envelope.from),
        };
        let mut last_read = self.last_read.lock();
        let last = last_read.entry(envelope.from).or_default();
        if is_old || envelope.number <= *last {
            return Ok(Received::Replayed);
        }
        *last = envelope.number;
        Ok(Received::New(envelope))
    }

    /// A number that nothing else of this node has.
    pub(crate) fn next(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::rpc::message::OneWay;

    fn texts() -> KeyTexts {
        KeyTexts { present: "key".into(), next: None, last: None }
    }

    #[test]
    fn a_replayed_message_is_read_once() {
        let (here, there) = (Calls::new(NodeId::random()), Calls::new(NodeId::random()));
        here.set_keys(texts(), 1_000_000);
        let keys = here.keys().unwrap();
        let first = here.sign(&keys, there.me, Body::OneWay(OneWay::Hangup(1)));
        let second = here.sign(&keys, there.me, Body::OneWay(OneWay::Hangup(2)));
        let receive = |message: &[u8]| there.receive(message, |_| true).unwrap();
        assert_eq!(receive(&first), Received::TooEarly);
        there.set_keys(texts(), 1_000_000 + 20_000);
        for (message, is_new) in [(&first, true), (&first, false), (&second, true), (&first, false)] {
            assert_eq!(matches!(receive(message), Received::New(_)), is_new);
        }
    }

    #[test]
    fn a_message_that_was_held_back_is_not_read() {
        let (here, there) = (Calls::new(NodeId::random()), Calls::new(NodeId::random()));
        here.set_keys(texts(), 1_000_000);
        let message = here.sign(&here.keys().unwrap(), there.me, Body::OneWay(OneWay::Hangup(1)));
        there.set_keys(texts(), 1_000_000 + MAX_AGE_MS + 5_000);
        assert_eq!(there.receive(&message, |_| true), Ok(Received::Replayed));
        let untimed =
            Envelope { from: here.me, to: there.me, number: 9, at: None, body: Body::OneWay(OneWay::Hangup(1)) };
        let untimed = KeyRing::new(texts()).sign(&untimed);
        assert_eq!(there.receive(&untimed, |_| true), Ok(Received::Replayed));
        assert!(matches!(there.receive(&untimed, |_| false), Ok(Received::New(_))), "of the previous release");
    }

    #[test]
    fn a_call_gets_the_response_of_the_node_that_was_asked_or_fails() {
        let calls = Calls::new(NodeId::random());
        let (node, other) = (NodeId::random(), NodeId::random());
        let ((first, mut response), (second, mut lost)) = (calls.begin(node).unwrap(), calls.begin(node).unwrap());
        assert_ne!(first, second);
        calls.respond(other, first, RpcResponse::Unknown);
        calls.respond(node, first, RpcResponse::Accepted);
        assert_eq!(response.try_recv(), Ok(RpcResponse::Accepted));
        calls.fail_all();
        assert_eq!(lost.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn calls_to_one_node_are_bounded() {
        let calls = Calls::new(NodeId::random());
        let (node, other) = (NodeId::random(), NodeId::random());
        let waiting: Vec<_> = (0..MAX_CALLS).map(|_| calls.begin(node).unwrap()).collect();
        assert!(calls.begin(node).is_none() && calls.begin(other).is_some());
        calls.forget(waiting[7].0);
        assert!(calls.begin(node).is_some());
    }
}
