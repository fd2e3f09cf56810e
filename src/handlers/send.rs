//! An event to one session alone, whatever it speaks.

use crate::model::draft::{Draft, Source};
use crate::model::event::Event;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::protocol::{plain_ws, socketio_encode, sse};
use crate::rules::Message;
use crate::session::connection::SessionKey;
use crate::session::outbox::Frame;

/// Writes an event to one session. It carries the current offset, so that a string as its last argument cannot poison
/// the client's resume point (wire sheet C2). On `/ws` its room is the session's own id.
pub fn say(local: &LocalNode, session: SessionKey, message: &Message) {
    let mut hub = local.shard.hub.borrow_mut();
    let Some((key, id, namespace)) = hub.sessions.get(session).map(|s| (s.connection, s.id.to_string(), s.namespace))
    else {
        return;
    };
    let Some(protocol) = hub.connections.get(key).map(|connection| connection.protocol) else { return };
    if protocol == Protocol::SocketIo {
        let offset = local.context.recovery_on().then(|| hub.position.to_string());
        let namespace = local.context.namespaces.name(namespace);
        match socketio_encode::event(namespace, &message.event, &message.args, offset.as_deref(), None) {
            Ok(packet) => hub.push_packet(key, packet),
            Err(error) => tracing::warn!(%error, event = %message.event, "a reply cannot be written"),
        }
        return;
    }
    let draft = Draft::new(&id, &message.event, message.args.clone(), Source::Client);
    let event = Event { offset: hub.position, draft, accepted_us: 0 };
    match protocol {
        Protocol::PlainWs => hub.push_json(key, &plain_ws::event(&event, &id)),
        _ => hub.push(key, Frame::Raw(sse::event_block(&event))),
    }
}
