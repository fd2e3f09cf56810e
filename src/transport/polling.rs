//! Long-polling: GET leases the outbox, POST brings packets (docs/protocol/socketio.md sections 2.2 and 2.6). Requests
//! of a session may come in on any shard; its own shard answers.

use crate::handlers;
use crate::model::close::CloseReason;
use crate::model::id::Id;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::node::context::Node;
use crate::protocol::engineio;
use crate::session::accepted::AcceptedSocket;
use crate::session::connection::{Connection, ConnectionKey, Link};
use crate::session::connection_limiter::Permit;
use crate::session::polling::{BodyLimit, PollAnswer, Polling};
use crate::session::unproven::Ticket;
use crate::transport::handshake::WebSocketHandshake;
use bytes::Bytes;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Numbers GETs and POSTs, so that the late end of one is not taken for the end of the next.
static REQUESTS: AtomicU64 = AtomicU64::new(1);

fn next_number() -> u64 {
    REQUESTS.fetch_add(1, Ordering::Relaxed)
}

/// The Engine.IO handshake packet.
pub fn handshake(local: &LocalNode, sid: Id, upgrades: &[&str]) -> String {
    let settings = &local.context.socketio;
    engineio::handshake(&sid.to_string(), upgrades, settings.ping_interval, settings.ping_timeout, settings.max_payload)
}

/// Opens a polling session on this shard, whose client has `waited` for so much of `socketio.connect_timeout`. The answer
/// is its handshake payload, and its ticket among the unproven.
pub fn open(
    local: &Rc<LocalNode>,
    permit: Permit,
    request: WebSocketHandshake,
    waited: Duration,
) -> (String, Option<Ticket>) {
    let sid = local.shard.fresh_id();
    let mut connection = Connection::new(sid, Protocol::SocketIo, Link::Polling(Box::default()), permit);
    // Whether its WebSocket takes binary frames, its own request says.
    WebSocketHandshake { base64: false, ..request }.apply(&mut connection);
    let key = local.shard.open(connection);
    let ticket = local.await_proof(key);
    local.shard.start_timers(key, waited);
    let upgrades: &[&str] = if local.context.socketio.websocket { &["websocket"] } else { &[] };
    (handshake(local, sid, upgrades), ticket)
}

/// Runs `work` on the shard that owns the session; `None` when no such shard is.
pub fn on_owner(local: &Rc<LocalNode>, sid: Id, work: impl FnOnce(&Rc<LocalNode>) + Send + 'static) -> bool {
    if sid.shard() == local.shard.index {
        work(local);
        return true;
    }
    let owner = local.node.shards().get(usize::from(sid.shard()));
    owner.map(|owner| owner.run(work)).is_some()
}

/// A GET: waits for packets. `socket`: the one that it came on, unless another node forwards it. When the future is dropped because the client hung up, the session ends
/// (docs/protocol/socketio.md section 2.6).
pub async fn get(local: &Rc<LocalNode>, sid: Id, socket: Option<&Arc<AcceptedSocket>>) -> PollAnswer {
    let number = next_number();
    let (reply, answer) = oneshot::channel();
    let carrier = socket.cloned();
    let begin = move |local: &Rc<LocalNode>| {
        carry(local, sid, carrier.as_deref());
        begin_get(local, sid, number, reply);
    };
    if !on_owner(local, sid, begin) {
        return PollAnswer::Unknown;
    }
    let mut abort = Abort { node: local.node.clone(), sid, number, armed: true };
    let answer = answer.await.unwrap_or(PollAnswer::Unknown);
    abort.armed = false;
    answer
}

/// The socket of a request is safe while it carries one of a client that has proven itself.
fn carry(local: &LocalNode, sid: Id, socket: Option<&AcceptedSocket>) {
    if let Some(socket) = socket
        && local.shard.by_sid(sid).is_some_and(|key| local.shard.is_proven(key))
    {
        socket.carry();
    }
}

struct Abort {
    node: Arc<Node>,
    sid: Id,
    number: u64,
    armed: bool,
}

impl Drop for Abort {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (sid, number) = (self.sid, self.number);
        if let Some(owner) = self.node.shards().get(usize::from(sid.shard())) {
            owner.run(move |local| {
                let waits = |polling: &mut Polling| polling.waiting.as_ref().is_some_and(|(own, _)| *own == number);
                if let Ok(key) = local.shard.polling(sid)
                    && local.shard.with_polling(key, waits) == Some(true)
                {
                    local.shard.remove(key);
                }
            });
        }
    }
}

