//! Sessions that are behind the log, and how they catch up: each flush of a connection tops its outbox up from the window, by
//! a slice, so that a replay holds no more than that, and no shard stalls.

use crate::budget::Holding;
use crate::log::window::{Gap, Slice};
use crate::model::close::CloseReason;
use crate::model::millis::Millis;
use crate::model::names::Room;
use crate::model::offset::Offset;
use crate::model::place::Place;
use crate::model::session_note::SessionNote;
use crate::model::transport::Protocol;
use crate::protocol::{plain_ws, sse, websocket};
use crate::session::changes::Change;
use crate::session::connection::{ConnectionKey, Link, SessionKey};
use crate::session::frame::Frame;
use crate::session::replay::{Missed, Replay, Step};
use crate::session::timers::Heartbeat;
use crate::shard::hub::Hub;
use crate::shard::reporting::Outcome;
use crate::shard::timers::ping_frame;

/// Taken from the window at once: some 0.1 ms of work.
const SLICE: Slice = Slice { events: 256, bytes: 64 << 10 };
/// An outbox with fewer bytes than this is topped up.
const LOW_WATER: usize = 16 << 10;
/// Bytes that the kernel may hold unsent for a client that is behind. It would take megabytes, and what is urgent would wait
/// behind them.
const UNSENT: u32 = 64 << 10;

impl Hub {
    /// A session continues behind this cursor. What fits into one slice is queued at once.
    pub(super) fn begin_replay(&mut self, key: SessionKey, replay: Replay, now: Millis) {
        let Some(session) = self.sessions.get(key) else { return };
        let connection_key = session.connection;
        let Some(connection) = self.connections.get_mut(connection_key) else { return };
        if connection.closing.is_some() {
            return;
        }
        // The events of a slice are the window's, their encoded form is not.
        let held = self.context.memory.hold(Holding::Replay, replay.size() + SLICE.bytes);
        connection.backpressure.get_or_insert_default().begin(key, replay, held);
        self.top_up(connection_key, now);
        self.mark_dirty(connection_key);
        let Some(connection) = self.connections.get_mut(connection_key) else { return };
        if let (true, Link::WebSocket(stream)) = (connection.has_replays(), &connection.link) {
            // Without it, the replay goes out all the same.
            let _ = socket2::SockRef::from(stream.wire()).set_tcp_notsent_lowat(UNSENT);
        }
    }

    /// A `/ws` session that is `here` gets the past of one of its rooms, in (`after`, `up_to`].
    pub(super) fn replay_past(
        &mut self,
        key: SessionKey,
        room: &Room,
        after: &Place,
        up_to: Option<&Place>,
        now: Millis,
    ) {
        let Some(session) = self.sessions.get(key) else { return };
        let (id, connection, here) = (session.id, session.connection, self.position.only(session.line_set()));
        let lines = self.context.window.partitions().of_all(std::slice::from_ref(room)).collect();
        let (after, up_to) = (&after.only(lines), &up_to.unwrap_or(&here).only(lines));
        if after.is_at_least(up_to) {
            return;
        }
        let known = self.connections.get_mut(connection).and_then(|connection| connection.backpressure.as_mut());
        if let Some(replay) = known.and_then(|backpressure| backpressure.replay_mut(key)) {
            return replay.add_past(room, after, up_to);
        }
        let rooms: Vec<_> = self.rooms.of(key).cloned().collect();
        let mut replay = Replay::of_rooms(&id, &rooms, self.context.window.partitions(), &here, &here).by_room();
        replay.add_past(room, after, up_to);
        self.begin_replay(key, replay, now);
    }

    /// A session that is behind has joined or left a room.
    pub(super) fn note_replay_change(&mut self, key: SessionKey, change: &Change) {
        let Some(connection) = self.sessions.get(key).map(|session| session.connection) else { return };
        let backpressure = self.connections.get_mut(connection).and_then(|connection| connection.backpressure.as_mut());
        if let Some(replay) = backpressure.and_then(|backpressure| backpressure.replay_mut(key)) {
            replay.note(change);
        }
    }

