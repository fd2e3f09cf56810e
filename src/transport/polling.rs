//! Long-polling: GET leases the outbox, POST brings packets (wire sheet A2, A6). Requests of a session may come in
//! on any shard; its own shard answers.

use crate::handlers;
use crate::model::close::CloseReason;
use crate::model::id::Id;
use crate::model::transport::Protocol;
use crate::node::context::Node;
use crate::protocol::engineio;
use crate::session::connection::{Connection, ConnectionKey, Link};
use crate::session::connection_limiter::Permit;
use crate::session::polling::{PollAnswer, Polling};
use crate::shard::runner::Shard;
use bytes::Bytes;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// Numbers GETs, so that a late abort does not end a later one.
static GETS: AtomicU64 = AtomicU64::new(1);

/// The Engine.IO handshake packet.
pub fn handshake(shard: &Shard, sid: Id, upgrades: &[&str]) -> String {
    let settings = &shard.node.socketio;
    engineio::handshake(&sid.to_string(), upgrades, settings.ping_interval, settings.ping_timeout, settings.max_payload)
}

/// Opens a polling session on this shard and answers its handshake payload.
pub fn open(shard: &Rc<Shard>, place: Permit, token: Option<Box<str>>) -> String {
    let sid = shard.fresh_id();
    let mut connection = Connection::new(sid, Protocol::SocketIo, Link::Polling(Box::default()), place);
    connection.token = token;
    let now = shard.now();
    let mut hub = shard.hub.borrow_mut();
    let key = hub.open(connection);
    hub.start_timers(key, now);
    drop(hub);
    let upgrades: &[&str] = if shard.node.socketio.websocket { &["websocket"] } else { &[] };
    handshake(shard, sid, upgrades)
}

/// Runs `work` on the shard that owns the session; `None` when no such shard is.
pub fn on_owner(shard: &Rc<Shard>, sid: Id, work: impl FnOnce(&Rc<Shard>) + Send + 'static) -> bool {
    if sid.shard() == shard.index {
        work(shard);
        return true;
    }
    let owner = shard.node.shards().get(usize::from(sid.shard()));
    owner.map(|owner| owner.run(work)).is_some()
}

/// A GET: waits for packets. When the future is dropped because the client hung up, the session ends (wire sheet A6).
pub async fn get(shard: &Rc<Shard>, sid: Id) -> PollAnswer {
    let number = GETS.fetch_add(1, Ordering::Relaxed);
    let (reply, answer) = oneshot::channel();
    if !on_owner(shard, sid, move |shard| begin_get(shard, sid, number, reply)) {
        return PollAnswer::Unknown;
    }
    let mut abort = Abort { node: shard.node.clone(), sid, number, armed: true };
    let answer = answer.await.unwrap_or(PollAnswer::Unknown);
    abort.armed = false;
    answer
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
            owner.run(move |shard| {
                if let Ok(key) = find(shard, sid)
                    && with_polling(shard, key, |p| p.waiting.as_ref().is_some_and(|(waiting, _)| *waiting == number))
                {
                    let now = shard.now();
                    shard.hub.borrow_mut().remove(key, now);
                }
            });
        }
    }
}

/// The polling connection with this sid, if its time is not over.
fn find(shard: &Shard, sid: Id) -> Result<ConnectionKey, PollAnswer> {
    let now = shard.now();
    let mut hub = shard.hub.borrow_mut();
    let key = hub.by_sid(sid).ok_or(PollAnswer::Unknown)?;
    // Exact to the millisecond, even when the table has not fired yet (wire sheet H).
    hub.check_deadline(key, now);
    let connection = hub.connections.get(key).ok_or(PollAnswer::Unknown)?;
    match connection.link {
        Link::Polling(_) => Ok(key),
        _ => Err(PollAnswer::Moved),
    }
}

fn with_polling<T: Default>(shard: &Shard, key: ConnectionKey, act: impl FnOnce(&mut Polling) -> T) -> T {
    match shard.hub.borrow_mut().connections.get_mut(key).map(|connection| &mut connection.link) {
        Some(Link::Polling(polling)) => act(polling),
        _ => T::default(),
    }
}

