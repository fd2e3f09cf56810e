//! Clients over `limits.events_per_second`: how a packet is refused, and which client is closed.

use crate::handlers::send::send_to_session;
use crate::model::args::Args;
use crate::model::close::CloseReason;
use crate::model::draft::Source;
use crate::model::millis::whole_millis;
use crate::model::refusal::Refusal;
use crate::model::session_note::SessionNote;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::protocol::plain_ws::ClientMessage;
use crate::protocol::socketio::Packet;
use crate::protocol::{plain_ws, socketio_encode};
use crate::rules::Message;
use crate::session::connection::ConnectionKey;
use crate::session::pending_packets::Inbound;
use crate::shard::packets::{RateLimit, RefusedTurn};
use std::time::Duration;

/// The error code that clients see.
const CODE: &str = "rate_limited";

fn message(limit: RateLimit) -> &'static str {
    match limit {
        RateLimit::Events => "more messages than `limits.events_per_second` allows; try again after `retry_after_ms`",
        RateLimit::Bytes => "more bytes than `limits.bytes_per_second` allows; try again after `retry_after_ms`",
        RateLimit::Backend => "too many requests wait for the backend; try again after `retry_after_ms`",
        RateLimit::User => {
            "the user's connections send more than `limits.user_events_per_second` or `limits.user_bytes_per_second` allows; try again after `retry_after_ms`"
        }
        RateLimit::Tenant => {
            "the tenant's connections send more than `limits.tenant_events_per_second` or `limits.tenant_bytes_per_second` allows; try again after `retry_after_ms`"
        }
    }
}

/// Counts a message that is no packet against the connection's rate; `false` when it gets no answer, because the connection is
/// over its rate or closing.
pub fn take_turn(local: &LocalNode, key: ConnectionKey) -> bool {
    let allowed = local.shard.take_turn(key);
    if allowed == Some(false) {
        tell_once(local, key, note(local, key, 0, None));
    }
    allowed == Some(true)
}

/// Refuses a packet while `ahead` others wait for the rate. Its sender gets an error with when to retry; one that does not stop
/// is closed.
pub(super) fn refuse(local: &LocalNode, key: ConnectionKey, packet: &Inbound, ahead: usize) {
    answer_refusal(local, key, packet, note(local, key, ahead, None));
}

/// The same for a packet that finds no place in the backend's queue.
pub(super) fn refuse_queued(local: &LocalNode, key: ConnectionKey, packet: &Inbound) {
    answer_refusal(local, key, packet, note(local, key, 0, Some(RateLimit::Backend)));
}

fn answer_refusal(local: &LocalNode, key: ConnectionKey, packet: &Inbound, refused: Option<RefusedTurn>) {
    if !packet.wants_answer() {
        return tell_once(local, key, refused);
    }
    let Some(refused) = refused else { return };
    let limit = refused.limit;
    let Some(retry) = refused.retry else { return close(local, key, limit) };
    match packet {
        Inbound::SocketIo(Packet::Event { namespace, ack: Some(ack), .. }) => {
            if let Ok(packet) = socketio_encode::ack(namespace, ack, &answer(limit, retry)) {
                local.shard.push_packet(key, packet);
            }
        }
        Inbound::PlainWs(ClientMessage::Event { id: Some(id), .. }) => {
            local.shard.push_json(key, &plain_ws::ack(id, &answer(limit, retry)));
        }
        Inbound::PlainWs(ClientMessage::Join { id, .. } | ClientMessage::Leave { id, .. }) => {
            local
                .shard
                .push_json(key, &plain_ws::retry_error(CODE, message(limit), whole_millis(retry), id.as_deref()));
        }
        _ => {}
    }
}

/// The same for a message whose sender waits for no answer: it gets one `error` a burst.
fn tell_once(local: &LocalNode, key: ConnectionKey, refused: Option<RefusedTurn>) {
    match refused {
        Some(RefusedTurn { retry: Some(retry), is_first: true, limit, .. }) => tell(local, key, limit, retry),
        Some(RefusedTurn { retry: None, limit, .. }) => close(local, key, limit),
        _ => {}
    }
}

/// Counts a refusal, by a limit of the rate unless another one is given.
fn note(local: &LocalNode, key: ConnectionKey, ahead: usize, limit: Option<RateLimit>) -> Option<RefusedTurn> {
    let refused = local.shard.refuse_turn(key, ahead)?;
    let refused = RefusedTurn { limit: limit.unwrap_or(refused.limit), ..refused };
    local.context.metrics.events.refused(Source::Client, CODE);
    if let Some(session) = refused.session {
        local.shard.note(session, SessionNote::Refused { code: CODE, room: None });
    }
    let why = match refused.limit {
        RateLimit::Events => "more messages than limits.events_per_second allows, or more than may wait",
        RateLimit::Bytes => "more bytes than limits.bytes_per_second allows",
        RateLimit::User => "more than limits.user_events_per_second or limits.user_bytes_per_second allows",
        RateLimit::Tenant => "more than limits.tenant_events_per_second or limits.tenant_bytes_per_second allows",
        RateLimit::Backend => "more than backend.queue_per_user or backend.queue allows waits for the backend",
    };
    local.context.refusals.note(Refusal::Rate, &local.shard.who(key), format_args!("{why}"));
    Some(refused)
}

/// Closes a client that does not stop, and tells it why.
fn close(local: &LocalNode, key: ConnectionKey, limit: RateLimit) {
    let retry = CloseReason::RateLimit.retry().unwrap_or_default();
    tell(local, key, limit, retry);
    local.shard.close(key, CloseReason::RateLimit);
}

/// An `error` that belongs to no message of the client: an event of each Socket.IO session, or a message on `/ws`.
fn tell(local: &LocalNode, key: ConnectionKey, limit: RateLimit, retry: Duration) {
    if local.shard.protocol(key) == Some(Protocol::PlainWs) {
        return local.shard.push_json(key, &plain_ws::retry_error(CODE, message(limit), whole_millis(retry), None));
    }
    let message = Message { event: "error".into(), args: answer(limit, retry) };
    for session in local.shard.sessions_of(key) {
        send_to_session(local, session, &message);
    }
}

/// `[{"error":{"code","message","retry_after_ms"}}]`.
fn answer(limit: RateLimit, retry: Duration) -> Args {
    let error = serde_json::json!([{ "error": { "code": CODE, "message": message(limit), "retry_after_ms": whole_millis(retry) } }]);
    Args::list(&error.to_string()).unwrap_or_else(|_| Args::none())
}
