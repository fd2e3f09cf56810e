//! From an event to the outboxes of its receivers.

use crate::model::clock::unix_ms;
use crate::model::close::DropReason;
use crate::model::event::{Delivery, Event};
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::model::names::{EVERYBODY, Room};
use crate::model::namespaces::NamespaceIndex;
use crate::model::place::{LineSet, Place};
use crate::model::transport::Protocol;
use crate::protocol::{plain_ws, websocket};
use crate::session::connection::SessionKey;
use crate::session::frame::{Frame, LocalDelivery};
use crate::shard::flush::{GATHER_BYTES, is_over};
use crate::shard::hub::Hub;
use bytes::Bytes;
use std::sync::Arc;

/// Receivers of one event for which a vector is kept.
const MAX_GATHERED: usize = 1 << 10;

impl Hub {
    /// Puts one event into the outboxes of its receivers, each once, and moves the shard's position. Answers how many these are.
    pub(super) fn deliver(&mut self, delivery: &Arc<Delivery>, now: Millis) -> u64 {
        let event = &delivery.event;
        // The offset of a volatile event is that of the entry before it, which may be a probe. No client may be ahead of its
        // shard.
        self.position.set(event.offset);
        let Some(namespace) = self.context.namespaces.find(&event.draft.namespace) else { return 0 };
        self.mark += 1;
        let before = self.flusher.pushed();
        let mut receivers = std::mem::take(&mut self.gathered);
        let mut shared = None;
        let mut placed = Placed::default();
        let followed = if self.context.feed.is_open() { Some(self.follow(namespace, event)) } else { None };
        for room in &event.draft.except {
            self.gather(namespace, room, &mut receivers);
            for session in receivers.drain(..) {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.mark = self.mark;
                }
            }
        }
        for (index, room) in event.draft.rooms.iter().enumerate() {
            self.gather(namespace, room, &mut receivers);
            if receivers.is_empty() {
                continue;
            }
            let shared = shared.get_or_insert_with(|| LocalDelivery::new(delivery.clone()));
            // The shared `/ws` frame names the first room; members of a later one get its own.
            let mut json = None;
            for session in receivers.drain(..) {
                self.deliver_to(session, shared, (index > 0).then_some((room, &mut json)), &mut placed, now);
            }
        }
        self.keep_gathered(receivers);
        let sessions = self.flusher.pushed() - before;
        if let Some(followed) = followed {
            self.report_delivered(event, &followed, sessions);
        }
        tracing::debug!(event = &*event.draft.event, rooms = ?event.draft.rooms, sessions, "event out");
        sessions as u64
    }

    /// The members of a room. As in Socket.IO, a session's own id is a room with that one member. [`EVERYBODY`] is the room
    /// of all sessions of the namespace.
    pub(super) fn receivers(&self, namespace: NamespaceIndex, room: &str) -> Vec<SessionKey> {
        let mut receivers = Vec::new();
        self.gather(namespace, room, &mut receivers);
        receivers
    }

    fn gather(&self, namespace: NamespaceIndex, room: &str, receivers: &mut Vec<SessionKey>) {
        if room == EVERYBODY {
            return receivers.extend(self.sessions.in_namespace(namespace));
        }
        match self.rooms.find(namespace, room) {
            Some(room) => receivers.extend(self.rooms.members(room)),
            None => {
                let own = Id::parse(room).and_then(|id| self.sessions.by_id(id));
                let fits = |key: &SessionKey| self.sessions.get(*key).is_some_and(|s| s.namespace == namespace);
                receivers.extend(own.filter(fits));
            }
        }
    }

    /// Keeps the vector for the next event, unless this one had very many receivers.
    fn keep_gathered(&mut self, mut receivers: Vec<SessionKey>) {
        receivers.shrink_to(MAX_GATHERED);
        self.gathered = receivers;
    }

    fn deliver_to(
        &mut self,
        session_key: SessionKey,
        shared: &Arc<LocalDelivery>,
        later: Option<(&Room, &mut Option<Bytes>)>,
        placed: &mut Placed,
        now: Millis,
    ) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if std::mem::replace(&mut session.mark, self.mark) == self.mark {
            return;
        }
        let key = session.connection;
        if !shared.event.draft.volatile {
            session.note_last(shared.event.offset);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_replaying(session_key) {
            // Its cursor comes to this one. A volatile event is for those who can take it now.
            if shared.event.draft.volatile {
                self.skip_volatile(session_key);
            }
            return;
        }
        if shared.event.draft.volatile && (connection.blocked || connection.outbox.bytes() > GATHER_BYTES) {
            return self.skip_volatile(session_key);
        }
        let lines = session.lines.as_ref().map(|lines| lines.set);
        connection.outbox.push(match (connection.protocol, later, lines) {
            (Protocol::PlainWs, Some((room, json)), None) => {
                let encode = || websocket::text_frame(&plain_ws::event(&shared.event, room));
                Frame::Raw(json.get_or_insert_with(encode).clone())
            }
            (Protocol::PlainWs, Some((room, _)), Some(lines)) => {
                placed.frame_in(room, &shared.event, lines, &self.position)
            }
            (_, _, None) => Frame::Event(shared.clone()),
            (_, _, Some(lines)) => placed.frame(&shared.event, lines, &self.position),
        });
        self.flusher.note_delivery(connection.protocol);
        self.flusher.list(key, connection);
        if is_over(connection, self.context.live.outbox_bytes()) {
            // What the socket takes at once does not count.
            self.flush(key, now);
        }
    }

    fn skip_volatile(&mut self, session: SessionKey) {
        self.context.metrics.events.dropped(DropReason::VolatileNotWritable, 1);
        self.history.skipped(session, unix_ms);
    }
}

/// The frames of an event from a log with partitions: one for each set of lines that its receivers have. Few sets occur in a
/// room.
#[derive(Default)]
struct Placed {
    shared: Vec<(LineSet, Frame)>,
    /// Those of `/ws` clients that get it for another room than the first.
    in_rooms: Vec<(LineSet, Room, Frame)>,
}

impl Placed {
    /// For clients that are `here` once they have it.
    fn frame(&mut self, event: &Arc<Event>, lines: LineSet, here: &Place) -> Frame {
        if let Some((_, frame)) = self.shared.iter().find(|(known, _)| *known == lines) {
            return frame.clone();
        }
        let frame = Frame::placed(event.clone(), &here.only(lines));
        self.shared.push((lines, frame.clone()));
        frame
    }

    /// The same for `/ws` clients that get it for this room.
    fn frame_in(&mut self, room: &Room, event: &Event, lines: LineSet, here: &Place) -> Frame {
        let is_known = |(set, of, _): &&(LineSet, Room, Frame)| *set == lines && of == room;
        if let Some((.., frame)) = self.in_rooms.iter().find(is_known) {
            return frame.clone();
        }
        let offset = here.only(lines).at(event.offset).to_string();
        let frame = Frame::Raw(websocket::text_frame(&plain_ws::event_at(event, room, &offset)));
        self.in_rooms.push((lines, room.clone(), frame.clone()));
        frame
    }
}
