//! From a batch of events to the outboxes, and from the outboxes to the sockets.

use crate::model::clock::unix_ms;
use crate::model::close::{CloseReason, DropReason};
use crate::model::event::{Delivery, Event, Format};
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::model::names::{EVERYBODY, Room};
use crate::model::namespaces::NamespaceIndex;
use crate::model::place::{LineSet, Place};
use crate::model::transport::Protocol;
use crate::protocol::{plain_ws, websocket};
use crate::session::connection::{Connection, ConnectionKey, Link, SessionKey};
use crate::session::frame::{Frame, LocalDelivery, encode};
use crate::shard::hub::Hub;
use crate::tls::Socket;
use bytes::Bytes;
use std::io::ErrorKind;
use std::sync::Arc;

/// Bytes of frames that are joined for one write.
pub(super) const GATHER_BYTES: usize = 64 << 10;
/// Bytes written to one connection before the next connection is flushed, so that a long replay does not hold up others.
const BYTES_PER_TURN: usize = 1 << 20;
/// Receivers of one event for which a vector is kept.
const MAX_GATHERED: usize = 1 << 10;
/// Slices of replays queued before others get their turn.
const SLICES_PER_TURN: usize = 4;
/// Slices of a replay in one polling answer, within [`MAX_POLL_ANSWER`].
const SLICES_PER_POLL: usize = 4;
/// Bytes of packets in one polling answer; the rest waits for the next GET.
const MAX_POLL_ANSWER: usize = 1 << 20;

