//! What a shard owns, and how its parts change together. `connections`, `sessions`, `rooms`, `flusher` and the persister
//! each keep their own invariants; here are the steps that touch several of them.

use crate::explain::history::History;
use crate::model::clock::unix_ms;
use crate::model::close::{CloseReason, DropReason};
use crate::model::happening::Kind;
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::Offset;
use crate::model::partition::Line;
use crate::model::place::{LineSet, Place};
use crate::model::session_note::SessionNote;
use crate::model::transport::Protocol;
use crate::presence::local::Reservation;
use crate::presence::{LeaveReason, Ticket};
use crate::protocol::socketio::max_attached;
use crate::protocol::socketio_encode::Encoded;
use crate::protocol::{plain_ws, sse, websocket};
use crate::session::Session;
use crate::session::connection::{Connection, ConnectionKey, Link, SessionKey};
use crate::session::frame::Frame;
use crate::session::outbox::Totals;
use crate::session::parked::Parked;
use crate::session::parked_sessions::ParkedSessions;
use crate::shard::connections::Connections;
use crate::shard::context::ShardContext;
use crate::shard::ended::{Ended, EndedQueue};
use crate::shard::flusher::{Flusher, Unwritten};
use crate::shard::last_refusals::LastRefusals;
use crate::shard::rooms::Rooms;
use crate::shard::session_persister::SessionPersister;
use crate::shard::sessions::Sessions;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Notify;

/// An answer is large from this part of `limits.outbox_bytes` on.
const LARGE_ANSWER: usize = 4;
/// Its sender is not read further from this part of it on.
const HELD_ANSWERS: usize = 2;

/// Everything one shard owns.
pub(super) struct Hub {
    /// The shard's number.
    pub(super) index: u8,
    pub(super) context: Arc<ShardContext>,
    pub(super) connections: Connections,
    pub(super) sessions: Sessions,
    pub(super) rooms: Rooms<SessionKey>,
    /// Sessions that may resume.
    pub(super) parked: ParkedSessions,
    /// What they hold as far as the node's memory budget knows.
    pub(super) parked_bytes: usize,
    /// The same of outboxes.
    pub(super) outbox_bytes: usize,
    /// What outboxes hold by deliveries of other threads; the sums of the shard's own thread are its own.
    pub(super) outbox_totals: Totals,
    /// Writes records of sessions, where there are other nodes that may need them.
    pub(super) persister: Option<SessionPersister>,
    pub(super) flusher: Flusher,
    /// Events in outboxes whose receivers are not all flushed yet.
    pub(super) unwritten: VecDeque<Unwritten>,
    pub(super) ended: EndedQueue,
    /// The last event of each line of the log that the shard has delivered.
    pub(super) position: Place,
    /// The newest change of presence on this shard.
    pub(super) noted: Ticket,
    /// The number of the delivery that is under way, so that a session gets an event to several of its rooms once.
    pub(super) mark: u64,
    /// What sessions were refused last, as far as that is remembered.
    pub(super) refused: LastRefusals,
    /// What happened to sessions, for `explain`.
    pub(super) history: History,
    /// Where the frames of one write are gathered.
    pub(super) scratch: Vec<u8>,
    /// Where the receivers of an event are gathered.
    pub(super) gathered: Vec<SessionKey>,
    /// Notified whenever the shard's position moves.
    pub(super) advanced: Arc<Notify>,
}

