//! Clients over `limits.events_per_second`, or over their part of the backend's queue: how a packet is refused, and which
//! client is closed.

use crate::handlers::send::send_to_session;
use crate::model::args::Args;
use crate::model::close::CloseReason;
use crate::model::draft::Source;
use crate::model::millis::whole_millis;
use crate::model::refusal::Refusal;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::protocol::plain_ws::ClientMessage;
use crate::protocol::socketio::Packet;
use crate::protocol::{plain_ws, socketio_encode};
use crate::refusals;
use crate::rules::Message;
use crate::session::connection::ConnectionKey;
use crate::session::pending_packets::Inbound;
use crate::shard::packets::RefusedTurn;
use std::time::Duration;

/// The error code that clients see.
const CODE: &str = "rate_limited";
const MESSAGE: &str = "more messages than `limits.events_per_second` allows; try again after `retry_after_ms`";
const QUEUE_MESSAGE: &str = "too many requests wait for the backend; try again after `retry_after_ms`";

/// Counts a message that is no packet against the connection's rate; `false` when it gets no answer, because the connection is
/// over its rate or closing.
pub fn take_turn(local: &LocalNode, key: ConnectionKey) -> bool {
    let allowed = local.shard.take_turn(key);
    if allowed == Some(false) {
        refuse_unanswered(local, key, 0, MESSAGE);
    }
    allowed == Some(true)
}

/// Refuses a packet while `ahead` others wait for the rate. Its sender gets an error with when to retry; one that does not stop
/// is closed.
pub(super) fn refuse(local: &LocalNode, key: ConnectionKey, packet: &Inbound, ahead: usize) {
    refuse_with(local, key, packet, ahead, MESSAGE);
}

/// The same for a packet that finds no place in the backend's queue.
pub(super) fn refuse_queued(local: &LocalNode, key: ConnectionKey, packet: &Inbound) {
    refuse_with(local, key, packet, 0, QUEUE_MESSAGE);
}

fn refuse_with(local: &LocalNode, key: ConnectionKey, packet: &Inbound, ahead: usize, message: &str) {
    if !packet.wants_answer() {
        return refuse_unanswered(local, key, ahead, message);
    }
    let Some(refused) = note(local, key, ahead, message) else { return };
    let Some(retry) = refused.retry else { return close(local, key) };
    match packet {
        Inbound::SocketIo(Packet::Event { namespace, ack: Some(ack), .. }) => {
            if let Ok(packet) = socketio_encode::ack(namespace, ack, &answer(retry, message)) {
                local.shard.push_packet(key, packet);
            }
        }
        Inbound::PlainWs(ClientMessage::Event { id: Some(id), .. }) => {
            local.shard.push_json(key, &plain_ws::ack(id, &answer(retry, message)));
        }
        Inbound::PlainWs(ClientMessage::Join { id, .. } | ClientMessage::Leave { id, .. }) => {
            local.shard.push_json(key, &plain_ws::retry_error(CODE, message, whole_millis(retry), id.as_deref()));
        }
        _ => {}
    }
}

/// The same for a message whose sender waits for no answer: it gets one `error` a burst.
fn refuse_unanswered(local: &LocalNode, key: ConnectionKey, ahead: usize, message: &str) {
    match note(local, key, ahead, message) {
        Some(RefusedTurn { retry: Some(retry), is_first: true, .. }) => tell(local, key, retry, message),
        Some(RefusedTurn { retry: None, .. }) => close(local, key),
        _ => {}
    }
}

/// Counts a refusal.
fn note(local: &LocalNode, key: ConnectionKey, ahead: usize, why: &str) -> Option<RefusedTurn> {
    let refused = local.shard.refuse_turn(key, ahead)?;
    local.context.metrics.refused(Source::Client, CODE);
    let name = refused.session.and_then(|session| local.shard.with_session(session, |session| session.name()));
    let who = name.unwrap_or_default();
    refusals::note(&local.context.metrics, Refusal::Rate, format_args!("{who}"), format_args!("{why}"));
    Some(refused)
}

/// Closes a client that does not stop, and tells it why.
fn close(local: &LocalNode, key: ConnectionKey) {
    let retry = CloseReason::RateLimit.retry().unwrap_or_default();
    tell(local, key, retry, MESSAGE);
    local.shard.close(key, CloseReason::RateLimit);
}

/// An `error` that belongs to no message of the client: an event of each Socket.IO session, or a message on `/ws`.
fn tell(local: &LocalNode, key: ConnectionKey, retry: Duration, message: &str) {
    if local.shard.protocol(key) == Some(Protocol::PlainWs) {
        return local.shard.push_json(key, &plain_ws::retry_error(CODE, message, whole_millis(retry), None));
    }
    let message = Message { event: "error".into(), args: answer(retry, message) };
    for session in local.shard.sessions_of(key) {
        send_to_session(local, session, &message);
    }
}

/// `[{"error":{"code","message","retry_after_ms"}}]`.
fn answer(retry: Duration, message: &str) -> Args {
    let error =
        serde_json::json!([{ "error": { "code": CODE, "message": message, "retry_after_ms": whole_millis(retry) } }]);
    Args::list(&error.to_string()).unwrap_or_else(|_| Args::none())
}
