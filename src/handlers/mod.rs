//! What a client's packets do: authenticate, join, leave, run rules. Decoded packets come in, changes
//! of the shard and answers go out. The transports move the bytes.

pub mod action_error;
pub mod admin_ui;
pub mod backend_calls;
pub mod backend_lane;
pub mod connect;
pub mod lifecycle_rules;
pub mod new_rules;
pub mod overload;
pub mod plain_ws;
pub mod rate_limit;
pub mod resume;
pub mod rights;
pub mod room_access;
mod rule_plan;
pub mod rule_runner;
pub mod send;
pub mod session_lookup;
pub mod session_start;
pub mod socketio;

use crate::backend::Place;
use crate::model::close::{CloseReason, DropReason};
use crate::model::millis::Millis;
use crate::model::transport::Protocol;
use crate::node::backend_lanes::{Waiting, Work};
use crate::node::context::LocalNode;
use crate::session::connection::{ConnectionKey, SessionKey};
use crate::session::pending_packets::Inbound;
use crate::shard::packets::{Begun, Next};
use backend_calls::Ask;
use backend_lane::{Deferred, Need};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

/// While the backend is asked for a client, how often is looked whether the client is still there.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

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
            deferred.into_iter().for_each(|deferred| defer(&local, key, deferred, arrived));
        }
        match local.shard.next_packet(key) {
            Next::Packet(next, arrived) => packet = Some((next, arrived)),
            Next::Later(wait) => tokio::time::sleep(wait).await,
            Next::Done => return,
        }
    }
}

/// Lets a packet wait; one that finds no place is refused.
fn defer(local: &Rc<LocalNode>, key: ConnectionKey, deferred: Deferred, arrived: Millis) {
    let Deferred { packet, session, need } = deferred;
    // What asks nothing takes no place: a client that leaves is not refused.
    let place = if packet.is_message() {
        match backend_calls::take_place(local, need.kind, session, packet.size()) {
            Ok(place) => Some(place),
            Err(_) => return rate_limit::refuse_queued(local, key, &packet),
        }
    } else {
        None
    };
    push(local, key, Waiting { work: Work::Packet(packet), session, rooms: need.rooms, arrived, place });
}

/// Lets the `connection` rule of a session wait.
pub fn defer_connection(local: &Rc<LocalNode>, session: SessionKey, need: Need, place: Place) {
    let Some(key) = local.shard.connection_of(session) else { return };
    let (rooms, arrived) = (need.rooms, local.shard.now());
    push(local, key, Waiting { work: Work::Connection, session, rooms, arrived, place: Some(place) });
}

fn push(local: &Rc<LocalNode>, key: ConnectionKey, waiting: Waiting) {
    let is_first = local.backend_lanes.push(key, waiting);
    local.shard.set_asking(key, local.backend_lanes.bytes(key));
    if is_first {
        start(work_off(local.clone(), key));
    }
}

/// Works on what waits, one after the other.
async fn work_off(local: Rc<LocalNode>, key: ConnectionKey) {
    while let Some(waiting) = local.backend_lanes.next(key) {
        local.shard.set_asking(key, local.backend_lanes.bytes(key));
        let mut work = pin!(work_on(&local, key, waiting));
        while tokio::time::timeout(LOOK_AGAIN, work.as_mut()).await.is_err() {
            if !local.shard.is_open(key) {
                let lost = local.backend_lanes.clear(key).iter().filter(|waiting| waiting.is_message()).count();
                local.context.metrics.events.dropped(DropReason::Unhandled, lost as u64);
            }
        }
    }
    local.shard.set_asking(key, None);
}

async fn work_on(local: &Rc<LocalNode>, key: ConnectionKey, waiting: Waiting) {
    let has_session = !waiting.needs_session() || local.shard.has_session(waiting.session);
    if !local.shard.is_open(key) || !has_session {
        return local.context.metrics.events.dropped(DropReason::Unhandled, u64::from(waiting.is_message()));
    }
    let Waiting { work, session, arrived, place, .. } = waiting;
    let ask = place.and_then(|place| Ask::new(local, place, arrived));
    match work {
        Work::Connection => lifecycle_rules::run_connection_now(local, session, ask.as_ref()).await,
        Work::Packet(Inbound::SocketIo(packet)) => {
            socketio::handle_asking(local, key, session, packet, ask.as_ref()).await;
        }
        Work::Packet(Inbound::PlainWs(message)) => {
            plain_ws::handle_asking(local, key, session, message, ask.as_ref()).await;
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
