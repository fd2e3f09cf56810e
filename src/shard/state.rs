//! The shard's tables: connections, sessions, rooms, deadlines, and how one of them ends.

use crate::model::close::{CloseReason, DropReason, jittered};
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::Offset;
use crate::model::refusal::Refusal;
use crate::model::transport::Protocol;
use crate::presence::local::Reservation;
use crate::presence::{LeaveReason, Ticket};
use crate::protocol::socketio_encode::Encoded;
use crate::protocol::{plain_ws, sse, websocket};
use crate::refusals;
use crate::session::Session;
use crate::session::connection::{Connection, ConnectionKey, Link, SessionKey};
use crate::session::outbox::Frame;
use crate::session::parked::ParkedSessions;
use crate::session::timers::Millis;
use crate::session::timers::millis;
use crate::shard::context::ShardContext;
use crate::shard::deadlines::Deadlines;
use crate::shard::rooms::Rooms;
use crate::shard::session_persister::SessionPersister;
use bytes::Bytes;
use slotmap::SlotMap;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

/// How long a closing connection may take to flush and hang up.
const CLOSING: Millis = 2_000;

/// Everything one shard owns.
pub struct Hub {
    pub(super) context: Arc<ShardContext>,
    /// Open connections.
    pub connections: SlotMap<ConnectionKey, Box<Connection>>,
    /// Live sessions.
    pub sessions: SlotMap<SessionKey, Box<Session>>,
    /// Who is in which room.
    pub rooms: Rooms<SessionKey>,
    /// Where the log stands for this shard.
    pub position: Offset,
    /// Sessions that may resume.
    pub parked: ParkedSessions,
    /// Records of sessions that are to be written, where there are other nodes.
    pub(super) persister: Option<SessionPersister>,
    pub(super) deadlines: Deadlines<ConnectionKey>,
    pub(super) dirty: VecDeque<ConnectionKey>,
    /// Ended sessions whose `disconnect` rule is not carried out yet; the graceful stop waits for them.
    pub pending_disconnect_hooks: usize,
    /// The newest change of presence on this shard.
    pub(super) noted: Ticket,
    pub(super) mark: u64,
    /// Frames put into outboxes; tells when a long delivery must let others have their turn.
    pub(super) pushed: usize,
    /// Connections taken from `dirty` so far.
    pub(super) flushed: u64,
    /// Deliveries since the shard last told the metrics, by protocol.
    pub(super) delivered: [u64; 3],
    pub(super) scratch: Vec<u8>,
    pub(super) rearm: Rc<Notify>,
    pub(super) armed: Millis,
    polling: HashMap<Id, ConnectionKey>,
    by_id: HashMap<Id, SessionKey>,
    by_pid: HashMap<Id, SessionKey>,
    ended: mpsc::UnboundedSender<Ended>,
}

/// A session that is over or lost its connection, for the `disconnect` rule.
pub struct Ended {
    /// What it was.
    pub session: Box<Session>,
    /// The rooms it was in.
    pub rooms: Vec<Room>,
    /// Why it ended.
    pub reason: CloseReason,
}

impl Hub {
    /// Empty tables; `ended` hears of every session that leaves a namespace with a `disconnect` rule.
    pub fn new(context: Arc<ShardContext>, rearm: Rc<Notify>, ended: mpsc::UnboundedSender<Ended>) -> Self {
        let records = context.cluster.is_some() && context.recovery_on();
        Self {
            persister: records.then(|| SessionPersister::new(millis(context.recovery.window))),
            context,
            connections: SlotMap::with_key(),
            sessions: SlotMap::with_key(),
            rooms: Rooms::default(),
            position: Offset::default(),
            parked: ParkedSessions::default(),
            deadlines: Deadlines::default(),
            dirty: VecDeque::new(),
            pending_disconnect_hooks: 0,
            noted: Ticket::default(),
            mark: 0,
            pushed: 0,
            flushed: 0,
            delivered: [0; 3],
            scratch: Vec::new(),
            rearm,
            armed: Millis::MAX,
            polling: HashMap::new(),
            by_id: HashMap::new(),
            by_pid: HashMap::new(),
            ended,
        }
    }

    /// Adds a connection; polling ones are found by their sid from then on.
    pub fn open(&mut self, connection: Box<Connection>) -> ConnectionKey {
        self.context.metrics.connections(connection.link.transport(), connection.protocol).inc();
        let (id, polls) = (connection.id, matches!(connection.link, Link::Polling(_)));
        let key = self.connections.insert(connection);
        if polls {
            self.polling.insert(id, key);
        }
        self.reschedule(key);
        key
    }

