//! Sessions across nodes: a polling request may come in anywhere, and a client may come back anywhere. What this node
//! does not own it forwards to the node that does, and answers for what it owns.

use crate::cluster::{Moving, MovingSession, OneWay, Owner, RpcError, RpcHandler, RpcRequest, RpcResponse};
use crate::handlers::resume;
use crate::model::id::{Id, NodeId};
use crate::node::context::Node;
use crate::node::room_query;
use crate::presence::RoomStatus;
use crate::session::Session;
use crate::session::connection::ConnectionKey;
use crate::session::parked::Parked;
use crate::session::polling::PollAnswer;
use crate::shard::release::Released;
use crate::shard::runner::Shard;
use crate::transport::{polling, upgrade};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A forwarded GET is answered at the latest by the next ping; this is for the way.
const WAY: Duration = Duration::from_secs(5);
/// How often, and how many times, a connection is looked at that cannot be released as yet.
const IDLE_LOOK: Duration = Duration::from_millis(10);
const IDLE_LOOKS: usize = 200;

/// Whether the session of this sid began on another node.
pub fn is_elsewhere(node: &Node, sid: Id) -> bool {
    sid.node() != node.id && node.cluster.is_some()
}

/// Forwards a GET. When the future is dropped because the client hung up, the owner hears of it.
pub async fn get(shard: &Shard, sid: Id) -> PollAnswer {
    ask(shard, sid, RpcRequest::Get(sid), shard.node.socketio.ping_interval + WAY).await
}

/// Forwards a POST's payload; `None` for a body that polling does not take.
pub async fn post(shard: &Shard, sid: Id, body: Option<String>) -> PollAnswer {
    ask(shard, sid, RpcRequest::Post(sid, body), WAY).await
}

/// Whether a WebSocket may probe for a session of another node, and take it over.
pub async fn may_probe(shard: &Shard, sid: Id) -> bool {
    // Without the window nobody could tell what the session misses on its way.
    shard.node.recovery_on() && question(shard, sid, RpcRequest::Probe(sid), WAY).await == Ok(RpcResponse::Accepted)
}

/// Tells the owner of a session something.
pub fn tell(shard: &Shard, sid: Id, notice: OneWay) {
    if let Some(cluster) = &shard.node.cluster {
        cluster.send_one_way(sid.node(), notice);
    }
}

/// Asks the owner of a session.
pub async fn question(
    shard: &Shard,
    sid: Id,
    question: RpcRequest,
    patience: Duration,
) -> Result<RpcResponse, RpcError> {
    let cluster = shard.node.cluster.as_ref().ok_or(RpcError::Offline)?;
    cluster.request(sid.node(), question, patience).await
}

/// Whether the node that a sid names is there: what a client sends is not read, nor sent on, for nothing.
pub async fn has_owner(node: &Node, sid: Id) -> bool {
    match &node.cluster {
        Some(cluster) => cluster.is_reachable(sid.node()).await,
        None => false,
    }
}

async fn ask(shard: &Shard, sid: Id, asked: RpcRequest, patience: Duration) -> PollAnswer {
    match question(shard, sid, asked, patience).await {
        Ok(RpcResponse::Payload(text)) => PollAnswer::Payload(Bytes::from(text)),
        Ok(RpcResponse::Accepted) => PollAnswer::Accepted,
        Ok(RpcResponse::Overlap) => PollAnswer::Overlap,
        Ok(RpcResponse::Moved) => PollAnswer::Moved,
        Ok(
            RpcResponse::Unknown
            | RpcResponse::Taken(_)
            | RpcResponse::Released(_)
            | RpcResponse::Members(..)
            | RpcResponse::Unsupported,
        ) => PollAnswer::Unknown,
        Err(problem) => {
            tracing::debug!(%sid, node = %sid.node(), %problem, "a polling request could not be forwarded");
            PollAnswer::Unknown
        }
    }
}

/// GETs of other nodes that wait, by node and call; dropped when whoever made one hangs up.
type Gets = Arc<Mutex<HashMap<(NodeId, u64), oneshot::Sender<()>>>>;

