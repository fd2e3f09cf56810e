//! Socket.IO packets of a client: which handler a packet goes to, and its events (docs/protocol/socketio.md section 3).

use crate::backend::request::RequestKind;
use crate::handlers::action_error::{ActionError, Failure};
use crate::handlers::backend_calls::Ask;
use crate::handlers::backend_lane::{Deferred, Need};
use crate::handlers::connect::connect;
use crate::handlers::rule_runner;
use crate::handlers::rule_runner::Ran;
use crate::handlers::{admin_ui, fail};
use crate::model::args::Args;
use crate::model::close::{CloseReason, DropReason};
use crate::model::millis::whole_millis;
use crate::node::context::LocalNode;
use crate::protocol::socketio::Packet;
use crate::protocol::socketio_encode as encode;
use crate::session::connection::{ConnectionKey, SessionKey};
use crate::session::pending_packets::Inbound;
use std::rc::Rc;

/// Works on one packet, or gives it back because it has to wait for the backend.
pub async fn handle(local: &Rc<LocalNode>, key: ConnectionKey, packet: Packet) -> Option<Deferred> {
    let defer = |packet, session, need| Some(Deferred { packet: Inbound::SocketIo(packet), session, need });
    let behind = || Need { kind: RequestKind::Event, rooms: Vec::new() };
    match packet {
        Packet::Connect { namespace, auth } => {
            // The client may come back to a namespace while its leave waits.
            if let Some(session) = session_in(local, key, &namespace)
                && local.backend_lanes.is_leaving(key, session)
            {
                return defer(Packet::Connect { namespace, auth }, session, behind());
            }
            connect(local, key, namespace, auth).await;
        }
        Packet::Disconnect { namespace } if admin_ui::is_ours(local, &namespace) => admin_ui::leave(local, key),
        Packet::Event { namespace, ack, event, args } if admin_ui::is_ours(local, &namespace) => {
            admin_ui::event(local, key, ack.as_deref(), &event, &args).await;
        }
        Packet::Disconnect { namespace } => {
            let session = session_in(local, key, &namespace)?;
            // What the client sent before must not be lost.
            if local.backend_lanes.is_busy(key) {
                return defer(Packet::Disconnect { namespace }, session, behind());
            }
            leave_namespace(local, session);
        }
        Packet::Event { namespace, ack, event, args } => {
            let Some(session) = session_in(local, key, &namespace) else {
                // An event for a namespace that was not joined (docs/protocol/socketio.md section 3.3).
                fail(local, key, CloseReason::ParseError);
                return None;
            };
            let need = on_event(local, key, session, &namespace, ack.as_deref(), &event, &args, None).await?;
            return defer(Packet::Event { namespace, ack, event, args }, session, need);
        }
        // We never ask for an acknowledgement, and the reference ignores unknown ones (docs/protocol/socketio.md
        // section 3.3).
        Packet::Ack { .. } => {}
    }
    None
}

/// Works on a packet of a session whose turn with the backend has come.
pub async fn handle_asking(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    session: SessionKey,
    packet: Packet,
    ask: Option<&Ask>,
) {
    match packet {
        Packet::Connect { namespace, auth } => connect(local, key, namespace, auth).await,
        Packet::Disconnect { .. } => leave_namespace(local, session),
        Packet::Event { namespace, ack, event, args } => {
            on_event(local, key, session, &namespace, ack.as_deref(), &event, &args, ask).await;
        }
        Packet::Ack { .. } => {}
    }
}

fn session_in(local: &LocalNode, key: ConnectionKey, namespace: &str) -> Option<SessionKey> {
    local.context.namespaces.find(namespace).and_then(|index| local.shard.session_in(key, index))
}

/// The client leaves a namespace; the connection stays (docs/protocol/socketio.md section 3.3).
fn leave_namespace(local: &LocalNode, session: SessionKey) {
    if let Some(connection) = local.shard.connection_of(session) {
        local.shard.note_left(connection);
    }
    local.shard.dismiss(session, CloseReason::ClientClose);
}

/// Carries out the rule and answers, or says what the event has to wait for.
#[expect(clippy::too_many_arguments, reason = "the fields of an EVENT packet")]
async fn on_event(
    local: &Rc<LocalNode>,
    key: ConnectionKey,
    session: SessionKey,
    namespace: &str,
    ack: Option<&str>,
    event: &str,
    args: &Args,
    ask: Option<&Ask>,
) -> Option<Need> {
    let result = match local.context.settings().rules.on(namespace, event) {
        Some(rule) => rule_runner::run(local, session, rule, event, args, ask).await,
        None => Err(unruled(local, session, event)),
    };
    if let Ok(Ran::Deferred(need)) = result {
        return Some(need);
    }
    let ack = ack?;
    let args = match result {
        Ok(ran) => ran.ack().unwrap_or_else(Args::none),
        Err(failure) => failure.ack.unwrap_or_else(|| default_ack(&failure.error)),
    };
    let packet = encode::ack(namespace, ack, &args).or_else(|problem| {
        // What an `ack_error` makes of the arguments, say: the client waits for an answer all the same.
        tracing::warn!(error = %problem, %event, "an acknowledgement cannot be written; the client gets the error instead");
        encode::ack(namespace, ack, &default_ack(&ActionError::Unwritable(problem)))
    });
    match packet {
        Ok(packet) => local.shard.push_packet(key, packet),
        Err(error) => tracing::warn!(%error, %event, "an acknowledgement cannot be written"),
    }
    None
}

/// An event without a rule: refused and counted.
pub fn unruled(local: &LocalNode, session: SessionKey, event: &str) -> Failure {
    local.context.metrics.events.dropped(DropReason::NoRule, 1);
    let shown: String = event.chars().take(64).collect();
    let error = ActionError::NoRule(shown);
    rule_runner::note_refusal(local, session, event, &error);
    Failure { error, ack: None }
}

/// `[{"error":{"code","message"}}]`: what an acknowledgement says where no rule says it.
pub fn default_ack(error: &ActionError) -> Args {
    let mut json = serde_json::json!([{ "error": { "code": error.code(), "message": error.to_string() } }]);
    if let Some(retry) = error.retry() {
        json[0]["error"]["retry_after_ms"] = whole_millis(retry).into();
    }
    Args::list(&json.to_string()).unwrap_or_else(|_| Args::none())
}