    /// The connection that began as polling with this Engine.IO sid.
    pub fn by_sid(&self, sid: Id) -> Option<ConnectionKey> {
        self.polling.get(&sid).copied()
    }

    /// A polling connection's WebSocket takes over.
    pub fn upgrade(&mut self, key: ConnectionKey, link: Link) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        self.context.metrics.connections(connection.link.transport(), connection.protocol).dec();
        connection.link = link;
        self.context.metrics.connections(connection.link.transport(), connection.protocol).inc();
        self.mark_dirty(key);
    }

    /// Puts the connection's nearest deadline into the table.
    pub fn reschedule(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let next = connection.timers.next();
        self.deadlines.change(key, connection.scheduled, next);
        connection.scheduled = next;
        if next != 0 && next < self.armed {
            self.armed = next;
            self.rearm.notify_one();
        }
    }

    /// The live session with this pid. Only a resume asks, for a half-open connection.
    pub fn session_by_pid(&self, pid: Id) -> Option<(SessionKey, &Session)> {
        let key = *self.by_pid.get(&pid)?;
        Some((key, self.sessions.get(key)?))
    }

    /// The pids of all sessions, live and parked.
    pub(super) fn pids(&self) -> impl Iterator<Item = Id> {
        self.by_pid.keys().copied().chain(self.parked.pids())
    }

    /// Adds a session to its connection; whether its user is there may be `reserved` already.
    pub fn admit(&mut self, session: Box<Session>, reserved: &mut Reservation) -> SessionKey {
        let (id, pid, connection) = (session.id, session.pid, session.connection);
        self.note_user_came(&session, reserved);
        let key = self.sessions.insert(session);
        self.by_id.insert(id, key);
        if let Some(pid) = pid {
            self.by_pid.insert(pid, key);
            self.note_record(pid);
        }
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.sessions.reserve_exact(1);
            connection.sessions.push(key);
            connection.timers.connect_by = 0;
        }
        self.reschedule(connection);
        key
    }

    /// The session with this id.
    pub fn session_by_id(&self, id: Id) -> Option<SessionKey> {
        self.by_id.get(&id).copied()
    }

    /// The connection's session in a namespace.
    pub fn session_in(&self, connection: ConnectionKey, namespace: NamespaceIndex) -> Option<SessionKey> {
        let sessions = &self.connections.get(connection)?.sessions;
        sessions.iter().copied().find(|key| self.sessions.get(*key).is_some_and(|s| s.namespace == namespace))
    }

    /// Ends one session; after a reason that allows it, it may resume within the window.
    pub fn dismiss(&mut self, key: SessionKey, reason: CloseReason, now: Millis) {
        let Some(session) = self.sessions.get(key) else { return };
        let namespace = self.context.namespaces.name(session.namespace);
        let announce = self.context.notify_disconnects || self.context.rules.disconnect(namespace).is_some();
        let park = session.pid.filter(|_| recoverable(reason) && self.context.recovery_on());
        let form = park.map(|_| self.park_form(key, session));
        let rooms = if announce { self.rooms.of(key).cloned().collect() } else { Vec::new() };
        let Some(session) = self.take_session(key) else { return };
        tracing::debug!(session = %session.id, reason = reason.label(), "disconnected");
        if let (Some(pid), Some(form)) = (park, form) {
            let until = now + millis(self.context.recovery.window);
            self.parked.park(pid, form, until, self.context.recovery.window_bytes);
        }
        if announce && self.ended.send(Ended { session, rooms, reason }).is_ok() {
            self.pending_disconnect_hooks += 1;
        }
    }

    /// Takes a session out of all tables.
    pub(super) fn take_session(&mut self, key: SessionKey) -> Option<Box<Session>> {
        let rooms: Vec<Room> = self.rooms.of(key).cloned().collect();
        for room in &rooms {
            self.note_gone(key, room, LeaveReason::Lost);
        }
        let session = self.sessions.remove(key)?;
        self.note_user_gone(&session);
        if self.by_id.get(&session.id) == Some(&key) {
            self.by_id.remove(&session.id);
        }
        if let Some(pid) = session.pid {
            if self.by_pid.get(&pid) == Some(&key) {
                self.by_pid.remove(&pid);
            }
            self.note_record(pid);
        }
        if let Some(connection) = self.connections.get_mut(session.connection) {
            connection.sessions.retain(|other| *other != key);
        }
        self.rooms.forget(key);
        Some(session)
    }

    /// Begins to end a connection: its sessions leave their rooms at once, the peer is told why, the rest of the
    /// outbox is flushed, and it is cut when that takes too long.
    pub fn close(&mut self, key: ConnectionKey, reason: CloseReason, now: Millis) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.closing.is_some() {
            return;
        }
        connection.closing = Some(reason);
        let (protocol, first) = (connection.protocol, connection.sessions.first().copied());
        self.note_refusal(reason, protocol, first);
        let Some(connection) = self.connections.get_mut(key) else { return };
        self.context.metrics.closed(reason);
        // Each knows of those that are left: a user counts once on a connection.
        for session in connection.sessions.clone() {
            self.dismiss(session, reason, now);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.inbox = None;
        if matches!(reason, CloseReason::SlowConsumer | CloseReason::PingTimeout) {
            // What is told next should not have to wait behind what the client did not take.
            let lost = connection.outbox.keep_started();
            self.context.metrics.dropped(DropReason::ClosedWithQueue, lost as u64);
        }
        let wait = match &mut connection.link {
            Link::Polling(polling) => {
                let leaves = matches!(reason, CloseReason::ClientClose | CloseReason::TransportClose);
                let noop = leaves && connection.outbox.is_empty();
                connection.outbox.push(Frame::Engine(Bytes::from_static(if noop { b"6" } else { b"1" })));
                // Where nobody waits and the client itself did it, the next request finds no session (wire sheet A5, A6).
                // At a stop no further request gets in.
                let comes_again = !ended_by_client(reason) && reason != CloseReason::Draining;
                if polling.waiting.is_none() && !comes_again { 0 } else { CLOSING }
            }
            Link::WebSocket(_) => {
                for frame in farewell(connection.protocol, reason) {
                    connection.outbox.push(Frame::Raw(frame));
                }
                CLOSING
            }
            Link::Sse(_) => {
                if let Some(after) = reason.retry() {
                    connection.outbox.push(Frame::Raw(sse::retry_block(jittered(after.max(sse::MIN_RETRY)))));
                }
                CLOSING
            }
        };
        connection.timers.closing(now + wait);
        connection.wake();
        self.mark_dirty(key);
        self.reschedule(key);
    }

    /// Notes a close that is a refusal of what the client sends.
    fn note_refusal(&self, reason: CloseReason, protocol: Protocol, session: Option<SessionKey>) {
        let (refusal, why) = match reason {
            CloseReason::RateLimit => (Refusal::Rate, "more messages than limits.events_per_second allows"),
            CloseReason::TooBig => (Refusal::Size, "a message over socketio.max_payload"),
            CloseReason::InvalidText => (Refusal::Protocol, "a text message that is not UTF-8"),
            CloseReason::ParseError => (Refusal::Protocol, "bytes that break the protocol"),
            CloseReason::Overlap => (Refusal::Protocol, "two long-polling requests of one kind at once"),
            _ => return,
        };
        let who = session.and_then(|key| self.sessions.get(key)).map(|session| session.name());
        let who = who.unwrap_or_else(|| format!("a client without a session ({protocol:?})"));
        refusals::note(&self.context.metrics, refusal, format_args!("{who}"), format_args!("{why}; it is closed"));
    }

    /// Forgets a connection whose transport is gone; its sessions may resume.
    pub fn remove(&mut self, key: ConnectionKey, now: Millis) {
        self.close(key, CloseReason::TransportClose, now);
        self.forget(key);
    }

    /// Takes a connection without sessions out of all tables.
    pub(super) fn forget(&mut self, key: ConnectionKey) {
        let Some(mut connection) = self.connections.remove(key) else { return };
        self.deadlines.change(key, connection.scheduled, 0);
        self.context.metrics.connections(connection.link.transport(), connection.protocol).dec();
        if self.polling.get(&connection.id) == Some(&key) {
            self.polling.remove(&connection.id);
        }
        let lost = connection.outbox.clear();
        self.context.metrics.dropped(DropReason::ClosedWithQueue, lost as u64);
        connection.wake();
    }

    /// Queues a frame for one connection.
    pub fn push(&mut self, key: ConnectionKey, frame: Frame) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.closing.is_some() {
            return;
        }
        let frame = match (frame, &connection.link) {
            // Encoded once here rather than at each partial write.
            (Frame::Packet(packet), Link::WebSocket(_)) if connection.base64 => Frame::Raw(packet.text_frames()),
            (Frame::Packet(packet), Link::WebSocket(_)) => Frame::Raw(packet.frames()),
            (frame, _) => frame,
        };
        connection.outbox.push(frame);
        if connection.outbox.bytes() > self.context.limits.outbox_bytes + connection.replay {
            // Also where the socket is full: the flush judges whether this is a slow consumer.
            connection.blocked = false;
        }
        self.mark_dirty(key);
    }

    /// Queues what a client missed: as much as the window holds, whatever the limit for live frames.
    pub fn replay(&mut self, key: ConnectionKey, frames: impl Iterator<Item = Frame>) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.closing.is_none()) else {
            return;
        };
        let before = connection.outbox.bytes();
        frames.for_each(|frame| connection.outbox.push(frame));
        connection.replay += connection.outbox.bytes() - before;
        self.mark_dirty(key);
    }

    /// Whether a client still has to take what an earlier replay queued: a second one waits for it.
    pub fn is_replaying(&self, key: ConnectionKey) -> bool {
        self.connections.get(key).is_some_and(|connection| connection.replay > self.context.limits.outbox_bytes)
    }

    /// Queues a Socket.IO packet for one connection.
    pub fn push_packet(&mut self, key: ConnectionKey, packet: Encoded) {
        self.push(key, Frame::Packet(Rc::new(packet)));
    }

    /// Queues a `/ws` message for one connection.
    pub fn push_json(&mut self, key: ConnectionKey, message: &str) {
        self.push(key, Frame::Raw(websocket::text_frame(message)));
    }

    /// The nearest deadline of any connection or parked session.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.next().into_iter().chain(self.parked.next()).min()
    }

    /// The log begins here: for the first time, or after continuity was lost. Whoever is here already may have missed
    /// something, and is told, once.
    pub fn reset(&mut self, offset: Offset, now: Millis) {
        let mut told = 0;
        for key in self.connections.keys().collect::<Vec<_>>() {
            let Some(connection) = self.connections.get(key) else { continue };
            let sessions = connection.sessions.clone();
            told += sessions.len() as u64;
            match connection.protocol {
                Protocol::SocketIo => self.close(key, CloseReason::LogReset, now),
                Protocol::PlainWs => {
                    let rooms: Vec<Room> =
                        sessions.iter().flat_map(|session| self.rooms.of(*session)).cloned().collect();
                    rooms.iter().for_each(|room| self.push_json(key, &plain_ws::gap(room)));
                }
                Protocol::Sse => self.push(key, Frame::Raw(sse::gap_block_at("log_reset", &offset))),
            }
        }
        // Only now: a session that is parked above was sent nothing of what lies between.
        self.position = offset;
        self.context.metrics.gap("log_reset", told);
    }

    /// Lists a connection for the next flush.
    pub fn mark_dirty(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.dirty
            && !connection.blocked
        {
            connection.dirty = true;
            self.dirty.push_back(key);
            if self.dirty.len() == 1 {
                self.rearm.notify_one();
            }
        }
    }
}

/// Whether a session may resume after its connection ended for this reason (wire sheet C3).
fn recoverable(reason: CloseReason) -> bool {
    !matches!(
        reason,
        CloseReason::ClientClose | CloseReason::Disconnected | CloseReason::Refused | CloseReason::Unauthorized
    )
}

/// Whether the client itself brought the end about, so that it expects no word of it.
fn ended_by_client(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::ClientClose
            | CloseReason::TransportClose
            | CloseReason::PingTimeout
            | CloseReason::ParseError
            | CloseReason::Overlap
            | CloseReason::Replaced
    )
}

/// What a WebSocket peer is told before the end.
fn farewell(protocol: Protocol, reason: CloseReason) -> Vec<Bytes> {
    if protocol == Protocol::SocketIo {
        // Engine.IO closes without a code, but for a message over maxPayload (wire sheet A7, A9).
        let code = (reason == CloseReason::TooBig).then_some(1009);
        return vec![websocket::close_frame(code, "")];
    }
    let retry = reason.retry().map(|after| u64::try_from(jittered(after).as_millis()).unwrap_or(u64::MAX));
    vec![
        websocket::text_frame(&plain_ws::closing(reason.label(), retry)),
        websocket::close_frame(reason.code(), reason.label()),
    ]
}