/// Answers other nodes.
pub struct PeerServer {
    node: Arc<Node>,
    gets: Gets,
}

impl PeerServer {
    /// For this node.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self { node, gets: Gets::default() })
    }
}

impl PeerServer {
    fn answer_members(&self, from: NodeId, call: u64, namespace: &str, room: String) {
        let (node, index) = (self.node.clone(), self.node.namespace(namespace));
        tokio::spawn(async move {
            let status = match index {
                Some(index) => room_query::here(&node, index, &room).await,
                None => RoomStatus::default(),
            };
            if let Some(cluster) = &node.cluster {
                cluster.respond(from, call, RpcResponse::Members(status.connections, status.users)).await;
            }
        });
    }

    fn on_polling(&self, sid: Id, act: fn(&Shard, ConnectionKey)) {
        if let Some(shard) = self.node.shards().get(usize::from(sid.shard())) {
            shard.run(move |shard| {
                let key = shard.hub.borrow().by_sid(sid);
                if let Some(key) = key {
                    act(shard, key);
                }
            });
        }
    }
}

impl RpcHandler for PeerServer {
    fn on_request(&self, from: NodeId, call: u64, question: RpcRequest) {
        let id = match &question {
            RpcRequest::Members(namespace, room) => return self.answer_members(from, call, namespace, room.clone()),
            RpcRequest::Take(id, _)
            | RpcRequest::Get(id)
            | RpcRequest::Post(id, _)
            | RpcRequest::Probe(id)
            | RpcRequest::Release(id) => id,
        };
        let shards = self.node.shards();
        // An id that names no shard is nobody's, and any shard can say so.
        let Some(shard) = shards.get(usize::from(id.shard())).or(shards.first()) else { return };
        let gets = self.gets.clone();
        // Here and now: a hang-up may be the next letter.
        let gone = match &question {
            RpcRequest::Get(_) => {
                let (hung_up, gone) = oneshot::channel();
                gets.lock().insert((from, call), hung_up);
                Some(gone)
            }
            _ => None,
        };
        shard.run(move |shard| {
            let shard = shard.clone();
            tokio::task::spawn_local(async move {
                match question {
                    RpcRequest::Take(pid, owner) => hand_over(&shard, from, call, pid, Owner::from_text(owner)).await,
                    RpcRequest::Get(sid) => answer_get(&shard, &gets, gone, from, call, sid).await,
                    RpcRequest::Post(sid, body) => {
                        let answer = take_post(&shard, sid, body).await;
                        reply(&shard, from, call, answer).await;
                    }
                    RpcRequest::Probe(sid) => {
                        let key = upgrade::begin(&shard, sid);
                        reply(&shard, from, call, key.map_or(RpcResponse::Unknown, |_| RpcResponse::Accepted)).await;
                        if let Some(key) = key {
                            upgrade::limit(&shard, key).await;
                        }
                    }
                    RpcRequest::Release(sid) => release(&shard, from, call, sid).await,
                    RpcRequest::Members(..) => {}
                }
            });
        });
    }

    fn on_rejoined(&self) {
        for shard in self.node.shards() {
            shard.run(|shard| shard.hub.borrow_mut().mark_stale());
        }
    }

    fn on_reachable(&self, reachable: bool) {
        for shard in self.node.shards() {
            shard.run(move |shard| shard.hub.borrow_mut().be_reachable(reachable));
        }
    }

    fn on_rewrite_records(&self, round: u64) {
        self.node.rewrite_records(round);
    }

    fn on_one_way(&self, from: NodeId, notice: OneWay) {
        match notice {
            OneWay::Applied(order, sessions) => self.node.orders.node_did(order, from, sessions),
            OneWay::Hangup(call) => drop(self.gets.lock().remove(&(from, call))),
            OneWay::Probed(sid) => self.on_polling(sid, upgrade::end_get),
            OneWay::ProbeFailed(sid) => self.on_polling(sid, upgrade::give_up),
        }
    }
}

