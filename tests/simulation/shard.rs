//! A minimal model of a shard: its sessions and rooms, deliveries, and sessions that wait to be resumed.

use crate::node::{NAMESPACE, Settings};
use crate::wire::{Conn, Down, Kind, Wires};
use roomcast::auth::identity::{Identity, UserId};
use roomcast::log::shared_window::SharedWindow;
use roomcast::model::command::{SessionCommand, Subject};
use roomcast::model::event::{Delivery, Event};
use roomcast::model::id::Id;
use roomcast::model::millis::Millis;
use roomcast::model::names::Room;
use roomcast::model::offset::{Offset, Position};
use roomcast::model::partition::{Line, Partitions};
use roomcast::model::place::{LineSet, Place};
use roomcast::model::provenance::Provenance;
use roomcast::session::changes::{Change, Changes};
use roomcast::session::connection::SessionKey;
use roomcast::session::frame::{Frame, LocalDelivery};
use roomcast::session::parked::{Parked, UNPROVABLE};
use roomcast::session::parked_sessions::ParkedSessions;
use roomcast::session::replay::Replay;
use roomcast::shard::rooms::Rooms;
use slotmap::SlotMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// In the log's units; longer than any window here.
const KEPT_CHANGES: u64 = 6_000_000;

/// A live session.
pub(crate) struct Live {
    pub id: Id,
    pub pid: Option<Id>,
    pub conn: u64,
    pub start: Place,
    pub last: Position,
    pub last_line: Line,
    /// The partitions that it has or had rooms in.
    pub lines: LineSet,
    pub mark: u64,
    pub moves: u32,
    pub changes: Changes,
    pub identity: Arc<Identity>,
    /// What it has still to get.
    pub replay: Option<Replay>,
    /// Answers to joins and leaves, sent when the session's record is written.
    pub unanswered: Vec<Down>,
    pub written_ms: u64,
}

pub(crate) enum Command {
    Reset(Offset),
    Events(Vec<Arc<Event>>),
    Sessions(Offset, Arc<SessionCommand>),
    Advance(Offset),
}

/// One shard's tables.
#[derive(Default)]
pub(crate) struct Shard {
    pub waiting: VecDeque<Command>,
    pub position: Place,
    partitions: Partitions,
    changes_on_control_only: bool,
    forgets_left_lines: bool,
    /// Commands that it carried out, and where it was then.
    pub carried_out: Vec<(Position, Place)>,
    pub rooms: Rooms<SessionKey>,
    pub sessions: SlotMap<SessionKey, Live>,
    pub parked: ParkedSessions,
    pub by_pid: BTreeMap<Id, SessionKey>,
    mark: u64,
    /// Parks a session that is behind as if it had everything.
    pub parks_ahead: bool,
}

impl Shard {
    pub(crate) fn new(settings: &Settings, window: &SharedWindow) -> Self {
        Self {
            rooms: Rooms::of_node(window.interest().clone()),
            parks_ahead: settings.parks_ahead,
            partitions: settings.partitions,
            changes_on_control_only: settings.changes_on_control_only,
            forgets_left_lines: settings.forgets_left_lines,
            position: Place::unread(settings.partitions),
            ..Self::default()
        }
    }

    /// As the shard carries out a command.
    pub(crate) fn work(&mut self, wires: &mut Wires, settings: &Settings, now: u64) -> bool {
        match self.waiting.pop_front() {
            None => return false,
            Some(Command::Reset(offset)) => self.reset(offset, wires, settings, now),
            Some(Command::Advance(offset)) => self.position.set(offset),
            Some(Command::Sessions(position, order)) => self.apply(position, &order),
            Some(Command::Events(events)) => {
                for event in events {
                    self.deliver(&event, wires, settings, now);
                }
            }
        }
        true
    }

    /// As the shard applies a session command.
    fn apply(&mut self, offset: Offset, order: &SessionCommand) {
        self.position.set(offset);
        self.carried_out.push((offset.position, self.position.clone()));
        for key in self.sessions.keys().collect::<Vec<_>>() {
            let session = &self.sessions[key];
            let user = session.identity.user.as_ref().map(UserId::as_str);
            let subject = Subject { session: &session.id, namespace: "/", user };
            let before: Vec<_> = self.rooms.of(key).cloned().collect();
            let mut after = before.clone();
            order.apply(subject, &mut after);
            before.iter().filter(|room| !after.contains(room)).for_each(|room| self.change(key, room, false));
            after.iter().for_each(|room| self.change(key, room, true));
        }
    }