fn begin_get(local: &Rc<LocalNode>, sid: Id, number: u64, reply: oneshot::Sender<PollAnswer>) {
    let key = match local.shard.polling(sid) {
        Ok(key) => key,
        // Whoever asked may have gone; then nobody needs the answer. So with every reply below.
        Err(answer) => return drop(reply.send(answer)),
    };
    if local.shard.with_polling(key, |polling| polling.waiting.is_some()) == Some(true) {
        let _ = reply.send(PollAnswer::Overlap);
        local.shard.with_polling(key, |polling| polling.answer(Bytes::from_static(b"1")));
        return handlers::fail(local, key, CloseReason::Overlap);
    }
    let probed = local.shard.with_polling(key, |polling| {
        polling.waiting = Some((number, reply));
        polling.probed
    });
    local.shard.flush(key);
    if probed == Some(true) {
        // The client must finish its poll before it upgrades (docs/protocol/socketio.md section 2.8).
        local.shard.with_polling(key, |polling| polling.answer(Bytes::from_static(b"6")));
    }
}

/// Before a POST's body is read: only one at a time.
pub async fn begin_post(
    local: &Rc<LocalNode>,
    sid: Id,
    socket: Option<&Arc<AcceptedSocket>>,
) -> Result<Post, PollAnswer> {
    let (reply, answer) = oneshot::channel();
    let number = next_number();
    let carrier = socket.cloned();
    let begin = move |local: &Rc<LocalNode>| {
        carry(local, sid, carrier.as_deref());
        let _ = reply.send(local.shard.polling(sid).and_then(|key| {
            let earlier = local.shard.with_polling(key, |polling| polling.posting.replace(number));
            if earlier.flatten().is_none() {
                return Ok(local.shard.is_proven(key));
            }
            local.shard.with_polling(key, |polling| polling.answer(Bytes::from_static(b"1")));
            handlers::fail(local, key, CloseReason::Overlap);
            Err(PollAnswer::Overlap)
        }));
    };
    if !on_owner(local, sid, begin) {
        return Err(PollAnswer::Unknown);
    }
    let proven = answer.await.unwrap_or(Err(PollAnswer::Unknown))?;
    let max_body = BodyLimit::of(proven, local.context.socketio.max_payload);
    Ok(Post { node: local.node.clone(), sid, number, max_body })
}

/// A POST whose body is being read; dropped without [`Post::finish`], the session may post again.
pub struct Post {
    node: Arc<Node>,
    sid: Id,
    number: u64,
    /// How much of it may be read.
    pub max_body: BodyLimit,
}

impl Drop for Post {
    fn drop(&mut self) {
        let (sid, number) = (self.sid, self.number);
        if let Some(owner) = self.node.shards().get(usize::from(sid.shard())) {
            owner.run(move |local| {
                if let Some(key) = local.shard.by_sid(sid) {
                    local.shard.with_polling(key, |polling| polling.posting.take_if(|own| *own == number));
                }
            });
        }
    }
}

impl Post {
    /// Hands over the payload. The answer is `ok` whatever it holds; garbage ends the session
    /// (docs/protocol/socketio.md section 2.6).
    pub async fn finish(self, local: &Rc<LocalNode>, body: Bytes) -> PollAnswer {
        let (reply, answer) = oneshot::channel();
        let sid = self.sid;
        let take = move |local: &Rc<LocalNode>| {
            let taken = match local.shard.polling(sid) {
                Ok(key) => {
                    local.shard.with_polling(key, |polling| polling.posting = None);
                    take_payload(local, key, &body);
                    PollAnswer::Accepted
                }
                Err(answer) => answer,
            };
            let _ = reply.send(taken);
        };
        on_owner(local, sid, take);
        answer.await.unwrap_or(PollAnswer::Unknown)
    }

    /// A body that polling does not take, such as binary: the session ends (docs/protocol/socketio.md section 2.6).
    pub async fn refuse(self, local: &Rc<LocalNode>) {
        let (done, ended) = oneshot::channel::<()>();
        let sid = self.sid;
        on_owner(local, sid, move |local| {
            if let Ok(key) = local.shard.polling(sid) {
                handlers::fail(local, key, CloseReason::ParseError);
            }
            drop(done);
        });
        // The client's next request, which may come to the owner itself, must not find the session.
        let _ = ended.await;
    }
}

fn take_payload(local: &Rc<LocalNode>, key: ConnectionKey, body: &[u8]) {
    let Ok(body) = std::str::from_utf8(body) else { return handlers::fail(local, key, CloseReason::InvalidText) };
    for packet in engineio::parse_payload(body) {
        match packet {
            Ok(packet) => crate::transport::packets::receive(local, key, packet),
            Err(_) => return handlers::fail(local, key, CloseReason::ParseError),
        }
        if !local.shard.is_open(key) {
            return;
        }
    }
}
