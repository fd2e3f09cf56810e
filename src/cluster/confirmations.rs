//! Asks the owners of polling sessions whether they exist: one question at a time for each node, with all sids that came
//! up meanwhile, so that any number of requests costs Redis two messages a round trip.

use crate::cluster::rpc::RpcError;
use crate::cluster::rpc::message::Confirmed;
use crate::model::id::{Id, NodeId};
use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::oneshot;

/// Sids in one question.
const PER_QUESTION: usize = 500;
/// Sids that may wait for one node. Above it a request is refused.
const MAX_WAITING: usize = 5_000;

pub(super) type Answer = oneshot::Sender<Result<Confirmed, RpcError>>;

/// What waits for each node; an entry stays while its questions are asked.
#[derive(Default)]
pub(super) struct Confirmations(Mutex<HashMap<NodeId, Vec<(Id, Answer)>>>);

impl Confirmations {
    /// Notes a sid; whether somebody has to begin to ask.
    pub(super) fn push(&self, sid: Id, answer: Answer) -> Result<bool, RpcError> {
        let mut waiting = self.0.lock();
        let is_first = !waiting.contains_key(&sid.node());
        let of_node = waiting.entry(sid.node()).or_default();
        if of_node.len() >= MAX_WAITING {
            return Err(RpcError::Busy);
        }
        of_node.push((sid, answer));
        Ok(is_first)
    }

    /// The next question's sids; `None` ends the asking.
    pub(super) fn take(&self, node: NodeId) -> Option<Vec<(Id, Answer)>> {
        let mut waiting = self.0.lock();
        let of_node = waiting.get_mut(&node)?;
        if of_node.is_empty() {
            waiting.remove(&node);
            return None;
        }
        let some = of_node.len().min(PER_QUESTION);
        Some(of_node.drain(..some).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asks_for_all_and_waiting_ones_are_bounded() {
        let confirmations = Confirmations::default();
        let node = NodeId::random();
        let push = || confirmations.push(Id::random_at(node, 0), oneshot::channel().0);
        assert_eq!((push(), push()), (Ok(true), Ok(false)));
        assert_eq!(confirmations.take(node).unwrap().len(), 2);
        assert_eq!(push(), Ok(false), "the first one still asks");
        for _ in 1..MAX_WAITING {
            assert_eq!(push(), Ok(false));
        }
        assert_eq!(push(), Err(RpcError::Busy));
        while confirmations.take(node).is_some() {}
        assert_eq!(push(), Ok(true));
    }
}
