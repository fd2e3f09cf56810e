//! What `client/` and `http/sse` do with a client's packets, and the store of sessions.

use crate::node::{Live, NAMESPACE};
use crate::oracle::Who;
use crate::wire::{Down, Kind, Up, Work};
use crate::world::World;
use base64::Engine as _;
use rand::Rng;
use roomcast::event::{Event, Offset, Position, Room};
use roomcast::id::Id;
use roomcast::log::window::Gap;
use roomcast::session::parked::Parked;
use roomcast::session::recovery::Place;
use std::collections::BTreeMap;
use std::sync::Arc;

/// `hub/shard.rs::CATCH_UP`.
const CATCH_UP: u64 = 500;

/// Records of sessions, written behind. The owner is the process that may write it.
pub type Store = BTreeMap<Id, Record>;

pub struct Record {
    owner: u32,
    parked: Parked,
    until: u64,
}

impl World {
    fn fresh_id(&mut self) -> Id {
        let bytes: [u8; 15] = self.rng.random();
        Id::parse(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)).expect("15 bytes are an id")
    }

    /// The server goes on with a connection's next packet.
    pub fn serve(&mut self, id: u64) {
        let Some(conn) = self.wires.get_mut(&id).filter(|conn| !conn.closing) else { return };
        let (node, shard) = (conn.node, conn.shard);
        if self.nodes[node].shards[shard].position == Offset::default() {
            return;
        }
        match (conn.work.take(), conn.kind) {
            (Some(work), _) => self.go_on(id, work),
            (None, kind) => {
                let Some(packet) = conn.up.pop_front() else { return };
                match packet {
                    Up::Connect { ref offset, .. } if kind != Kind::Json && offset.is_some() => {
                        self.catch_up(id, packet)
                    }
                    Up::Join { since: Some(_), .. } => self.catch_up(id, packet),
                    packet => self.carry_out(id, packet),
                }
            }
        }
    }

    fn catch_up(&mut self, id: u64, packet: Up) {
        let until = self.now + CATCH_UP;
        self.go_on(id, Work::CatchUp { until, packet });
    }

    fn go_on(&mut self, id: u64, work: Work) {
        match work {
            Work::CatchUp { until, packet } => {
                let text = match &packet {
                    Up::Connect { offset, .. } => offset.clone(),
                    Up::Join { since, .. } => since.clone(),
                    Up::Leave { .. } => None,
                };
                let here = self.here(id);
                let reached = text
                    .and_then(|text| Offset::parse(&text))
                    .is_none_or(|offset| here.epoch != offset.epoch || here.position >= offset.position);
                if reached || self.now >= until || self.rules.ignore_future {
                    return self.carry_out(id, packet);
                }
                self.wait(id, Work::CatchUp { until, packet });
            }
            Work::Take { asked, pid, offset } => self.take(id, asked, pid, offset),
        }
    }

    fn wait(&mut self, id: u64, work: Work) {
        if let Some(conn) = self.wires.get_mut(&id) {
            conn.work = Some(work);
        }
    }

    fn here(&self, id: u64) -> Offset {
        let conn = &self.wires[&id];
        self.nodes[conn.node].shards[conn.shard].position
    }

    fn carry_out(&mut self, id: u64, packet: Up) {
        let kind = self.wires[&id].kind;
        match (packet, kind) {
            (Up::Connect { pid: Some(pid), offset, .. }, Kind::SocketIo) => {
                match offset.map(|text| Offset::parse(&text)) {
                    Some(None) => self.begin_session(id),
                    offset => self.take(id, 0, pid, offset.flatten()),
                }
            }
            (Up::Connect { .. }, Kind::SocketIo | Kind::Json) => self.begin_session(id),
            (Up::Connect { offset, rooms, .. }, Kind::Sse) => self.begin_sse(id, offset, &rooms),
            (Up::Join { room, since }, Kind::Json) => self.join_json(id, &room, since.as_deref()),
            (Up::Join { room, .. }, _) => self.change_rooms(id, &room, true),
            (Up::Leave { room }, _) => self.change_rooms(id, &room, false),
        }
    }

    fn first_rooms(&self, id: u64) -> Vec<Room> {
        let conn = &self.wires[&id];
        if conn.kind == Kind::SocketIo { vec![format!("u{}", conn.client).into()] } else { Vec::new() }
    }

    /// `client/socketio.rs::begin_session`, `client/json.rs::authenticate`.
    fn begin_session(&mut self, id: u64) {
        let (sid, pid) = (self.fresh_id(), self.fresh_id());
        let rooms = self.first_rooms(id);
        let conn = self.wires.get_mut(&id).expect("it is served");
        let pid = (conn.kind == Kind::SocketIo).then_some(pid);
        let node = &mut self.nodes[conn.node];
        let shard = &mut node.shards[conn.shard];
        let session = shard.newcomer(sid, pid, id);
        let start = session.start;
        conn.session = Some(shard.admit(session, &rooms));
        node.unwritten.extend(pid);
        conn.push_word(Down::Connected { sid, pid, start, rooms });
    }

    /// `client/resume.rs::take`, one shard at a time, then the store.
    fn take(&mut self, id: u64, asked: usize, pid: Id, offset: Option<Offset>) {
        let conn = &self.wires[&id];
        let (node, shard) = (conn.node, conn.shard);
        let mine = self.nodes[node].name;
        let found = match asked {
            0 | 1 => {
                let shard = &mut self.nodes[node].shards[if asked == 0 { shard } else { 1 - shard }];
                let found = shard.take(pid, &mut self.wires, &self.settings, self.now);
                // One that went on elsewhere meanwhile is not what it was here.
                found.filter(|_| self.store.get(&pid).is_none_or(|record| record.owner == mine))
            }
            _ => self.take_from_store(pid, mine),
        };
        match found {
            Some(parked) => self.resume(id, pid, parked, offset),
            None if asked < 2 => self.wait(id, Work::Take { asked: asked + 1, pid, offset }),
            None => self.begin_session(id),
        }
    }

    fn take_from_store(&mut self, pid: Id, mine: u32) -> Option<Parked> {
        let record = self.store.get_mut(&pid).filter(|record| record.until > self.now)?;
        let owner = record.owner;
        let parked = record.parked.clone();
        record.owner = mine;
        let lives = self.nodes.iter().position(|node| node.up && node.name == owner && owner != mine);
        // Now and then a node that lives is taken for dead: then its record is all there is.
        let taken_for_dead = self.rng.random_range(0..20) == 0;
        match lives.filter(|_| !taken_for_dead) {
            None => Some(parked),
            Some(other) => {
                let shards = self.nodes[other].shards.iter_mut();
                let mut shards = shards.map(|shard| shard.take(pid, &mut self.wires, &self.settings, self.now));
                shards.find_map(|found| found)
            }
        }
    }

    /// The end of `client/resume.rs::attempt`, then `continue_session`.
    fn resume(&mut self, id: u64, pid: Id, parked: Parked, offset: Option<Offset>) {
        let after = parked.resume_from(offset);
        let missed = self.missed(id, after, None, &parked.rooms, &parked.id);
        let here = self.here(id);
        let rooms = &parked.rooms;
        self.note(|| format!("resume on {id} from {after} (client {offset:?}) at {here} in {rooms:?}: {missed:?}"));
        let Ok(missed) = missed else { return self.begin_session(id) };
        let conn = self.wires.get_mut(&id).expect("it is served");
        let node = &mut self.nodes[conn.node];
        let shard = &mut node.shards[conn.shard];
        let (start, rooms) = (parked.start, parked.rooms);
        let last = missed.last().map_or(parked.last, |event| event.offset.position);
        let session = Live { start, last, ..shard.newcomer(parked.id, Some(pid), id) };
        conn.session = Some(shard.admit(session, &rooms));
        node.unwritten.insert(pid);
        conn.replay(missed, None);
        conn.push_word(Down::Connected { sid: parked.id, pid: Some(pid), start, rooms });
    }

    fn missed(
        &self,
        id: u64,
        after: Offset,
        up_to: Option<Position>,
        rooms: &[Room],
        own: &Id,
    ) -> Result<Vec<Arc<Event>>, Gap> {
        let (here, window) = (self.here(id), &self.nodes[self.wires[&id].node].window);
        let result = Place { here, namespace: "/", rooms, own }.missed(window, after, up_to);
        match result {
            Err(Gap::TooOld) if self.rules.ignore_floor => {
                Place { here, namespace: "/", rooms, own }.missed(window, window.floor(), up_to)
            }
            Err(Gap::Future) if self.rules.ignore_future => Ok(Vec::new()),
            result => result,
        }
    }

    /// `client/json.rs::join`.
    fn join_json(&mut self, id: u64, room: &Room, since: Option<&str>) {
        let Some(key) = self.wires[&id].session else { return };
        let here = self.here(id);
        let conn = &self.wires[&id];
        let shard = &self.nodes[conn.node].shards[conn.shard];
        let (own, inside) = (shard.sessions[key].id, shard.rooms.contains(key, NAMESPACE, room));
        let up_to = inside.then(|| shard.sessions[key].start.position);
        let missed = since.map(|since| match Offset::parse(since) {
            _ if conn.is_replaying(self.settings.outbox_bytes) => Err(()),
            None => Err(()),
            Some(after) if up_to.is_some_and(|up_to| after.position >= up_to) => Ok(Vec::new()),
            Some(after) => self.missed(id, after, up_to, std::slice::from_ref(room), &own).map_err(|_| ()),
        });
        let recovered = missed.as_ref().map(Result::is_ok);
        let offset = match (recovered, since) {
            (Some(true), Some(since)) => since.to_owned(),
            _ => here.to_string(),
        };
        let conn = self.wires.get_mut(&id).expect("it is served");
        self.nodes[conn.node].shards[conn.shard].rooms.join(key, NAMESPACE, room);
        conn.push_word(Down::Joined { change: 0, room: room.clone(), after: here, offset, recovered });
        if let Some(Ok(missed)) = missed {
            conn.replay(missed, Some(room));
        }
    }

    /// `http/sse.rs::begin`.
    fn begin_sse(&mut self, id: u64, since: Option<String>, rooms: &[Room]) {
        let sid = self.fresh_id();
        let here = self.here(id);
        let missed = since.map(|since| match Offset::parse(&since) {
            Some(after) => self.missed(id, after, None, rooms, &sid).map_err(|_| ()),
            None => Err(()),
        });
        let conn = self.wires.get_mut(&id).expect("it is served");
        let shard = &mut self.nodes[conn.node].shards[conn.shard];
        let session = shard.newcomer(sid, None, id);
        conn.session = Some(shard.admit(session, rooms));
        conn.push_word(Down::Connected { sid, pid: None, start: here, rooms: rooms.to_vec() });
        match missed {
            None => conn.push_word(Down::Place(here)),
            Some(Err(())) => conn.push_word(Down::Gap(None, here)),
            Some(Ok(missed)) => conn.replay(missed, None),
        }
    }

    /// A rule joins or leaves for the client, or `/ws` leaves.
    fn change_rooms(&mut self, id: u64, room: &Room, join: bool) {
        let Some(key) = self.wires[&id].session else { return };
        let here = self.here(id);
        let change = self.next_serial();
        let conn = self.wires.get_mut(&id).expect("it is served");
        let node = &mut self.nodes[conn.node];
        let shard = &mut node.shards[conn.shard];
        match join {
            true => shard.rooms.join(key, NAMESPACE, room),
            false => shard.rooms.leave(key, NAMESPACE, room),
        };
        if conn.kind == Kind::Json {
            return;
        }
        let session = &mut shard.sessions[key];
        let answer = match join {
            true => Down::Joined { change, room: room.clone(), after: here, offset: here.to_string(), recovered: None },
            false => Down::Left { change },
        };
        node.unwritten.extend(session.pid);
        match self.rules.answer_before_record {
            true => conn.push_word(answer),
            false => session.unanswered.push(answer),
        }
        let (who, sid): (Who, _) = ((conn.client, None), session.id);
        self.oracle.change(&who, Some(sid), Some(change), here.position, room, join);
        self.note(|| format!("{sid} {} {room} after {}", if join { "joins" } else { "leaves" }, here.position));
    }

    pub fn write_records_any(&mut self) {
        if let Some(node) = self.any_up() {
            self.write_records(node);
        }
    }

    /// Writes the records of sessions that changed, and those that were not written for a quarter of the window.
    pub fn write_records(&mut self, at: usize) {
        let (now, quarter) = (self.now, self.settings.window_ms / 4);
        let node = &mut self.nodes[at];
        if !node.up {
            return;
        }
        for shard in &node.shards {
            let old = shard.sessions.values().filter(|session| session.written_ms + quarter <= now);
            node.unwritten.extend(old.filter_map(|session| session.pid));
        }
        for pid in std::mem::take(&mut node.unwritten) {
            let owns = self.store.get(&pid).is_none_or(|record| record.owner == node.name);
            for shard in &mut node.shards {
                let Some(&key) = shard.by_pid.get(&pid) else { continue };
                let Some(conn) = self.wires.get_mut(&shard.sessions[key].conn) else { continue };
                if !owns {
                    // It went on elsewhere.
                    shard.close(conn, &self.settings, now);
                    shard.parked.take(pid, now, |_| true);
                    continue;
                }
                let parked = shard.parked_now(&shard.sessions[key], key);
                let session = &mut shard.sessions[key];
                session.written_ms = now;
                std::mem::take(&mut session.unanswered).into_iter().for_each(|answer| conn.push_word(answer));
                let until = now + self.settings.window_ms * 2;
                self.store.insert(pid, Record { owner: node.name, parked, until });
            }
        }
        self.note(|| format!("node {at} writes its records"));
    }

    pub fn notice_any(&mut self) {
        if let Some(id) = self.any_wire() {
            self.notice(id);
        }
    }

    /// The server sees that a connection is gone, or is done with one that it closed.
    pub fn notice(&mut self, id: u64) {
        let Some(mut conn) = self.wires.remove(&id) else { return };
        let over = conn.closing && conn.outbox.is_empty() && conn.down.is_empty();
        if conn.client_open && !over || !conn.client_open && !conn.closing && !conn.up.is_empty() {
            self.wires.insert(id, conn);
            return;
        }
        let shard = &mut self.nodes[conn.node].shards[conn.shard];
        if let Some(key) = conn.session.take() {
            let pid = shard.sessions[key].pid;
            shard.dismiss(key, &self.settings, self.now);
            self.nodes[conn.node].unwritten.extend(pid);
        }
        self.wires.insert(id, conn);
        self.cut_at_client(id);
        self.wires.remove(&id);
    }
}