    /// A session gets no more of what a room had until now.
    pub(super) fn forget_past(&mut self, key: SessionKey, room: &Room) {
        let Some(connection) = self.sessions.get(key).map(|session| session.connection) else { return };
        let backpressure = self.connections.get_mut(connection).and_then(|connection| connection.backpressure.as_mut());
        if let Some(replay) = backpressure.and_then(|backpressure| backpressure.replay_mut(key)) {
            replay.forget(room, &self.position);
        }
    }

    /// From where on a `/ws` session is to get events of a room that it is in.
    pub(super) fn room_point(&self, key: SessionKey, room: &Room) -> Place {
        match self.cursor(key) {
            Some(cursor) => cursor.place_of(room, &self.position),
            None => self.position.clone(),
        }
    }

    /// The place up to which a session has, or had queued, everything. What it is sent besides events of the log must not
    /// name a later one.
    pub(super) fn resume_point(&self, key: SessionKey) -> Place {
        let lines = self.sessions.get(key).map(|session| session.line_set()).unwrap_or_default();
        let here = self.position.only(lines);
        match self.cursor(key) {
            Some(cursor) => cursor.place(&here),
            None => here,
        }
    }

    /// The cursor of a session that is behind.
    pub(super) fn cursor(&self, key: SessionKey) -> Option<&Replay> {
        let connection = self.connections.get(self.sessions.get(key)?.connection)?;
        connection.backpressure.as_ref()?.replay(key)
    }