    /// As a session joins or leaves a room.
    pub(crate) fn change(&mut self, key: SessionKey, room: &Room, join: bool) {
        let changed = match join {
            true => self.rooms.join(key, NAMESPACE, room, Provenance::Rule),
            false => self.rooms.leave(key, NAMESPACE, room).is_some(),
        };
        if changed {
            let partition = self.in_partition(room).filter(|_| !self.changes_on_control_only);
            let change =
                Change { after: self.position.control().position, partition, room: room.clone(), joined: join };
            let session = &mut self.sessions[key];
            if let Some(replay) = &mut session.replay {
                replay.note(&change);
            }
            session.changes.note(change, KEPT_CHANGES);
            session.lines.insert(self.partitions.of(room));
        }
    }

    /// A `/ws` client has left a room, or joins it anew.
    pub(crate) fn forget_past(&mut self, key: SessionKey, room: &Room) {
        if let Some(replay) = &mut self.sessions[key].replay {
            replay.forget(room, &self.position);
        }
    }

    fn in_partition(&self, room: &Room) -> Option<Offset> {
        match self.partitions.of(room) {
            Line::CONTROL => None,
            line => self.position.on(line),
        }
    }

    /// The lines that a session's place names.
    fn lines_of(&self, key: SessionKey) -> LineSet {
        match self.forgets_left_lines {
            true => self.partitions.of_all(&self.rooms.of(key).cloned().collect::<Vec<_>>()).collect(),
            false => self.sessions[key].lines,
        }
    }

    /// As a shard knows where a session's client is.
    pub(crate) fn resume_point(&self, key: SessionKey) -> Place {
        let here = self.position.only(self.lines_of(key));
        self.sessions[key].replay.as_ref().map_or(here.clone(), |replay| replay.place(&here))
    }

    /// As the shard starts anew after a discontinuity.
    fn reset(&mut self, offset: Offset, wires: &mut Wires, settings: &Settings, now: u64) {
        for key in self.sessions.keys().collect::<Vec<_>>() {
            let is_silent = settings.tells_nobody_of_partitions && offset.line != Line::CONTROL;
            if is_silent || !self.sessions[key].lines.contains(offset.line) {
                continue;
            }
            let Some(conn) = wires.get_mut(&self.sessions[key].conn) else { continue };
            let is_behind = self.sessions[key].replay.is_some();
            match conn.kind {
                Kind::SocketIo => self.close(conn, settings, now),
                Kind::PlainWs => {
                    let mut here = self.position.clone();
                    here.set(offset);
                    let is_lost = |room: &&Room| is_behind || self.partitions.may_bring(offset.line, room);
                    let lost = self.rooms.of(key).filter(is_lost);
                    lost.for_each(|room| conn.push_own(Down::Gap(Some(room.clone()), here.clone())));
                }
                Kind::Sse => {
                    let mut here = self.position.only(self.lines_of(key));
                    here.set(offset);
                    conn.push_own(Down::Gap(None, here));
                }
            }
            if let Some(session) = self.sessions.get_mut(key) {
                session.replay = None;
            }
        }
        self.position.set(offset);
    }

    /// As the shard delivers an event.
    fn deliver(&mut self, event: &Arc<Event>, wires: &mut Wires, settings: &Settings, now: u64) {
        self.position.set(event.offset);
        self.mark += 1;
        let members = |rooms: &Rooms<SessionKey>, room: &str| -> Vec<SessionKey> {
            rooms.find(NAMESPACE, room).map(|room| rooms.members(room).collect()).unwrap_or_default()
        };
        for room in &event.draft.except {
            for key in members(&self.rooms, room) {
                self.sessions[key].mark = self.mark;
            }
        }
        let shared = LocalDelivery::new(Arc::new(Delivery::new(event.clone())));
        for room in &event.draft.rooms {
            for key in members(&self.rooms, room) {
                let Some(session) = self.sessions.get_mut(key) else { continue };
                if std::mem::replace(&mut session.mark, self.mark) == self.mark {
                    continue;
                }
                if session.replay.is_some() && !settings.live_overtakes {
                    continue;
                }
                if !event.draft.volatile {
                    (session.last, session.last_line) = (event.offset.position, event.offset.line);
                }
                let id = session.conn;
                let lines = self.lines_of(key);
                let Some(conn) = wires.get_mut(&id) else { continue };
                let mut place = match conn.kind {
                    Kind::PlainWs => self.position.only(self.partitions.of_all(&[room]).collect()),
                    _ => self.position.only(lines),
                };
                if settings.places_of_one_line {
                    place = place.only([event.offset.line].into_iter().collect());
                }
                match conn.kind {
                    Kind::PlainWs => conn.push_own(Down::Event(event.clone(), room.clone(), place.to_string())),
                    _ if self.partitions.is_one() => conn.outbox.push(Frame::Event(shared.clone())),
                    _ => conn.outbox.push(Frame::placed(event.clone(), &place)),
                }
                if conn.is_over(settings.outbox_bytes) {
                    conn.flush();
                    if conn.is_over(settings.outbox_bytes) {
                        conn.forget_queue();
                        self.close(conn, settings, now);
                    }
                }
            }
        }
    }

