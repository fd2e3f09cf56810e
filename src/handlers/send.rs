//! An event to one session alone, whatever it speaks.

use crate::model::draft::{Draft, Source};
use crate::model::event::Event;
use crate::model::happening::Kind;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::protocol::{plain_ws, socketio_encode, sse};
use crate::rules::Message;
use crate::session::connection::SessionKey;
use crate::session::frame::Frame;

/// Writes an event to one session. It carries the offset at which the session stands, so that a string as its last argument cannot poison
/// the client's resume point (docs/protocol/socketio.md section 4.2). On `/ws` its room is the session's own id.
pub fn send_to_session(local: &LocalNode, session: SessionKey, message: &Message) {
    let found = local.shard.with_session(session, |s| (s.connection, s.id.to_string(), s.namespace));
    let Some((key, id, namespace)) = found else { return };
    let Some(protocol) = local.shard.protocol(key) else { return };
    local.shard.report(Kind::EventOut, session, |happening| {
        happening.event = Some(message.event.to_string());
        happening.bytes = Some(message.args.len() as u64);
        happening.outcome = Some("reply".to_owned());
    });
    let here = local.shard.resume_point(session);
    if protocol == Protocol::SocketIo {
        let offset = local.context.recovery_on().then(|| here.to_string());
        let namespace = local.context.namespaces.name(namespace);
        match socketio_encode::event(namespace, &message.event, &message.args, offset.as_deref(), None) {
            Ok(packet) => local.shard.push_packet(key, packet),
            Err(error) => tracing::warn!(%error, event = %message.event, "a reply cannot be written"),
        }
        return;
    }
    let draft = Draft::new(&id, &message.event, message.args.clone(), Source::Client);
    let event = Event { offset: here.control(), draft, accepted_us: 0, after: None };
    let here = here.to_string();
    match protocol {
        Protocol::PlainWs => local.shard.push_json(key, &plain_ws::event_at(&event, &id, &here)),
        _ => local.shard.push(key, Frame::Raw(sse::event_block_at(&event, &here))),
    }
}