async fn reply(shard: &Shard, to: NodeId, call: u64, answer: RpcResponse) -> bool {
    match &shard.node.cluster {
        Some(cluster) => cluster.respond(to, call, answer).await,
        None => false,
    }
}

/// Gives a session away; it stays where nobody hears the answer.
async fn hand_over(shard: &Rc<Shard>, to: NodeId, call: u64, pid: Id, owner: Owner) {
    let taken = resume::take(shard, pid, &owner).await.map(|taken| taken.parked);
    let heard = reply(shard, to, call, RpcResponse::Taken(taken.as_ref().map(|parked| parked.to_record()))).await;
    if let Some(parked) = taken.filter(|_| !heard) {
        resume::park_again(shard, pid, parked);
    }
}

/// Lets go of a connection whose WebSocket came to another node; its sessions stay where nobody hears the answer.
async fn release(shard: &Rc<Shard>, to: NodeId, call: u64, sid: Id) {
    // What the client asked for last is answered here first.
    for _ in 0..IDLE_LOOKS {
        let busy = {
            let hub = shard.hub.borrow();
            hub.by_sid(sid).is_some_and(|key| !hub.is_idle(key))
        };
        if !busy {
            break;
        }
        tokio::time::sleep(IDLE_LOOK).await;
    }
    let released = shard.hub.borrow_mut().release(sid);
    let moving = released.as_ref().map(|released| Box::new(moving(shard, released)));
    let heard = reply(shard, to, call, RpcResponse::Released(moving)).await;
    for (session, parked) in released.into_iter().flat_map(|released| released.sessions).filter(|_| !heard) {
        if let Some(pid) = session.pid {
            resume::park_again(shard, pid, parked);
        }
    }
}

fn moving(shard: &Shard, released: &Released) -> Moving {
    let session = |(session, parked): &(Box<Session>, Parked)| MovingSession {
        pid: session.pid,
        namespace: shard.node.namespaces[usize::from(session.namespace)].to_string(),
        record: parked.to_record(),
        claims: session.identity.claims.to_string(),
        expires: session.identity.expires,
        auth: session.auth.as_deref().map(str::to_owned),
    };
    Moving {
        payload: released.payload.clone(),
        position: released.position.to_string(),
        token: released.token.as_deref().map(str::to_owned),
        sessions: released.sessions.iter().map(session).collect(),
    }
}

async fn answer_get(
    shard: &Rc<Shard>,
    gets: &Gets,
    gone: Option<oneshot::Receiver<()>>,
    from: NodeId,
    call: u64,
    sid: Id,
) {
    let gone = async {
        match gone {
            Some(gone) => drop(gone.await),
            None => std::future::pending().await,
        }
    };
    let answer = tokio::select! {
        answer = polling::get(shard, sid) => answer,
        // Dropping the GET ends the session, as where the client's own connection breaks.
        () = gone => return,
    };
    gets.lock().remove(&(from, call));
    // Where it is not heard the client's GET fails, and the client comes back for what it missed.
    reply(shard, from, call, answer_of(answer)).await;
}

async fn take_post(shard: &Rc<Shard>, sid: Id, body: Option<String>) -> RpcResponse {
    let post = match polling::begin_post(shard, sid).await {
        Ok(post) => post,
        Err(answer) => return answer_of(answer),
    };
    match body {
        Some(body) => answer_of(post.finish(shard, body.into()).await),
        None => {
            post.refuse(shard);
            RpcResponse::Overlap
        }
    }
}

fn answer_of(answer: PollAnswer) -> RpcResponse {
    match answer {
        PollAnswer::Payload(bytes) => match String::from_utf8(bytes.into()) {
            Ok(text) => RpcResponse::Payload(text),
            // A payload is text by its making.
            Err(_) => RpcResponse::Unknown,
        },
        PollAnswer::Accepted => RpcResponse::Accepted,
        PollAnswer::Overlap | PollAnswer::TooBig => RpcResponse::Overlap,
        PollAnswer::Unknown => RpcResponse::Unknown,
        PollAnswer::Moved => RpcResponse::Moved,
    }
}
