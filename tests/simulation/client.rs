//! Clients as they exist: the stock Socket.IO client, `/ws` with `since` for each room, EventSource.

use crate::oracle::{Fact, Who};
use crate::wire::{Conn, Down, Kind, Up};
use crate::world::{World, room};
use rand::RngExt as _;
use rand::rngs::StdRng;
use roomcast::model::event::Event;
use roomcast::model::id::Id;
use roomcast::model::names::Room;
use roomcast::model::place::Place;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) struct Client {
    pub kind: Kind,
    pub conn: Option<u64>,
    /// The session of the open connection.
    pub session: Option<Id>,
    pid: Option<Id>,
    /// Socket.IO: the last trailing string of any event. SSE: the last event id.
    offset: Option<String>,
    /// Socket.IO: received before the CONNECT reply.
    buffer: Vec<(Arc<Event>, String)>,
    /// The rooms that it wants; for `/ws` with the offset to resume from.
    rooms: BTreeMap<Room, Option<String>>,
    /// `/ws`: rooms whose join was answered on this connection.
    joined: Vec<Room>,
    /// `/ws`: joins without an answer on this connection. Only the last answer says where the client is in the room now: it may
    /// have left between two of them.
    unanswered: BTreeMap<Room, usize>,
    /// `/ws`: rooms that it joined anew on this connection, some with the offset of a publish, which is then the start of what
    /// it is to get.
    anew: BTreeMap<Room, Option<Place>>,
}

impl Client {
    pub(crate) fn new(number: usize, rng: &mut StdRng) -> Self {
        let kind = [Kind::SocketIo, Kind::SocketIo, Kind::PlainWs, Kind::Sse][rng.random_range(0..4)];
        let mut rooms = BTreeMap::new();
        if kind == Kind::Sse {
            rooms.insert(format!("u{number}").into(), None);
            (0..rng.random_range(1..3)).for_each(|_| drop(rooms.insert(room(rng.random_range(0..5)), None)));
        }
        let (conn, session, pid, offset, buffer, joined) = (None, None, None, None, Vec::new(), Vec::new());
        let (unanswered, anew) = (BTreeMap::new(), BTreeMap::new());
        Self { kind, conn, session, pid, offset, buffer, rooms, joined, unanswered, anew }
    }

    fn gone(&mut self, forget_buffer: bool) {
        (self.conn, self.session) = (None, None);
        self.joined.clear();
        self.unanswered.clear();
        self.anew.clear();
        if forget_buffer {
            self.buffer.clear();
        }
    }
}

impl World {
    /// One client does something, or receives something.
    pub(crate) fn client_acts(&mut self) {
        let client = self.rng.random_range(0..self.clients.len());
        let Some(conn) = self.clients[client].conn else { return self.connect_if_gone(client) };
        match self.rng.random_range(0..100) {
            0..65 => (0..self.rng.random_range(1..6)).for_each(|_| self.receive(conn)),
            65..74 => self.break_off(client, conn),
            74..87 => self.join_some(client, conn),
            _ => self.leave_some(client, conn),
        }
    }

    pub(crate) fn connect_if_gone(&mut self, client: usize) {
        if self.clients[client].conn.is_some() {
            return;
        }
        let Some(node) = self.any_up() else { return };
        // The server may see two handshakes: the client has given up one of them and waits for the other.
        let copies = if self.chance(self.settings.habits.twice) { 2 } else { 1 };
        let real = self.rng.random_range(0..copies);
        for copy in 0..copies {
            let id = self.next_serial();
            let (shard, size) =
                (self.rng.random_range(0..2), self.rng.random_range(1..self.settings.habits.room_on_wire));
            let who = &mut self.clients[client];
            let rooms = who.rooms.keys().cloned().collect();
            let mut conn = Conn::new(client, who.kind, node, shard, size);
            conn.up.push_back(Up::Connect { pid: who.pid, offset: who.offset.clone(), rooms });
            conn.client_open = copy == real;
            if copy == real {
                who.conn = Some(id);
            }
            self.wires.insert(id, conn);
            let who = &self.clients[client];
            let (kind, offset, open) = (who.kind, who.offset.clone(), copy == real);
            self.note(|| format!("client {client} {kind:?} connects ({id}, {open}) to {node}.{shard} with {offset:?}"));
        }
    }

