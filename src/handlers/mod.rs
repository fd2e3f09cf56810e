//! What a client's packets do: authenticate, join, leave, run rules. Decoded packets come in, changes
//! of the shard and answers go out. The transports move the bytes.

pub mod action_error;
pub mod backend_calls;
pub mod backend_lane;
pub mod overload;
pub mod plain_ws;
pub mod rate_limit;
pub mod resume;
pub mod rights;
pub mod room_access;
pub mod rule_runner;
pub mod send;
pub mod session_lookup;
pub mod session_start;
pub mod socketio;

use crate::model::close::CloseReason;
use crate::model::millis::Millis;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::session::connection::ConnectionKey;
use crate::session::pending_packets::Inbound;
use crate::shard::packets::{Begun, Next};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

/// Takes one packet of a connection. Packets are worked on in their order: while one waits (for a key set, for the
/// log, for the connection's rate), later ones wait behind it, within bounds. Those that need the backend wait apart, in
/// their own order.
pub fn receive(local: &Rc<LocalNode>, key: ConnectionKey, packet: Inbound) {
    match local.shard.begin_packet(key, packet) {
        Begun::Work(packet, arrived) => start(work(local.clone(), key, Some((packet, arrived)))),
        Begun::Defer => start(work(local.clone(), key, None)),
        Begun::Wait => {}
        Begun::Refuse(packet, ahead) => rate_limit::refuse(local, key, &packet, ahead),
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
async fn work(local: Rc<LocalNode>, key: ConnectionKey, packet: Option<(Inbound, Millis)>) {
    let mut packet = packet;
    loop {
        if let Some((packet, arrived)) = packet.take() {
            let deferred = match packet {
                Inbound::SocketIo(packet) => socketio::handle(&local, key, packet).await,
                Inbound::PlainWs(message) => plain_ws::handle(&local, key, message).await,
            };
            deferred.into_iter().for_each(|deferred| backend_lane::defer(&local, key, deferred, arrived));
        }
        match local.shard.next_packet(key) {
            Next::Packet(next, arrived) => packet = Some((next, arrived)),
            Next::Later(wait) => tokio::time::sleep(wait).await,
            Next::Done => return,
        }
    }
}

/// Closes a connection whose bytes broke the protocol.
pub fn fail(local: &LocalNode, key: ConnectionKey, reason: CloseReason) {
    local.shard.close(key, reason);
}

/// Whether a connection speaks this protocol, and is still open.
fn is_open(local: &LocalNode, key: ConnectionKey, protocol: Protocol) -> bool {
    local.shard.is_open(key) && local.shard.protocol(key) == Some(protocol)
}