impl Hub {
    /// Empty. `wake` wakes the shard's loop for a flush or an earlier deadline.
    pub(super) fn new(index: u8, context: Arc<ShardContext>, wake: &Arc<Notify>, ended: EndedQueue) -> Self {
        let position = Place::unread(context.window.partitions());
        let history = History::new(&context.explain, context.shards, unix_ms());
        let records = context.cluster.is_some() && context.recovery_on();
        Self {
            index,
            rooms: Rooms::of_node(context.window.interest().clone()),
            persister: records.then(|| SessionPersister::new(context.recovery.window)),
            context,
            connections: Connections::new(wake.clone()),
            sessions: Sessions::default(),
            parked: ParkedSessions::default(),
            parked_bytes: 0,
            outbox_bytes: 0,
            outbox_totals: Totals::default(),
            flusher: Flusher::new(wake.clone()),
            unwritten: VecDeque::new(),
            ended,
            position,
            noted: Ticket::default(),
            mark: 0,
            refused: LastRefusals::default(),
            history,
            scratch: Vec::new(),
            gathered: Vec::new(),
            advanced: Arc::default(),
        }
    }

    /// Adds a connection. A polling one is found by its sid from then on.
    pub(super) fn open(&mut self, connection: Box<Connection>) -> ConnectionKey {
        self.context.metrics.connections.open(connection.link.transport(), connection.protocol).inc();
        self.connections.insert(connection)
    }