/// The result of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    /// The outbox is empty.
    All,
    /// The socket takes more, but other connections are flushed first.
    Some,
    /// The socket is full.
    Blocked,
    /// The socket is broken.
    Broken,
}

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

    /// Flushes up to `max` listed connections, fewer where they replay. Answers whether more are listed.
    pub(super) fn flush_some(&mut self, max: usize, now: Millis) -> bool {
        let mut slices = 0;
        for _ in 0..max {
            slices += self.flusher.take_slices();
            if slices >= SLICES_PER_TURN {
                break;
            }
            let Some(key) = self.flusher.next() else { return false };
            if let Some(connection) = self.connections.get_mut(key) {
                connection.dirty = false;
            }
            self.flush(key, now);
        }
        !self.flusher.is_empty()
    }

    /// Writes what waits on a connection, as far as its transport takes it now. If more than the limit still waits then, the
    /// connection is closed as a slow consumer.
    pub(super) fn flush(&mut self, key: ConnectionKey, now: Millis) {
        self.write(key, now);
        let max = self.context.live.outbox_bytes();
        if self.connections.get(key).is_some_and(|connection| is_over(connection, max)) {
            self.close(key, CloseReason::SlowConsumer, now);
        }
    }

    fn write(&mut self, key: ConnectionKey, now: Millis) {
        let with_offset = self.context.recovery_on();
        let Some(connection) = self.connections.get_mut(key) else { return };
        match &connection.link {
            Link::Sse(_) => connection.wake(),
            Link::Polling(polling) if polling.waiting.is_none() => {}
            Link::Polling(_) if connection.outbox.is_empty() && !connection.has_replays() => {}
            Link::Polling(_) => self.answer_poll(key, with_offset, now),
            Link::WebSocket(stream) => {
                let stream = stream.clone();
                let is_behind = connection.has_replays() && self.top_up(key, now);
                self.write_socket(key, &stream, is_behind, now);
            }
        }
    }

    fn write_socket(&mut self, key: ConnectionKey, stream: &Socket, is_behind: bool, now: Millis) {
        let with_offset = self.context.recovery_on();
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (flushed, bytes) = write_out(connection, stream, with_offset, &mut self.scratch);
        connection.blocked = flushed == Flushed::Blocked;
        let is_read_again = connection.wrote(bytes);
        if flushed == Flushed::All {
            connection.drained();
        }
        if flushed == Flushed::Some || flushed == Flushed::All && is_behind {
            self.flusher.list(key, connection);
        }
        if connection.blocked || connection.timers.write_by.is_some() {
            self.note_write(key, bytes > 0, now);
        }
        if flushed == Flushed::Broken {
            self.close(key, CloseReason::TransportClose, now);
            self.note_lost(key, 0);
            if let Some(connection) = self.connections.get_mut(key) {
                connection.outbox.clear();
            }
        }
        if let Some(connection) = self.connections.get_mut(key)
            && (connection.blocked || is_read_again || connection.closing.is_some())
        {
            // The task waits until the socket has room, reads on, or ends.
            connection.wake();
        }
    }

    /// Answers the waiting GET with as many packets as fit.
    fn answer_poll(&mut self, key: ConnectionKey, with_offset: bool, now: Millis) {
        let (mut payload, mut is_behind) = (Vec::new(), true);
        for _ in 0..SLICES_PER_POLL {
            is_behind = is_behind && self.top_up(key, now);
            let Some(connection) = self.connections.get_mut(key) else { return };
            if !take_payload(connection, with_offset, &mut payload) || !is_behind {
                break;
            }
        }
        if payload.is_empty() {
            // Nothing so far of what it missed is for it.
            return if is_behind {
                self.mark_dirty(key)
            };
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.timers.write_by = None;
        if connection.outbox.is_empty() {
            connection.drained();
        }
        let ended = connection.closing.is_some() && connection.outbox.is_empty();
        let Link::Polling(polling) = &mut connection.link else { return };
        if !polling.answer(payload.into()) || ended {
            self.remove(key, now);
        }
    }

    /// Takes what waits for an SSE response; empty if nothing waits yet, and whether to ask again.
    pub(super) fn take_sse(&mut self, key: ConnectionKey, now: Millis) -> (Bytes, bool) {
        let is_behind = self.top_up(key, now);
        let Some(connection) = self.connections.get_mut(key) else { return (Bytes::new(), false) };
        let mut out = Vec::new();
        while out.len() < GATHER_BYTES
            && let Some(frame) = connection.outbox.pop()
        {
            out.extend_from_slice(&encode(&frame, Format::Sse, true));
        }
        connection.timers.write_by = None;
        if connection.outbox.is_empty() {
            connection.drained();
        }
        (out.into(), is_behind)
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

/// Whether more waits than the limit allows. One frame may be larger than the limit: only what waits behind it counts.
fn is_over(connection: &Connection, max: usize) -> bool {
    connection.closing.is_none()
        && connection.outbox.len() > 1
        && connection.outbox.bytes() > max + connection.allowed()
}

/// Adds the waiting packets to a polling payload, joined by the record separator (docs/protocol/socketio.md section 2.6).
/// Answers whether these were all.
fn take_payload(connection: &mut Connection, with_offset: bool, payload: &mut Vec<u8>) -> bool {
    while payload.len() < MAX_POLL_ANSWER
        && let Some(frame) = connection.outbox.front()
    {
        if !payload.is_empty() {
            if matches!(frame, Frame::Engine(close) if close == "1") {
                // In one payload with `41` the stock client would see the close first, and reconnect
                // (docs/protocol/socketio.md section 2.6).
                break;
            }
            payload.push(b'\x1e');
        }
        let Some(frame) = connection.outbox.pop() else { break };
        payload.extend_from_slice(&encode(&frame, Format::SocketIoPayload, with_offset));
    }
    connection.outbox.is_empty()
}

/// Everything that waits as one polling payload, whatever its length.
pub(super) fn take_all(connection: &mut Connection, with_offset: bool) -> String {
    let mut all = Vec::new();
    while !connection.outbox.is_empty() {
        let mut payload = Vec::new();
        take_payload(connection, with_offset, &mut payload);
        if !all.is_empty() {
            all.push(b'\x1e');
        }
        all.append(&mut payload);
    }
    // Packets are text; attachments are written in base64.
    String::from_utf8(all).unwrap_or_default()
}

/// Writes the outbox until it is empty or the socket is full. A single frame is written as it is, several are joined.
/// Answers the number of bytes, too.
fn write_out(
    connection: &mut Connection,
    stream: &Socket,
    with_offset: bool,
    scratch: &mut Vec<u8>,
) -> (Flushed, usize) {
    let format = connection.format();
    let mut sum = 0;
    match stream.try_flush() {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => return (Flushed::Blocked, 0),
        Err(_) => return (Flushed::Broken, 0),
    }
    while !connection.outbox.is_empty() {
        if sum >= BYTES_PER_TURN {
            return (Flushed::Some, sum);
        }
        let wrote = if connection.outbox.len() == 1 {
            let (mut frames, written) = connection.outbox.waiting();
            let Some(frame) = frames.next() else { break };
            stream.try_write(&encode(frame, format, with_offset)[written..])
        } else {
            gather(connection, format, with_offset, scratch);
            stream.try_write(scratch)
        };
        match wrote {
            Ok(0) => return (Flushed::Broken, sum),
            Ok(bytes) => {
                sum += bytes;
                connection.outbox.wrote(bytes, |frame| frame_len(frame, format, with_offset));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (Flushed::Blocked, sum),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return (Flushed::Broken, sum),
        }
    }
    // With TLS, the end of the last write may wait.
    (if stream.has_unsent() { Flushed::Blocked } else { Flushed::All }, sum)
}

fn gather(connection: &Connection, format: Format, with_offset: bool, scratch: &mut Vec<u8>) {
    scratch.clear();
    let (frames, mut skip) = connection.outbox.waiting();
    for frame in frames {
        let bytes = encode(frame, format, with_offset);
        scratch.extend_from_slice(&bytes[skip..bytes.len().min(skip + GATHER_BYTES)]);
        if bytes.len() > skip + GATHER_BYTES || scratch.len() >= GATHER_BYTES {
            return;
        }
        skip = 0;
    }
}

fn frame_len(frame: &Frame, format: Format, with_offset: bool) -> usize {
    encode(frame, format, with_offset).len()
}