    /// The connection breaks at the client: what was on the way to it is lost, and some of what was on the way to the
    /// server arrives, perhaps much later.
    fn break_off(&mut self, client: usize, id: u64) {
        self.note(|| format!("client {client} loses {id}"));
        self.cut_at_client(id);
    }

    pub(crate) fn cut_at_client(&mut self, id: u64) {
        let Some(conn) = self.wires.get_mut(&id) else { return };
        let arrive = self.rng.random_range(0..=conn.up.len());
        conn.up.truncate(arrive);
        conn.client_open = false;
        if self.settings.habits.long_replays {
            conn.room_on_wire = 0;
        }
        let client = &mut self.clients[conn.client];
        if client.conn == Some(id) {
            client.gone(!self.rules.stock_buffer);
        }
    }

    fn join_some(&mut self, client: usize, id: u64) {
        let chosen = room(self.rng.random_range(0..5));
        self.join(client, id, chosen);
    }

    fn join(&mut self, client: usize, id: u64, chosen: Room) {
        let who = &mut self.clients[client];
        if who.session.is_none()
            || who.kind == Kind::Sse
            || who.rooms.contains_key(&chosen) && who.kind == Kind::PlainWs
        {
            return;
        }
        let mut since = None;
        if who.kind == Kind::PlainWs {
            who.rooms.insert(chosen.clone(), None);
            let is_new = !who.anew.contains_key(&chosen);
            let (text, start) = if is_new { self.answer_of_a_publish().unzip() } else { (None, None) };
            self.note(|| format!("client {client} is to join {chosen} since {text:?}"));
            since = text;
            self.clients[client].anew.insert(chosen.clone(), start);
        }
        self.oracle.asks(client, &chosen);
        self.send_join(client, id, chosen, since);
    }

    fn send_join(&mut self, client: usize, id: u64, room: Room, since: Option<String>) {
        *self.clients[client].unanswered.entry(room.clone()).or_default() += 1;
        self.send(id, Up::Join { room, since });
    }

    fn leave_some(&mut self, client: usize, id: u64) {
        let chosen = room(self.rng.random_range(0..5));
        let who = &mut self.clients[client];
        if who.session.is_none() || who.kind == Kind::Sse {
            return;
        }
        if who.kind == Kind::PlainWs {
            who.rooms.remove(&chosen);
            who.joined.retain(|room| *room != chosen);
            self.oracle.forget(&(client, Some(chosen.clone())));
        }
        self.send(id, Up::Leave { room: chosen.clone() });
        if self.chance(300) {
            self.join(client, id, chosen);
        }
    }

    fn send(&mut self, id: u64, packet: Up) {
        if let Some(conn) = self.wires.get_mut(&id) {
            conn.up.push_back(packet);
        }
    }

    /// The client receives the next packet of its connection.
    pub(crate) fn receive(&mut self, id: u64) {
        let Some(conn) = self.wires.get_mut(&id) else { return };
        let Some(packet) = conn.down.pop_front() else {
            if conn.closing && conn.client_open && conn.outbox.is_empty() {
                self.cut_at_client(id);
            }
            return;
        };
        let (client, open) = (conn.client, conn.client_open);
        if !open || self.clients[client].conn != Some(id) {
            return;
        }
        match packet {
            Down::Event(event, room, place) => self.receive_event(client, &event, &room, place),
            Down::Connected { sid, pid, start, rooms } => self.receive_connected(client, id, sid, pid, start, &rooms),
            Down::Joined { change, room, after, offset, recovered } => {
                self.note(|| format!("client {client} has joined {room} after {after}, recovered {recovered:?}"));
                match self.clients[client].kind {
                    Kind::PlainWs => self.receive_joined(client, &room, after, offset, recovered),
                    _ => self.oracle.answered(&(client, None), change),
                }
            }
            Down::Left { change } => self.oracle.answered(&(client, None), change),
            Down::Gap(room, at) => self.receive_gap(client, room, at),
            Down::Position(at) => {
                self.clients[client].offset = Some(at.to_string());
                self.begin_stream(client, &at);
            }
        }
    }

    fn receive_event(&mut self, client: usize, event: &Arc<Event>, room: &Room, place: String) {
        let who = &mut self.clients[client];
        match who.kind {
            Kind::SocketIo if who.session.is_none() => return who.buffer.push((event.clone(), place)),
            Kind::SocketIo if who.pid.is_none() => {}
            Kind::SocketIo | Kind::Sse => who.offset = Some(place.clone()),
            Kind::PlainWs if who.joined.contains(room) => {
                who.rooms.insert(room.clone(), Some(place.clone()));
            }
            Kind::PlainWs => {}
        }
        self.note(|| format!("client {client} gets {} of {room}: {place}", event.draft.event));
        self.check(client, event, room);
    }