fn begin_get(shard: &Rc<Shard>, sid: Id, number: u64, reply: oneshot::Sender<PollAnswer>) {
    let key = match find(shard, sid) {
        Ok(key) => key,
        // Whoever asked may have gone; then nobody needs the answer. So with every reply below.
        Err(answer) => return drop(reply.send(answer)),
    };
    if with_polling(shard, key, |polling| polling.waiting.is_some()) {
        let _ = reply.send(PollAnswer::Overlap);
        with_polling(shard, key, |polling| polling.answer(Bytes::from_static(b"1")));
        return handlers::fail(shard, key, CloseReason::Overlap);
    }
    let probed = with_polling(shard, key, |polling| {
        polling.waiting = Some((number, reply));
        polling.probed
    });
    let now = shard.now();
    let mut hub = shard.hub.borrow_mut();
    hub.flush(key, now);
    drop(hub);
    if probed {
        // The client must finish its poll before it upgrades (wire sheet A8).
        with_polling(shard, key, |polling| polling.answer(Bytes::from_static(b"6")));
    }
}

/// Before a POST's body is read: only one at a time.
pub async fn begin_post(shard: &Rc<Shard>, sid: Id) -> Result<Post, PollAnswer> {
    let (reply, answer) = oneshot::channel();
    let begin = move |shard: &Rc<Shard>| {
        let _ = reply.send(find(shard, sid).and_then(|key| {
            if !with_polling(shard, key, |polling| std::mem::replace(&mut polling.posting, true)) {
                return Ok(());
            }
            with_polling(shard, key, |polling| polling.answer(Bytes::from_static(b"1")));
            handlers::fail(shard, key, CloseReason::Overlap);
            Err(PollAnswer::Overlap)
        }));
    };
    if !on_owner(shard, sid, begin) {
        return Err(PollAnswer::Unknown);
    }
    answer.await.unwrap_or(Err(PollAnswer::Unknown))?;
    Ok(Post { node: shard.node.clone(), sid })
}

/// A POST whose body is being read; dropped without [`Post::finish`], the session may post again.
pub struct Post {
    node: Arc<Node>,
    sid: Id,
}

impl Drop for Post {
    fn drop(&mut self) {
        let sid = self.sid;
        if let Some(owner) = self.node.shards().get(usize::from(sid.shard())) {
            owner.run(move |shard| {
                let key = shard.hub.borrow().by_sid(sid);
                if let Some(key) = key {
                    with_polling(shard, key, |polling| polling.posting = false);
                }
            });
        }
    }
}

impl Post {
    /// Hands over the payload. The answer is `ok` whatever it holds; garbage ends the session (wire sheet A6).
    pub async fn finish(self, shard: &Rc<Shard>, body: Bytes) -> PollAnswer {
        let (reply, answer) = oneshot::channel();
        let sid = self.sid;
        let take = move |shard: &Rc<Shard>| {
            let taken = match find(shard, sid) {
                Ok(key) => {
                    with_polling(shard, key, |polling| polling.posting = false);
                    take_payload(shard, key, &body);
                    PollAnswer::Accepted
                }
                Err(answer) => answer,
            };
            let _ = reply.send(taken);
        };
        on_owner(shard, sid, take);
        answer.await.unwrap_or(PollAnswer::Unknown)
    }

    /// A body that polling does not take, such as binary: the session ends (wire sheet A6).
    pub fn refuse(self, shard: &Rc<Shard>) {
        let sid = self.sid;
        on_owner(shard, sid, move |shard| {
            if let Ok(key) = find(shard, sid) {
                handlers::fail(shard, key, CloseReason::ParseError);
            }
        });
    }
}

fn take_payload(shard: &Rc<Shard>, key: ConnectionKey, body: &[u8]) {
    let Ok(body) = std::str::from_utf8(body) else { return handlers::fail(shard, key, CloseReason::InvalidText) };
    for packet in engineio::parse_payload(body) {
        match packet {
            Ok(packet) => crate::transport::packets::receive(shard, key, packet),
            Err(_) => return handlers::fail(shard, key, CloseReason::ParseError),
        }
        if shard.hub.borrow().connections.get(key).is_none_or(|connection| connection.closing.is_some()) {
            return;
        }
    }
}
