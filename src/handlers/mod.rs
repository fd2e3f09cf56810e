//! What a client's packets do: authenticate, join, leave, run rules. Protocol words come in, hub changes and
//! answers go out; bytes are the transports' business.

pub mod backend_calls;
pub mod plain_ws;
pub mod resume;
pub mod room_access;
pub mod rule_runner;
pub mod send;
pub mod session_start;
pub mod socketio;

use crate::model::close::CloseReason;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::session::connection::ConnectionKey;
use crate::session::pending_packets::{Inbound, PendingPackets};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

/// Takes one packet of a connection. Packets are worked on in their order: while one waits (for a key set, for the
/// log), later ones wait behind it, within bounds.
pub fn receive(local: &Rc<LocalNode>, key: ConnectionKey, packet: Inbound) {
    if !take_turn(local, key) {
        return;
    }
    {
        let now = local.shard.now();
        let mut hub = local.shard.hub.borrow_mut();
        let Some(connection) = hub.connections.get_mut(key) else { return };
        if let Some(inbox) = &mut connection.inbox {
            if !inbox.push(packet, local.context.socketio.max_payload) {
                hub.close(key, CloseReason::RateLimit, now);
            }
            return;
        }
        connection.inbox = Some(Box::default());
    }
    let mut work: Pin<Box<dyn Future<Output = ()>>> = Box::pin(work(local.clone(), key, packet));
    // Nearly everything is done at the first poll; only what waits costs a task.
    if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        tokio::task::spawn_local(work);
    }
}

/// Counts a message against the connection's rate; `false` when the connection is closing, for this or another reason.
pub fn take_turn(local: &LocalNode, key: ConnectionKey) -> bool {
    let now = local.shard.now();
    let mut hub = local.shard.hub.borrow_mut();
    let Some(connection) = hub.connections.get_mut(key).filter(|connection| connection.closing.is_none()) else {
        return false;
    };
    let allowed = connection.bucket.take(now, local.context.limits.events_per_second);
    if !allowed {
        hub.close(key, CloseReason::RateLimit, now);
    }
    allowed
}

/// Works on a packet, then on those that came meanwhile.
async fn work(local: Rc<LocalNode>, key: ConnectionKey, packet: Inbound) {
    let mut next = Some(packet);
    while let Some(packet) = next {
        match packet {
            Inbound::SocketIo(packet) => socketio::handle(&local, key, packet).await,
            Inbound::PlainWs(message) => plain_ws::handle(&local, key, message).await,
        }
        let mut hub = local.shard.hub.borrow_mut();
        let Some(connection) = hub.connections.get_mut(key) else { return };
        next = connection.inbox.as_mut().and_then(|inbox: &mut Box<PendingPackets>| inbox.pop());
        if next.is_none() {
            connection.inbox = None;
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