    fn check(&mut self, client: usize, event: &Event, room: &Room) {
        let serial: u64 = event.draft.event.parse().expect("serials are names");
        let Some(fact) = self.facts.get(&serial) else { return };
        let fact = Fact::clone(fact);
        let conn = self.clients[client].conn.and_then(|conn| self.wires.get(&conn));
        let Some(node) = conn.map(|conn| self.nodes[conn.node].name) else { return };
        if self.clients[client].kind != Kind::PlainWs {
            return self.oracle.got(&(client, None), &fact, node);
        }
        self.oracle.got(&(client, Some(room.clone())), &fact, node);
        for other in fact.rooms.iter().filter(|other| *other != room) {
            self.oracle.got_elsewhere(&(client, Some(other.clone())), serial);
        }
    }

    fn receive_connected(&mut self, client: usize, id: u64, sid: Id, pid: Option<Id>, start: Place, rooms: &[Room]) {
        let who = &mut self.clients[client];
        who.session = Some(sid);
        match who.kind {
            Kind::Sse => {}
            Kind::PlainWs => {
                let wanted: Vec<_> = who.rooms.iter().map(|(room, since)| (room.clone(), since.clone())).collect();
                wanted.into_iter().for_each(|(room, since)| self.send_join(client, id, room, since));
            }
            Kind::SocketIo => {
                let recovered = pid.is_some() && who.pid == pid;
                who.pid = pid;
                let buffered = std::mem::take(&mut who.buffer);
                self.note(|| format!("client {client} is connected, recovered {recovered}"));
                let who: Who = (client, None);
                match recovered {
                    true => self.oracle.recovered(&who, sid),
                    false => {
                        let settled = self.is_settled(&start);
                        self.oracle.notified(who.clone(), start.clone(), Some(sid), settled);
                        let named = self.clients[client].offset.as_deref().and_then(Place::parse);
                        named.into_iter().for_each(|named| self.oracle.names(&who, named));
                        let first = |room| self.oracle.change(&who, Some(sid), None, &start, room, true);
                        rooms.iter().for_each(first);
                    }
                }
                for (event, place) in buffered {
                    self.receive_event(client, &event, &event.draft.rooms[0].clone(), place);
                }
            }
        }
    }

    fn receive_joined(&mut self, client: usize, room: &Room, after: Place, offset: String, recovered: Option<bool>) {
        let who = &mut self.clients[client];
        let unanswered = who.unanswered.entry(room.clone()).or_default();
        *unanswered = unanswered.saturating_sub(1);
        if *unanswered > 0 || !who.rooms.contains_key(room) {
            return;
        }
        who.rooms.insert(room.clone(), Some(offset));
        who.joined.push(room.clone());
        let anew = who.anew.get_mut(room).and_then(Option::take);
        if recovered != Some(true) {
            self.begin_room(client, room, &after);
        } else if let Some(start) = anew {
            self.begin_room(client, room, &start);
        }
    }

    fn begin_room(&mut self, client: usize, room: &Room, at: &Place) {
        let who: Who = (client, Some(room.clone()));
        let settled = self.is_settled(at);
        self.oracle.notified(who.clone(), at.clone(), None, settled);
        self.oracle.change(&who, None, None, at, room, true);
    }

    fn begin_stream(&mut self, client: usize, at: &Place) {
        let who: Who = (client, None);
        let settled = self.is_settled(at);
        self.oracle.notified(who.clone(), at.clone(), None, settled);
        for room in self.clients[client].rooms.keys() {
            self.oracle.change(&who, None, None, at, room, true);
        }
    }

    fn receive_gap(&mut self, client: usize, room: Option<Room>, at: Place) {
        self.note(|| format!("client {client} is notified of a gap in {room:?} up to {at}"));
        match room {
            None => {
                self.clients[client].offset = Some(at.to_string());
                self.begin_stream(client, &at);
            }
            Some(room) if self.clients[client].joined.contains(&room) => {
                self.begin_room(client, &room, &at);
                self.oracle.began_with_gap(&(client, Some(room)));
            }
            Some(_) => {}
        }
    }
}