    /// A connection ends; its session may be resumed.
    pub(crate) fn close(&mut self, conn: &mut Conn, settings: &Settings, now: u64) {
        conn.closing = true;
        if let Some(key) = conn.session.take() {
            self.dismiss(key, settings, now);
        }
    }

    /// As the shard ends a session.
    pub(crate) fn dismiss(&mut self, key: SessionKey, settings: &Settings, now: u64) {
        let Some(session) = self.sessions.remove(key) else { return };
        let parked = self.parked_now(&session, key);
        self.rooms.forget(key);
        let Some(pid) = session.pid else { return };
        if self.by_pid.get(&pid) == Some(&key) {
            self.by_pid.remove(&pid);
        }
        self.parked.park(pid, parked, None, Millis::new(now + settings.window_ms), settings.window_bytes);
    }

    /// What a resume of the session would need now.
    pub(crate) fn parked_now(&self, session: &Live, key: SessionKey) -> Parked {
        let is_known = !self.parks_ahead && session.last != UNPROVABLE;
        let behind = session.replay.as_ref().filter(|_| is_known);
        let behind = behind.and_then(|replay| replay.last_possible(&self.position));
        let (last_line, last) = behind.unwrap_or((session.last_line, session.last));
        Parked {
            id: session.id,
            namespace: NAMESPACE,
            identity: session.identity.clone(),
            rooms: self.rooms.of(key).cloned().collect(),
            provenances: self.rooms.memberships(key).map(|(room, by)| (room.clone(), by)).collect(),
            decided_on: None,
            changes: session.changes.clone(),
            start: session.start.clone(),
            last,
            last_line,
            at: self.position.only(session.lines),
            moves: session.moves,
        }
    }

    /// As a session starts.
    pub(crate) fn admit(&mut self, session: Live, rooms: &[Room]) -> SessionKey {
        let pid = session.pid;
        let key = self.sessions.insert(session);
        for room in rooms {
            self.rooms.join(key, NAMESPACE, room, Provenance::Rule);
            self.sessions[key].lines.insert(self.partitions.of(room));
        }
        let session = &mut self.sessions[key];
        if session.moves == 0 {
            session.start = session.start.only(session.lines);
        }
        if let Some(pid) = pid {
            self.by_pid.insert(pid, key);
        }
        key
    }

    /// As a resume finds the session on its own node.
    pub(crate) fn take(&mut self, pid: Id, wires: &mut Wires, settings: &Settings, now: u64) -> Option<Parked> {
        if let Some(key) = self.by_pid.get(&pid)
            && let Some(conn) = wires.get_mut(&self.sessions[*key].conn)
        {
            self.close(conn, settings, now);
        }
        self.parked.take(pid, Millis::new(now))
    }

    /// As a new session is made.
    pub(crate) fn newcomer(&self, id: Id, pid: Option<Id>, conn: u64, identity: Arc<Identity>) -> Live {
        let (start, last, unanswered) = (self.position.clone(), Position::default(), Vec::new());
        Live {
            id,
            pid,
            conn,
            start,
            last,
            last_line: Line::CONTROL,
            lines: LineSet::default(),
            mark: 0,
            moves: 0,
            changes: Changes::default(),
            identity,
            replay: None,
            unanswered,
            written_ms: 0,
        }
    }
}

/// The user of a client.
pub(crate) fn identity(client: usize) -> Arc<Identity> {
    let user = UserId::from_claim(Some(&serde_json::Value::from(format!("c{client}")))).ok();
    Arc::new(Identity { user, ..Identity::anonymous() })
}
