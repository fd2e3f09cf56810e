//! The state of this node's messages: the key, the calls that wait for a response, the numbers read last.

use crate::cluster::rpc::message::{Body, Envelope, RpcResponse};
use crate::cluster::rpc::signer::{EnvelopeError, Signer};
use crate::model::id::NodeId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// See the module.
pub(crate) struct Calls {
    me: NodeId,
    /// Unknown before the first heartbeat.
    signer: Mutex<Option<Arc<Signer>>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<RpcResponse>>>,
    /// Of messages and calls alike. A process draws a new [`NodeId`] when it starts, so no receiver knows higher ones.
    next_number: AtomicU64,
    /// The number of the message read last from each node. Only nodes can sign, so this is as small as they are few.
    last_read: Mutex<HashMap<NodeId, u64>>,
}

impl Calls {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            me,
            signer: Mutex::default(),
            waiting: Mutex::default(),
            next_number: AtomicU64::new(1),
            last_read: Mutex::default(),
        }
    }

    /// Takes over the key that is in Redis.
    pub(crate) fn set_key(&self, key: &str) {
        let mut signer = self.signer.lock();
        if signer.as_ref().is_none_or(|signer| !signer.is_from(key)) {
            *signer = Some(Arc::new(Signer::new(key)));
        }
    }

    /// What signs messages; `None` before the key is known.
    pub(crate) fn signer(&self) -> Option<Arc<Signer>> {
        self.signer.lock().clone()
    }

    /// The signed form of a message. To be called in the order in which messages are sent: their numbers rise.
    pub(crate) fn sign(&self, signer: &Signer, to: NodeId, body: Body) -> Vec<u8> {
        signer.sign(&Envelope { from: self.me, to, number: self.next(), body })
    }

    /// A new call, and what receives its response.
    pub(crate) fn begin(&self) -> (u64, oneshot::Receiver<RpcResponse>) {
        let (reply, response) = oneshot::channel();
        let call = self.next();
        self.waiting.lock().insert(call, reply);
        (call, response)
    }

    /// Hands a response to its caller, if it still waits.
    pub(crate) fn respond(&self, call: u64, response: RpcResponse) {
        if let Some(reply) = self.waiting.lock().remove(&call) {
            // The caller may be gone.
            let _ = reply.send(response);
        }
    }

    /// The caller no longer waits.
    pub(crate) fn forget(&self, call: u64) {
        self.waiting.lock().remove(&call);
    }

    /// No response can arrive any more: all callers see that.
    pub(crate) fn fail_all(&self) {
        self.waiting.lock().clear();
    }

    /// Verifies a message; `None` where it was read before or the key is not known yet.
    ///
    /// # Errors
    /// When it is not a message of a node to this one.
    pub(crate) fn receive(&self, signed: &[u8]) -> Result<Option<Envelope>, EnvelopeError> {
        let Some(signer) = self.signer() else { return Ok(None) };
        let envelope = signer.verify(signed, self.me)?;
        let mut last_read = self.last_read.lock();
        let last = last_read.entry(envelope.from).or_default();
        if envelope.number <= *last {
            tracing::warn!(from = %envelope.from, "a message between nodes arrived a second time; it is ignored");
            return Ok(None);
        }
        *last = envelope.number;
        Ok(Some(envelope))
    }

    fn next(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::rpc::message::OneWay;

    #[test]
    fn a_replayed_message_is_read_once() {
        let (here, there) = (Calls::new(NodeId::random()), Calls::new(NodeId::random()));
        here.set_key("key");
        let signer = here.signer().unwrap();
        let first = here.sign(&signer, there.me, Body::OneWay(OneWay::Hangup(1)));
        let second = here.sign(&signer, there.me, Body::OneWay(OneWay::Hangup(2)));
        assert_eq!(there.receive(&first), Ok(None), "the key is not known");
        there.set_key("key");
        for (message, is_new) in [(&first, true), (&first, false), (&second, true), (&first, false)] {
            assert_eq!(there.receive(message).unwrap().is_some(), is_new);
        }
    }

    #[test]
    fn a_call_gets_its_response_or_fails() {
        let calls = Calls::new(NodeId::random());
        let ((first, mut response), (second, mut lost)) = (calls.begin(), calls.begin());
        assert_ne!(first, second);
        calls.respond(first, RpcResponse::Accepted);
        assert_eq!(response.try_recv(), Ok(RpcResponse::Accepted));
        calls.fail_all();
        assert_eq!(lost.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
