//! What a client's packets do: authenticate, join, leave, run rules. Protocol words come in, hub changes and
//! answers go out; bytes are the transports' business.

pub mod backend_calls;
pub mod plain_ws;
pub mod rate_limit;
pub mod resume;
pub mod room_access;
pub mod rule_runner;
pub mod send;
pub mod session_start;
pub mod socketio;

use crate::model::close::CloseReason;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::protocol::socketio::max_attached;
use crate::session::connection::ConnectionKey;
use crate::session::pending_packets::{Inbound, PendingPackets};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

/// Takes one packet of a connection. Packets are worked on in their order: while one waits (for a key set, for the
/// log, for the connection's rate), later ones wait behind it, within bounds. Beyond them, and where a client over its rate
/// waits for an answer, the packet is refused.
pub fn receive(local: &Rc<LocalNode>, key: ConnectionKey, packet: Inbound) {
    let now = local.shard.now();
    let mut hub = local.shard.hub.borrow_mut();
    let Some(connection) = hub.connections.get_mut(key).filter(|connection| connection.closing.is_none()) else {
        return;
    };
    // Nobody overtakes those that wait for the rate.
    let waiting = connection.inbox.as_ref().map_or(0, |inbox| inbox.deferred());
    let in_rate = waiting == 0 && connection.bucket.take(now, local.context.limits.rate());
    if !in_rate && packet.wants_answer() {
        drop(hub);
        return rate_limit::refuse(local, key, &packet, waiting);
    }
    if in_rate && connection.inbox.is_none() {
        connection.inbox = Some(Box::default());
        drop(hub);
        return start(work(local.clone(), key, Some(packet)));
    }
    let idle = connection.inbox.is_none();
    let max_payload = local.context.socketio.max_payload;
    let max_bytes = if connection.sessions.is_empty() { max_payload } else { max_attached(max_payload) };
    match connection.inbox.get_or_insert_default().push(packet, !in_rate, max_bytes) {
        Ok(()) if idle => {
            drop(hub);
            start(work(local.clone(), key, None));
        }
        Ok(()) => {}
        Err(packet) => {
            drop(hub);
            rate_limit::refuse(local, key, &packet, waiting);
        }
    }
}

/// Nearly everything is done at the first poll; only what waits costs a task.
fn start(work: impl Future<Output = ()> + 'static) {
    let mut work: Pin<Box<dyn Future<Output = ()>>> = Box::pin(work);
    if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        tokio::task::spawn_local(work);
    }
}

/// Works on a packet, then on those that came meanwhile.
async fn work(local: Rc<LocalNode>, key: ConnectionKey, packet: Option<Inbound>) {
    let mut next = packet;
    loop {
        match next {
            Some(Inbound::SocketIo(packet)) => socketio::handle(&local, key, packet).await,
            Some(Inbound::PlainWs(message)) => plain_ws::handle(&local, key, message).await,
            None => {}
        }
        rate_limit::wait_for_turn(&local, key).await;
        let mut hub = local.shard.hub.borrow_mut();
        let Some(connection) = hub.connections.get_mut(key) else { return };
        next = connection.inbox.as_mut().and_then(|inbox: &mut Box<PendingPackets>| inbox.pop());
        if next.is_none() {
            connection.inbox = None;
            return;
        }
    }
}

/// Closes a connection whose bytes broke the protocol.
pub fn fail(local: &LocalNode, key: ConnectionKey, reason: CloseReason) {
    let now = local.shard.now();
    local.shard.hub.borrow_mut().close(key, reason, now);
}

/// Whether a connection speaks this protocol, and is still open.
fn is_open(local: &LocalNode, key: ConnectionKey, protocol: Protocol) -> bool {
    let hub = local.shard.hub.borrow();
    hub.connections.get(key).is_some_and(|connection| connection.closing.is_none() && connection.protocol == protocol)
}
