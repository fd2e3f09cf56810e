//! Answers the requests of other nodes: forwarded polling requests, and sessions that are to continue there.

mod handover;
mod polling;

use crate::cluster::{Confirmed, OneWay, Owner, RpcHandler, RpcRequest, RpcResponse};
use crate::model::id::{Id, NodeId};
use crate::node::context::{LocalNode, Node};
use crate::node::room_query;
use crate::node::{explanation, inspection, status, trace_part};
use crate::presence::RoomStatus;
use crate::session::connection::ConnectionKey;
use crate::shard::handle::ShardHandle;
use crate::transport::upgrade;
use polling::PendingGets;
use std::rc::Rc;
use std::sync::Arc;

/// Answers other nodes.
pub struct PeerServer {
    node: Arc<Node>,
    gets: PendingGets,
}

impl PeerServer {
    /// For this node.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self { node, gets: PendingGets::default() })
    }

    fn answer_members(&self, from: NodeId, call: u64, namespace: &str, room: String) {
        let (node, index) = (self.node.clone(), self.node.context.namespaces.find(namespace));
        tokio::spawn(async move {
            let status = match index {
                Some(index) => room_query::here(&node, index, &room).await,
                None => RoomStatus::default(),
            };
            node.answer_peer(from, call, RpcResponse::Members(status.connections, status.users)).await;
        });
    }

    fn inspect(&self, from: NodeId, call: u64, question: RpcRequest) {
        let node = self.node.clone();
        tokio::spawn(async move {
            let answer = match question {
                RpcRequest::NodeStatus => RpcResponse::NodeStatus(Box::new(status::of(&node).await)),
                RpcRequest::Rooms(query) => RpcResponse::Rooms(inspection::rooms_here(&node, query).await),
                RpcRequest::Sessions(query) => RpcResponse::Sessions(inspection::sessions_here(&node, query).await),
                RpcRequest::Session(id) => {
                    RpcResponse::Sessions(inspection::session_here(&node, id).await.into_iter().collect())
                }
                RpcRequest::Trace(query) => RpcResponse::Trace(Box::new(trace_part::answer(&node, from, query).await)),
                RpcRequest::Explain(query) => {
                    RpcResponse::Explained(Box::new(explanation::explain_here(&node, query).await))
                }
                _ => RpcResponse::Unsupported,
            };
            node.answer_peer(from, call, answer).await;
        });
    }

    fn confirm(&self, from: NodeId, call: u64, sids: Vec<Id>) {
        let node = self.node.clone();
        tokio::spawn(async move {
            let mut answers = vec![Confirmed::Unknown; sids.len()];
            for (index, shard) in node.shards().iter().enumerate() {
                let of_shard: Vec<_> =
                    sids.iter().copied().enumerate().filter(|(_, sid)| usize::from(sid.shard()) == index).collect();
                if of_shard.is_empty() {
                    continue;
                }
                let confirmed = shard
                    .ask(move |local| of_shard.iter().map(|(at, sid)| (*at, local.shard.confirm_sid(*sid))).collect())
                    .await;
                let confirmed: Vec<(usize, Confirmed)> = confirmed.unwrap_or_default();
                for (at, answer) in confirmed {
                    answers[at] = answer;
                }
            }
            node.answer_peer(from, call, RpcResponse::Confirmed(answers)).await;
        });
    }

    /// The shard that owns an id. If an id names no shard, any shard can answer that it is unknown.
    fn owner(&self, id: Id) -> Option<&ShardHandle<LocalNode>> {
        let shards = self.node.shards();
        shards.get(usize::from(id.shard())).or(shards.first())
    }

    fn on_polling(&self, sid: Id, act: fn(&LocalNode, ConnectionKey)) {
        if let Some(owner) = self.node.shards().get(usize::from(sid.shard())) {
            owner.run(move |local| {
                let key = local.shard.by_sid(sid);
                if let Some(key) = key {
                    act(local, key);
                }
            });
        }
    }
}

impl RpcHandler for PeerServer {
    fn on_request(&self, from: NodeId, call: u64, question: RpcRequest) {
        let id = match &question {
            RpcRequest::Members(namespace, room) => return self.answer_members(from, call, namespace, room.clone()),
            RpcRequest::Confirm(sids) => return self.confirm(from, call, sids.clone()),
            RpcRequest::NodeStatus
            | RpcRequest::Rooms(_)
            | RpcRequest::Sessions(_)
            | RpcRequest::Session(_)
            | RpcRequest::Explain(_)
            | RpcRequest::Trace(_) => {
                return self.inspect(from, call, question);
            }
            RpcRequest::Take(id, _)
            | RpcRequest::Get(id)
            | RpcRequest::Post(id, _)
            | RpcRequest::Probe(id)
            | RpcRequest::Release(id) => *id,
        };
        let Some(owner) = self.owner(id) else { return };
        let gets = self.gets.clone();
        if let RpcRequest::Get(sid) = question {
            // Noted before anything is awaited: the hang-up may be the next message.
            let hung_up = gets.insert(from, call);
            return owner.run(move |local| {
                let local = local.clone();
                tokio::task::spawn_local(async move {
                    polling::answer_get(&local, &gets, hung_up, (from, call), sid).await;
                });
            });
        }
        owner.run(move |local| {
            let local = local.clone();
            tokio::task::spawn_local(async move { answer(&local, from, call, question).await });
        });
    }

    fn on_rejoined(&self) {
        for shard in self.node.shards() {
            shard.run(|local| local.shard.mark_stale());
        }
    }

    fn on_reachable(&self, reachable: bool) {
        for shard in self.node.shards() {
            shard.run(move |local| local.shard.be_reachable(reachable));
        }
    }

    fn on_rewrite_records(&self, round: u64) {
        self.node.rewrite_records(round);
    }

    fn on_one_way(&self, from: NodeId, notice: OneWay) {
        match notice {
            OneWay::Applied(order, sessions) => self.node.command_tracker.node_applied(order, from, sessions),
            OneWay::Hangup(call) => self.gets.remove(from, call),
            OneWay::Probed(sid) => self.on_polling(sid, upgrade::end_get),
            OneWay::ProbeFailed(sid) => self.on_polling(sid, upgrade::give_up),
            OneWay::TraceEnded(trace) => self.node.traces.end((from, trace)),
            // Taken by the subscription.
            OneWay::PieceRead(..) => {}
        }
    }
}

/// Answers a request on the shard that owns the session.
async fn answer(local: &Rc<LocalNode>, from: NodeId, call: u64, request: RpcRequest) {
    match request {
        RpcRequest::Take(pid, owner) => handover::hand_over(local, from, call, pid, Owner::from_text(owner)).await,
        RpcRequest::Post(sid, body) => {
            let answer = polling::take_post(local, sid, body).await;
            local.node.answer_peer(from, call, answer).await;
        }
        RpcRequest::Probe(sid) => {
            let key = upgrade::begin_elsewhere(local, sid);
            let answer = key.map_or(RpcResponse::Unknown, |_| RpcResponse::Accepted);
            local.node.answer_peer(from, call, answer).await;
            if let Some(key) = key {
                upgrade::limit(local, key).await;
            }
        }
        RpcRequest::Release(sid) => handover::release(local, from, call, sid).await,
        // Answered by `on_request`.
        RpcRequest::Get(_) | RpcRequest::Members(..) | RpcRequest::Confirm(_) => {}
        RpcRequest::NodeStatus
        | RpcRequest::Rooms(_)
        | RpcRequest::Sessions(_)
        | RpcRequest::Session(_)
        | RpcRequest::Explain(_)
        | RpcRequest::Trace(_) => {}
    }
}