    /// A polling connection's WebSocket takes over.
    pub(super) fn upgrade(&mut self, key: ConnectionKey, link: Link) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        self.context.metrics.connections.open(connection.link.transport(), connection.protocol).dec();
        connection.link = link;
        self.context.metrics.connections.open(connection.link.transport(), connection.protocol).inc();
        if self.context.feed.is_open() {
            let sessions = connection.sessions.to_vec();
            sessions.into_iter().for_each(|session| self.report(Kind::Upgraded, session, &[], |_| {}));
        }
        self.mark_dirty(key);
    }

    /// The pids of all sessions, live and parked.
    pub(super) fn pids(&self) -> impl Iterator<Item = Id> {
        self.sessions.pids().chain(self.parked.pids())
    }

    /// Adds a session to its connection. Presence may have counted its user already, by what is `reserved`.
    pub(super) fn admit(&mut self, session: Box<Session>, reserved: &mut Reservation) -> SessionKey {
        let (pid, connection) = (session.pid, session.connection);
        self.note_user_came(&session, reserved);
        self.charge_auth(&session, true);
        let key = self.sessions.insert(session);
        if let Some(pid) = pid {
            self.note_record(pid);
        }
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.sessions.push(key);
            connection.permit.prove();
        }
        self.connections.change_timers(connection, |timers| timers.connect_by = None);
        key
    }

    /// The connection's session in a namespace.
    pub(super) fn session_in(&self, connection: ConnectionKey, namespace: NamespaceIndex) -> Option<SessionKey> {
        let sessions = &self.connections.get(connection)?.sessions;
        sessions.iter().copied().find(|key| self.sessions.get(*key).is_some_and(|s| s.namespace == namespace))
    }

    /// Ends one session. If the reason allows it, the session may resume within the window.
    pub(super) fn dismiss(&mut self, key: SessionKey, reason: CloseReason, now: Millis) {
        self.note(key, SessionNote::Closed { reason });
        self.remember_end(key, reason);
        let Some(session) = self.sessions.get(key) else { return };
        let namespace = self.context.namespaces.name(session.namespace);
        let settings = self.context.settings();
        let announce = settings.notify_disconnects || settings.rules.disconnect(namespace).is_some();
        let park = session.pid.filter(|_| recoverable(reason) && self.context.recovery_on());
        let form = park.map(|_| self.park_form(key, session));
        let rooms = if announce { self.rooms.of(key).cloned().collect() } else { Vec::new() };
        let Some(session) = self.take_session(key) else { return };
        tracing::debug!(session = %session.id, reason = reason.label(), "disconnected");
        let address = self.connections.get(session.connection).map(|connection| connection.permit.peer());
        if let (Some(pid), Some(form)) = (park, form) {
            self.park(pid, form, address, now);
        }
        if announce && !self.ended.push(Ended { session, rooms, reason, address }) {
            self.context.metrics.events.dropped(DropReason::Disconnect, 1);
        }
    }

    /// Keeps a session for a resume within the window. `address` is where its client was, if that is known.
    pub(super) fn park(&mut self, pid: Id, parked: Parked, address: Option<IpAddr>, now: Millis) {
        let recovery = &self.context.recovery;
        self.parked.park(pid, parked, address, now.after(recovery.window), recovery.window_bytes);
        self.note_parked();
    }

    /// Takes a session out of all tables.
    pub(super) fn take_session(&mut self, key: SessionKey) -> Option<Box<Session>> {
        let counted = self.rooms.counted(key).filter(|(_, is_counted)| *is_counted);
        let counted: Vec<Room> = counted.map(|(room, _)| room.clone()).collect();
        for room in &counted {
            self.note_gone(key, room, LeaveReason::Lost);
        }
        let session = self.sessions.remove(key)?;
        self.note_user_gone(&session);
        self.refused.forget(key);
        self.history.take_skipped(key);
        self.charge_auth(&session, false);
        if let Some(pid) = session.pid {
            self.note_record(pid);
        }
        if let Some(connection) = self.connections.get_mut(session.connection) {
            connection.sessions.remove(key);
            if let Some(backpressure) = &mut connection.backpressure {
                backpressure.end(key);
            }
        }
        self.rooms.forget(key);
        Some(session)
    }

    /// Queues a frame for one connection.
    pub(super) fn push(&mut self, key: ConnectionKey, frame: Frame) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.closing.is_some() {
            return;
        }
        let frame = match (frame, &connection.link) {
            // Encoded here once, rather than at each partial write.
            (Frame::Packet(packet), Link::WebSocket(_)) if connection.is_base64() => Frame::Raw(packet.text_frames()),
            (Frame::Packet(packet), Link::WebSocket(_)) => Frame::Raw(packet.frames()),
            (frame, _) => frame,
        };
        connection.outbox.push(frame);
        if connection.outbox.bytes() > self.context.live.outbox_bytes() + connection.allowed() {
            // The flush decides whether this is a slow consumer, also if the socket is full.
            connection.blocked = false;
        }
        self.mark_dirty(key);
    }

    /// Queues what waited for a client where its connection was before. The limit for unsent bytes held there.
    pub(super) fn push_waiting(&mut self, key: ConnectionKey, frames: impl Iterator<Item = Frame>) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.closing.is_none()) else {
            return;
        };
        let before = connection.outbox.bytes();
        frames.for_each(|frame| connection.outbox.push(frame));
        connection.allow(connection.outbox.bytes() - before);
        self.mark_dirty(key);
    }

    /// Queues a frame before all that waits, behind what is partly written.
    pub(super) fn push_ahead(&mut self, key: ConnectionKey, frame: Frame) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.closing.is_none() {
            connection.outbox.push_ahead(frame);
            self.mark_dirty(key);
        }
    }

    /// Queues a Socket.IO packet for one connection.
    pub(super) fn push_packet(&mut self, key: ConnectionKey, packet: Encoded) {
        self.push_answer(key, Frame::Packet(Arc::new(packet)));
    }

    /// Queues a `/ws` message for one connection.
    pub(super) fn push_json(&mut self, key: ConnectionKey, message: &str) {
        self.push_answer(key, Frame::Raw(websocket::text_frame(message)));
    }

    /// Queues what is most often an answer. It may be as large as the packet that it answers, which may be much larger than
    /// the limit for unsent bytes: such a one, with a reply beside the acknowledgement, is allowed on top. A client that sends
    /// faster than it takes its answers is not read further; those to what was read already are allowed, too.
    fn push_answer(&mut self, key: ConnectionKey, frame: Frame) {
        let max = self.context.live.outbox_bytes();
        if let Some(connection) = self.connections.get_mut(key) {
            let holds = connection.outbox.bytes() > max / HELD_ANSWERS && matches!(connection.link, Link::WebSocket(_));
            let size = frame.size();
            let fits = connection.allowed() + size <= 2 * max_attached(self.context.socketio.max_payload);
            if fits && (holds || size > max / LARGE_ANSWER) {
                connection.allow(size);
            }
            if holds {
                connection.hold_reading();
            }
        }
        self.push(key, frame);
    }

    /// The nearest deadline of any connection or parked session.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.connections.next_deadline().into_iter().chain(self.parked.next()).min()
    }

    /// Lines of the log begin at these offsets, for the first time or after they lost entries. Clients that are connected
    /// already and have, or had, rooms on them may have missed events. They hear it once: Socket.IO clients are closed, `/ws`
    /// and SSE clients get one `gap` message for each room or stream.
    pub(super) fn reset(&mut self, begun: &[Offset], now: Millis) {
        let partitions = self.context.window.partitions();
        let mut told = 0;
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get(key) else { continue };
            let (protocol, is_behind) = (connection.protocol, connection.has_replays());
            let has_any = |lines: LineSet| begun.iter().any(|offset| lines.contains(offset.line));
            let is_on = |key: &SessionKey| self.sessions.get(*key).is_some_and(|session| has_any(session.line_set()));
            let sessions: Vec<_> = connection.sessions.iter().copied().filter(is_on).collect();
            let Some(first) = sessions.first().copied() else {
                // It is still being let in, and starts behind these offsets; or nothing on these lines is for it.
                continue;
            };
            told += sessions.len() as u64;
            match protocol {
                Protocol::SocketIo => self.close(key, CloseReason::LogReset, now),
                Protocol::PlainWs => {
                    // With its cursor, one that is behind loses what it had still to get on other lines.
                    let may_miss = |room: &Room| begun.iter().any(|offset| partitions.may_bring(offset.line, room));
                    let is_lost = |room: &&Room| is_behind || may_miss(room);
                    let of = |session: SessionKey| self.rooms.of(session).filter(is_lost).cloned();
                    let rooms: Vec<Room> = sessions.into_iter().flat_map(of).collect();
                    rooms.iter().for_each(|room| self.push_json(key, &plain_ws::gap(room)));
                }
                Protocol::Sse => {
                    let lines = self.sessions.get(first).map(|session| session.line_set()).unwrap_or_default();
                    let mut here = self.position.only(lines);
                    begun.iter().filter(|offset| lines.contains(offset.line)).for_each(|offset| here.set(*offset));
                    self.push(key, Frame::Raw(sse::gap_block_at("log_reset", &here)));
                }
            }
            // What they would have got belongs to a log that is gone.
            if let Some(backpressure) = self.connections.get_mut(key).and_then(|c| c.backpressure.as_mut()) {
                backpressure.end_all();
            }
        }
        for offset in begun {
            self.history.reset(self.stamp(), *offset);
            // Not before: the sessions that were parked above got nothing of what lies between.
            self.move_to(*offset);
        }
        self.context.metrics.recovery.gap("log_reset", told);
    }

    /// Where the shard is in the partition of a room, if it has one.
    pub(super) fn in_partition(&self, room: &str) -> Option<Offset> {
        match self.context.window.partitions().of(room) {
            Line::CONTROL => None,
            line => self.position.on(line),
        }
    }

    /// A line of the log was read up to this offset, and there was no event since the last one.
    pub(super) fn move_to(&mut self, offset: Offset) {
        self.position.set(offset);
        self.advanced.notify_waiters();
    }

    /// Lists a connection for the next flush.
    pub(super) fn mark_dirty(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key) {
            self.flusher.list(key, connection);
        }
    }
}

/// Whether a session may resume after its connection ended for this reason (docs/protocol/socketio.md section 4.3).
pub(super) fn recoverable(reason: CloseReason) -> bool {
    !matches!(
        reason,
        CloseReason::ClientClose
            | CloseReason::Disconnected
            | CloseReason::Revoked
            | CloseReason::Refused
            | CloseReason::Unauthorized
    )
}