    /// Queues the next slice of what a connection's sessions have still to get, where the outbox is nearly empty. Answers
    /// whether it is to be topped up again.
    pub(super) fn top_up(&mut self, key: ConnectionKey, now: Millis) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        if connection.closing.is_some() || connection.outbox.bytes() >= LOW_WATER {
            return connection.has_replays();
        }
        let bytes = match &connection.backpressure {
            Some(backpressure) if matches!(connection.link, Link::WebSocket(_)) => backpressure.pace.room(),
            _ => SLICE.bytes,
        };
        if bytes == 0 {
            // The pong goes on with it.
            return false;
        }
        let slice = Slice { bytes: bytes.min(SLICE.bytes), ..SLICE };
        let Some((session, mut replay)) = connection.backpressure.as_mut().and_then(|waiting| waiting.take()) else {
            return false;
        };
        let Some(live) = self.sessions.get(session) else { return connection.has_replays() };
        let namespace = self.context.namespaces.name(live.namespace);
        self.flusher.note_slice();
        let after = replay.place(&self.position);
        let step = replay.step(&*self.context.window, &self.position, namespace, slice);
        let is_over = replay.is_over(&self.position);
        // Also if it is over: a session that is closed for what it lost is parked as one that is behind.
        connection.backpressure.get_or_insert_default().give_back(session, replay);
        let more = match step {
            Step::Events(missed) => {
                self.queue_missed(key, session, missed);
                true
            }
            Step::Lost { gap, room, up_to } => {
                let after = after.on(up_to.line).unwrap_or_default();
                self.report_lost(key, session, (gap, after), room.as_ref(), now)
            }
            // The shard is about to be reset, and its clients are notified then.
            Step::Reset => false,
        };
        let Some(connection) = self.connections.get_mut(key) else { return false };
        if is_over && let Some(backpressure) = &mut connection.backpressure {
            backpressure.end(session);
        }
        let has_replays = connection.has_replays();
        self.ping_replay(key, now);
        more && has_replays
    }

    fn queue_missed(&mut self, key: ConnectionKey, session_key: SessionKey, missed: Vec<Missed>) {
        let found = (self.connections.get_mut(key), self.sessions.get_mut(session_key));
        let (Some(connection), Some(session)) = found else { return };
        let before = connection.outbox.bytes();
        let followed: Vec<_> = match self.context.feed.is_open() {
            true => missed.iter().map(|missed| missed.event.clone()).collect(),
            false => Vec::new(),
        };
        for Missed { event, room, is_late, place } in missed {
            session.note_replayed(event.offset);
            if is_late {
                self.flusher.note_delivery(connection.protocol);
            }
            connection.outbox.push(match (event.draft.rooms.get(room).filter(|_| room > 0), place) {
                // The shared frame names the first room.
                (Some(room), place) if connection.protocol == Protocol::PlainWs => {
                    let message = match place {
                        None => plain_ws::event(&event, room),
                        Some(place) => plain_ws::event_at(&event, room, &place.at(event.offset).to_string()),
                    };
                    Frame::Raw(websocket::text_frame(&message))
                }
                (_, None) => Frame::event(event),
                (_, Some(place)) => Frame::placed(event, &place),
            });
        }
        let queued = connection.outbox.bytes() - before;
        // What was allowed for earlier slices is written, but for what still waits.
        let stale = connection.allowed().saturating_sub(before);
        let backpressure = connection.backpressure.get_or_insert_default();
        backpressure.allowed = backpressure.allowed - stale + queued;
        if matches!(connection.link, Link::WebSocket(_)) {
            // A polling client asks for each answer, a stream takes what it reads.
            backpressure.pace.sent(queued);
        }
        followed.iter().for_each(|event| self.report_out(session_key, event, Outcome::Replayed));
    }

    /// Lets a ping follow what was queued of a replay, if it is not over and no other ping is out.
    fn ping_replay(&mut self, key: ConnectionKey, now: Millis) {
        let by = now.after(self.context.socketio.ping_timeout);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let waits = connection.has_replays() && matches!(connection.link, Link::WebSocket(_));
        if !waits || !matches!(connection.timers.heartbeat, Heartbeat::PingAt(_)) {
            return;
        }
        let Some(backpressure) = connection.backpressure.as_mut().filter(|one| one.pace.wants_ping()) else { return };
        backpressure.pace.pinged(now);
        let frame = ping_frame(connection.protocol);
        connection.outbox.push(frame);
        self.connections.change_timers(key, |timers| timers.await_pong(by));
    }

    /// The client has answered a ping: its replay goes on.
    pub(super) fn confirm_replay(&mut self, key: ConnectionKey, now: Millis) {
        let timeout = self.context.socketio.ping_timeout;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(backpressure) = &mut connection.backpressure {
            backpressure.pace.pong(now, timeout);
            self.ping_replay(key, now);
            self.mark_dirty(key);
        }
    }

    /// The client has sent something else.
    pub(super) fn trust_replay(&mut self, key: ConnectionKey) {
        if let Some(backpressure) = self.connections.get_mut(key).and_then(|one| one.backpressure.as_mut()) {
            backpressure.pace.trust();
            self.mark_dirty(key);
        }
    }

    /// The window no longer has what a session still needs: its client is notified. Answers whether the cursor goes on.
    fn report_lost(
        &mut self,
        key: ConnectionKey,
        session: SessionKey,
        (gap, after): (Gap, Offset),
        room: Option<&Room>,
        now: Millis,
    ) -> bool {
        let Some(protocol) = self.connections.get(key).map(|connection| connection.protocol) else { return false };
        self.context.metrics.recovery.gap(gap.code(), 1);
        // Of no other line.
        let mut lost = self.position.clone();
        lost.set(after);
        let note = SessionNote::Gap { code: gap.code(), room: room.cloned(), after: Some(Box::new(lost)) };
        self.note(session, note);
        match protocol {
            // It comes again with the last offset that it got, and learns that it cannot be recovered.
            Protocol::SocketIo => {
                self.close(key, CloseReason::SlowConsumer, now);
                return false;
            }
            Protocol::PlainWs => {
                let partitions = self.context.window.partitions();
                let is_lost = |of: &&Room| room.is_none() && partitions.may_bring(after.line, of);
                let all: Vec<Room> = self.rooms.of(session).filter(is_lost).cloned().collect();
                for room in room.into_iter().chain(&all) {
                    self.push_json(key, &plain_ws::gap(room));
                }
            }
            Protocol::Sse => self.push(key, Frame::Raw(sse::gap_block_at(gap.code(), &self.resume_point(session)))),
        }
        true
    }
}
