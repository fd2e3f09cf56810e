//! Clients over `limits.events_per_second`: what waits, what is refused and how that is said, and who is closed.

use crate::handlers::send::say;
use crate::model::args::Args;
use crate::model::close::CloseReason;
use crate::model::draft::Source;
use crate::model::refusal::Refusal;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::protocol::plain_ws::ClientMessage;
use crate::protocol::socketio::Packet;
use crate::protocol::{plain_ws, socketio_encode};
use crate::refusals;
use crate::rules::Message;
use crate::session::connection::{ConnectionKey, SessionKey};
use crate::session::pending_packets::Inbound;
use crate::session::timers::Millis;
use std::time::Duration;

/// The error code that clients see.
const CODE: &str = "rate_limited";
const MESSAGE: &str = "more messages than `limits.events_per_second` allows; try again after `retry_after_ms`";
/// Where the queue is full for another reason than the rate, such as a backend that does not answer.
const QUEUE_RETRY: Millis = 1_000;

/// Counts a message that is no packet against the connection's rate; `false` when it gets no answer, because the connection is
/// over its rate or closing.
pub fn take_turn(local: &LocalNode, key: ConnectionKey) -> bool {
    let now = local.shard.now();
    let mut hub = local.shard.hub.borrow_mut();
    let Some(connection) = hub.connections.get_mut(key).filter(|connection| connection.closing.is_none()) else {
        return false;
    };
    let allowed = connection.bucket.take(now, local.context.limits.rate());
    drop(hub);
    if !allowed {
        refuse_unanswered(local, key, 0);
    }
    allowed
}

/// Waits until the connection's rate allows the packet that is next in its queue.
pub(super) async fn wait_for_turn(local: &LocalNode, key: ConnectionKey) {
    let rate = local.context.limits.rate();
    loop {
        let wait = {
            let now = local.shard.now();
            let mut hub = local.shard.hub.borrow_mut();
            let Some(connection) = hub.connections.get_mut(key) else { return };
            let deferred = connection.inbox.as_ref().is_some_and(|inbox| inbox.is_next_deferred());
            if !deferred || connection.bucket.take(now, rate) {
                return;
            }
            connection.bucket.wait(rate)
        };
        tokio::time::sleep(Duration::from_millis(wait.max(1))).await;
    }
}

/// Refuses a packet while `ahead` others wait for the rate. Its sender is told when to come again; one that does not stop is
/// closed.
pub(super) fn refuse(local: &LocalNode, key: ConnectionKey, packet: &Inbound, ahead: usize) {
    if !packet.wants_answer() {
        return refuse_unanswered(local, key, ahead);
    }
    let Some(retry) = note(local, key, ahead) else { return close(local, key) };
    let mut hub = local.shard.hub.borrow_mut();
    match packet {
        Inbound::SocketIo(Packet::Event { namespace, ack: Some(ack), .. }) => {
            if let Ok(packet) = socketio_encode::ack(namespace, ack, &answer(retry)) {
                hub.push_packet(key, packet);
            }
        }
        Inbound::PlainWs(ClientMessage::Event { id: Some(id), .. }) => {
            hub.push_json(key, &plain_ws::ack(id, &answer(retry)));
        }
        Inbound::PlainWs(ClientMessage::Join { id, .. } | ClientMessage::Leave { id, .. }) => {
            hub.push_json(key, &plain_ws::retry_error(CODE, MESSAGE, retry, id.as_deref()));
        }
        _ => {}
    }
}

/// The same for a message whose sender waits for no answer: once in a burst it is told by an `error`.
fn refuse_unanswered(local: &LocalNode, key: ConnectionKey, ahead: usize) {
    let Some(retry) = note(local, key, ahead) else { return close(local, key) };
    let first = local.shard.hub.borrow().connections.get(key).is_some_and(|c| c.bucket.is_first_refusal());
    if first {
        tell(local, key, retry);
    }
}

/// Counts a refusal; when to come again, or `None` where the client does not stop.
fn note(local: &LocalNode, key: ConnectionKey, ahead: usize) -> Option<Millis> {
    local.context.metrics.refused(Source::Client, CODE);
    let (now, rate) = (local.shard.now(), local.context.limits.rate());
    let mut hub = local.shard.hub.borrow_mut();
    let connection = hub.connections.get_mut(key)?;
    let in_rate = connection.bucket.wait(rate) == 0;
    let retry = connection.bucket.refuse(now, rate, ahead)?;
    let session = connection.sessions.first().copied();
    let who = session.and_then(|session| hub.sessions.get(session)).map(|session| session.name()).unwrap_or_default();
    drop(hub);
    let why = format_args!("more messages than limits.events_per_second allows, or more than may wait");
    refusals::note(&local.context.metrics, Refusal::Rate, format_args!("{who}"), why);
    Some(if in_rate { retry.max(QUEUE_RETRY) } else { retry })
}

/// Closes a client that does not stop, and tells it why.
fn close(local: &LocalNode, key: ConnectionKey) {
    let retry = CloseReason::RateLimit.retry().unwrap_or_default();
    tell(local, key, Millis::try_from(retry.as_millis()).unwrap_or(Millis::MAX));
    let now = local.shard.now();
    local.shard.hub.borrow_mut().close(key, CloseReason::RateLimit, now);
}

/// An `error` that belongs to no message of the client: an event of each Socket.IO session, or a message on `/ws`.
fn tell(local: &LocalNode, key: ConnectionKey, retry: Millis) {
    let (protocol, sessions): (_, Vec<SessionKey>) = {
        let hub = local.shard.hub.borrow();
        let Some(connection) = hub.connections.get(key) else { return };
        (connection.protocol, connection.sessions.clone())
    };
    if protocol == Protocol::PlainWs {
        let error = plain_ws::retry_error(CODE, MESSAGE, retry, None);
        return local.shard.hub.borrow_mut().push_json(key, &error);
    }
    let message = Message { event: "error".into(), args: answer(retry) };
    sessions.into_iter().for_each(|session| say(local, session, &message));
}

/// `[{"error":{"code","message","retry_after_ms"}}]`.
fn answer(retry: Millis) -> Args {
    let error = serde_json::json!([{ "error": { "code": CODE, "message": MESSAGE, "retry_after_ms": retry } }]);
    Args::list(&error.to_string()).unwrap_or_else(|_| Args::none())
}
