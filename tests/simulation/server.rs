//! What a server does with the packets of its clients.

use crate::judged::Judged;
use crate::node::NAMESPACE;
use crate::oracle::Who;
use crate::shard::identity;
use crate::wire::{Down, Kind, Up, Work};
use crate::world::{World, room};
use base64::Engine as _;
use rand::RngExt as _;
use roomcast::log::shared_window::SharedWindow;
use roomcast::log::window::{Gap, RecentLog as _};
use roomcast::model::id::Id;
use roomcast::model::names::Room;
use roomcast::model::offset::Offset;
use roomcast::model::place::Place;
use roomcast::session::parked::UNPROVABLE;
use roomcast::session::recovery;
use roomcast::session::recovery::Asked;
use roomcast::session::replay::{Replay, Step};

/// How long a packet waits for its shard to catch up.
pub(crate) const CATCH_UP: u64 = 500;
/// How long a shard may take to come to where the log was read again.
const MAX_BEHIND: u64 = 5_000;

impl World {
    pub(crate) fn fresh_id(&mut self) -> Id {
        let bytes: [u8; 15] = self.rng.random();
        Id::parse(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)).expect("15 bytes are an id")
    }

    /// The server handles the next packet of a connection.
    pub(crate) fn serve(&mut self, id: u64) {
        let Some(conn) = self.wires.get_mut(&id).filter(|conn| !conn.closing) else { return };
        let (node, shard) = (conn.node, conn.shard);
        if !self.nodes[node].shards[shard].position.has_begun() {
            return;
        }
        match (conn.work.take(), conn.kind) {
            (Some(work), _) => self.proceed(id, work),
            (None, kind) => {
                let Some(packet) = conn.up.pop_front() else { return };
                match packet {
                    Up::Connect { ref offset, .. } if kind != Kind::PlainWs && offset.is_some() => {
                        self.catch_up(id, packet)
                    }
                    Up::Join { since: Some(_), .. } => self.catch_up(id, packet),
                    packet => self.proceed(id, Work::Enter { packet }),
                }
            }
        }
    }

    fn catch_up(&mut self, id: u64, packet: Up) {
        let until = self.now + CATCH_UP;
        self.proceed(id, Work::CatchUp { until, packet });
    }

    pub(crate) fn proceed(&mut self, id: u64, work: Work) {
        match work {
            Work::CatchUp { until, packet } => {
                let text = match &packet {
                    Up::Connect { offset, .. } => offset.clone(),
                    Up::Join { since, .. } => since.clone(),
                    Up::Leave { .. } => None,
                };
                let place = text.and_then(|text| Place::parse(&text));
                let reached = place.as_ref().is_none_or(|place| self.has_reached(id, place));
                if !reached && self.now < until && !self.rules.ignore_future {
                    return self.wait(id, Work::CatchUp { until, packet });
                }
                let rooms = match &packet {
                    Up::Connect { rooms, .. } if self.wires[&id].kind == Kind::Sse => rooms.clone(),
                    Up::Join { room, .. } => vec![room.clone()],
                    _ => return self.proceed(id, Work::Enter { packet }),
                };
                let asked = |window: &SharedWindow, here: &Place| match &place {
                    Some(after) => Asked::to_join(window, here, "/", after, &rooms),
                    None => Asked::default(),
                };
                let reach = self.fetch(id, asked);
                self.proceed(id, Work::Fetched { until: self.now + MAX_BEHIND, reach, packet });
            }
            Work::Fetched { until, reach, packet } => {
                if self.has_reached(id, &reach) || self.now >= until || self.rules.lives_early {
                    return self.proceed(id, Work::Enter { packet });
                }
                self.wait(id, Work::Fetched { until, reach, packet });
            }
            Work::Enter { packet } => {
                let rooms = match &packet {
                    Up::Connect { rooms, .. } if self.wires[&id].kind == Kind::Sse => rooms.clone(),
                    Up::Connect { .. } => Vec::new(),
                    Up::Join { room, .. } => vec![room.clone()],
                    Up::Leave { .. } => Vec::new(),
                };
                if self.has_passed(id, &rooms) || self.rules.joins_early {
                    return self.carry_out(id, packet);
                }
                self.wait(id, Work::Enter { packet });
            }
            Work::Begin => {
                if !self.has_passed(id, &self.first_rooms(id)) && !self.rules.joins_early {
                    return self.wait(id, Work::Begin);
                }
                self.admit_newcomer(id);
            }
            Work::Take { asked, pid, offset } => self.take(id, asked, pid, offset),
            Work::Resume { until, reach, after, pid, parked, fetched } => {
                let goes_on = self.rules.ignore_future || fetched && self.rules.lives_early;
                let is_there = self.has_reached(id, &reach) && (fetched || self.has_reached(id, &parked.at));
                if !is_there && self.now < until && !goes_on {
                    return self.wait(id, Work::Resume { until, reach, after, pid, parked, fetched });
                }
                if fetched {
                    return self.resume(id, &after, pid, *parked);
                }
                let reach = self.fetch(id, |window, here| Asked::to_take_up(&parked, window, here, "/", &after));
                let until = self.now + MAX_BEHIND;
                self.proceed(id, Work::Resume { until, reach, after, pid, parked, fetched: true });
            }
        }
    }

    /// As the log is read again for what a session asks for. Answers where its shard has to be then.
    fn fetch(&mut self, id: u64, ask: impl Fn(&SharedWindow, &Place) -> Asked) -> Place {
        let at = self.wires[&id].node;
        for _ in 0..4 {
            let here = self.here(id);
            let window = &self.nodes[at].window;
            let Asked { rooms, missing } = ask(window, &here);
            rooms.iter().for_each(|room| window.interest().touch(NAMESPACE, room));
            if missing.is_empty() {
                continue;
            }
            // The pass comes to nothing, or to an early end.
            if self.chance(10) {
                break;
            }
            self.note(|| format!("{id} waits for {missing:?}"));
            for (line, needs) in missing {
                let max = if self.chance(50) { self.rng.random_range(0..8) } else { usize::MAX };
                let log = (line, &self.logs[line.index()]);
                self.nodes[at].read_past(log, &needs, max, self.now, (&self.settings, self.rules));
            }
        }
        let window = &self.nodes[at].window;
        let mut reach = Place::default();
        for line in self.settings.partitions.lines() {
            reach.set(Offset { position: window.filled_up_to(line), line, ..window.head_of(line) });
        }
        reach
    }

    /// Whether the shard has passed what was left out of these rooms before they were wanted, which they are from now on.
    fn has_passed(&self, id: u64, rooms: &[Room]) -> bool {
        let (here, window) = (self.here(id), &self.nodes[self.wires[&id].node].window);
        rooms.iter().for_each(|room| window.interest().touch(NAMESPACE, room));
        self.settings.partitions.of_all(rooms).all(|line| {
            let since = window.interest().since(line, "/", rooms);
            let since = since.map(|since| since.max(window.filled_up_to(line)));
            let is_passed = |here: Offset, since| here.epoch == window.head_of(line).epoch && since <= here.position;
            here.on(line).zip(since).is_none_or(|(here, since)| is_passed(here, since))
        })
    }

    fn has_reached(&self, id: u64, place: &Place) -> bool {
        let here = self.here(id);
        let is_there = |there: Offset| {
            here.on(there.line).is_none_or(|here| here.epoch != there.epoch || here.position >= there.position)
        };
        place.offsets().all(is_there)
    }

    pub(crate) fn wait(&mut self, id: u64, work: Work) {
        if let Some(conn) = self.wires.get_mut(&id) {
            conn.work = Some(work);
        }
    }

    pub(crate) fn here(&self, id: u64) -> Place {
        let conn = &self.wires[&id];
        self.nodes[conn.node].shards[conn.shard].position.clone()
    }

    fn carry_out(&mut self, id: u64, packet: Up) {
        let kind = self.wires[&id].kind;
        match (packet, kind) {
            (Up::Connect { pid: Some(pid), offset, .. }, Kind::SocketIo) => {
                match offset.map(|text| Place::parse(&text)) {
                    Some(None) => self.begin_session(id),
                    offset => self.take(id, 0, pid, offset.flatten()),
                }
            }
            (Up::Connect { .. }, Kind::SocketIo | Kind::PlainWs) => self.begin_session(id),
            (Up::Connect { offset, rooms, .. }, Kind::Sse) => self.begin_sse(id, offset, &rooms),
            (Up::Join { room, since }, Kind::PlainWs) => self.join_json(id, &room, since.as_deref()),
            (Up::Join { room, .. }, _) => self.change_rooms(id, &room, true),
            (Up::Leave { room }, _) => self.change_rooms(id, &room, false),
        }
    }

    fn first_rooms(&self, id: u64) -> Vec<Room> {
        let conn = &self.wires[&id];
        let own = || vec![format!("u{}", conn.client).into(), room(conn.client % 5)];
        if conn.kind == Kind::SocketIo { own() } else { Vec::new() }
    }

    /// As a session begins or is resumed.
    pub(crate) fn begin_session(&mut self, id: u64) {
        self.proceed(id, Work::Begin);
    }

    fn admit_newcomer(&mut self, id: u64) {
        let (sid, pid) = (self.fresh_id(), self.fresh_id());
        let rooms = self.first_rooms(id);
        let conn = self.wires.get_mut(&id).expect("it is served");
        let pid = (conn.kind == Kind::SocketIo).then_some(pid);
        let node = &mut self.nodes[conn.node];
        let shard = &mut node.shards[conn.shard];
        let session = shard.newcomer(sid, pid, id, identity(conn.client));
        let start = session.start.clone();
        conn.session = Some(shard.admit(session, &rooms));
        node.unwritten.extend(pid);
        conn.push_own(Down::Connected { sid, pid, start, rooms });
    }

    /// As a flush tops an outbox up with what its session has still to get.
    pub(crate) fn top_up(&mut self, id: u64) {
        let Some(conn) = self.wires.get_mut(&id) else { return };
        let Some(key) = conn.session.filter(|_| !conn.closing && conn.outbox.bytes() < self.settings.slice.bytes)
        else {
            return;
        };
        let node = &mut self.nodes[conn.node];
        let shard = &mut node.shards[conn.shard];
        let Some(replay) = &mut shard.sessions[key].replay else { return };
        let judged = Judged {
            replays_never_wait: self.rules.replays_never_wait,
            replays_have_no_clock: self.rules.replays_have_no_clock,
            ..Judged::of(&node.window)
        };
        let step = replay.step(&judged, &shard.position, "/", self.settings.slice);
        let is_over = replay.is_over(&shard.position);
        let places = |room: &Room| replay.place_of(room, &shard.position);
        match step {
            Step::Events(missed) => {
                if let Some(last) = missed.last() {
                    let offset = last.event.offset;
                    let session = &mut shard.sessions[key];
                    if session.last != UNPROVABLE {
                        (session.last, session.last_line) = (offset.position, offset.line);
                    }
                }
                conn.queue_missed(missed);
            }
            Step::Lost { room, up_to, .. } => match conn.kind {
                Kind::SocketIo => {
                    conn.forget_queue();
                    return shard.close(conn, &self.settings, self.now);
                }
                Kind::PlainWs => {
                    let partitions = self.settings.partitions;
                    let is_lost = |of: &&Room| room.is_none() && partitions.may_bring(up_to.line, of);
                    let all: Vec<Room> = shard.rooms.of(key).filter(is_lost).cloned().collect();
                    for room in room.iter().cloned().chain(all) {
                        let mut at = places(&room);
                        at.set(up_to);
                        conn.push_own(Down::Gap(Some(room), at));
                    }
                }
                Kind::Sse => conn.push_own(Down::Gap(None, shard.resume_point(key))),
            },
            Step::Reset => return,
        }
        if is_over {
            shard.sessions[key].replay = None;
        }
    }

    /// From where a replay begins.
    fn provable(&self, id: u64, after: Place, rooms: &[Room]) -> Result<Place, Gap> {
        let (here, window) = (self.here(id), &self.nodes[self.wires[&id].node].window);
        let lines = self.settings.partitions.of_all(rooms).collect();
        let judged = Judged { lives_early: self.rules.lives_early, ..Judged::of(window) };
        match recovery::provable(&judged, &here, &after, "/", rooms) {
            Ok(()) => Ok(after.only(lines)),
            Err(Gap::TooOld) if self.rules.ignore_floor => {
                let mut floor = Place::default();
                here.only(lines).offsets().for_each(|at| floor.set(window.write(at.line).floor()));
                Ok(floor)
            }
            Err(Gap::Future) if self.rules.ignore_future => Ok(here.only(lines)),
            Err(gap) => Err(gap),
        }
    }

    /// As `/ws` joins a room.
    fn join_json(&mut self, id: u64, room: &Room, since: Option<&str>) {
        let Some(key) = self.wires[&id].session else { return };
        let here = self.here(id);
        let of_room = here.only(self.settings.partitions.of_all(std::slice::from_ref(room)).collect());
        let conn = &self.wires[&id];
        let shard = &self.nodes[conn.node].shards[conn.shard];
        let inside = shard.rooms.contains(key, NAMESPACE, room);
        let up_to = inside.then(|| shard.sessions[key].start.only(of_room.lines()));
        let missed = since.map(|since| match Place::parse(since) {
            None => Err(()),
            Some(after) if up_to.as_ref().is_some_and(|up_to| after.is_at_least(up_to)) => Ok(None),
            Some(after) => self.provable(id, after, std::slice::from_ref(room)).map(Some).map_err(|_| ()),
        });
        let recovered = missed.as_ref().map(Result::is_ok);
        let offset = match (recovered, since) {
            (Some(true), Some(since)) => since.to_owned(),
            _ => of_room.to_string(),
        };
        let conn = self.wires.get_mut(&id).expect("it is served");
        let shard = &mut self.nodes[conn.node].shards[conn.shard];
        shard.change(key, room, true);
        if !inside && !self.rules.leaves_softly {
            shard.forget_past(key, room);
        }
        if let Some(Ok(Some(after))) = &missed {
            let rooms: Vec<_> = shard.rooms.of(key).cloned().collect();
            let own = here.only(shard.sessions[key].lines);
            let session = &mut shard.sessions[key];
            let partitions = self.settings.partitions;
            let live = || Replay::of_rooms(&session.id, &rooms, partitions, &own, &own).by_room();
            let replay = session.replay.get_or_insert_with(live);
            replay.add_past(room, after, up_to.as_ref().unwrap_or(&of_room));
        }
        conn.push_own(Down::Joined { change: 0, room: room.clone(), after: here, offset, recovered });
        self.top_up(id);
    }

    /// As an SSE stream begins.
    fn begin_sse(&mut self, id: u64, since: Option<String>, rooms: &[Room]) {
        let sid = self.fresh_id();
        let here = self.here(id).only(self.settings.partitions.of_all(rooms).collect());
        let missed = since.map(|since| match Place::parse(&since) {
            Some(after) => self.provable(id, after, rooms).map_err(|_| ()),
            None => Err(()),
        });
        let conn = self.wires.get_mut(&id).expect("it is served");
        let shard = &mut self.nodes[conn.node].shards[conn.shard];
        let session = shard.newcomer(sid, None, id, identity(conn.client));
        conn.session = Some(shard.admit(session, rooms));
        conn.push_own(Down::Connected { sid, pid: None, start: here.clone(), rooms: rooms.to_vec() });
        match missed {
            None => conn.push_own(Down::Position(here)),
            Some(Err(())) => conn.push_own(Down::Gap(None, here)),
            Some(Ok(after)) => {
                let replay = Replay::of_rooms(&sid, rooms, self.settings.partitions, &after, &here);
                if let Some(key) = conn.session {
                    shard.sessions[key].replay = Some(replay);
                }
            }
        }
        self.top_up(id);
    }

    /// A rule joins or leaves a room, or `/ws` leaves one.
    fn change_rooms(&mut self, id: u64, room: &Room, join: bool) {
        let Some(key) = self.wires[&id].session else { return };
        let here = self.here(id);
        let change = self.next_serial();
        let conn = self.wires.get_mut(&id).expect("it is served");
        let node = &mut self.nodes[conn.node];
        let shard = &mut node.shards[conn.shard];
        shard.change(key, room, join);
        if conn.kind == Kind::PlainWs {
            if !self.rules.leaves_softly {
                shard.forget_past(key, room);
            }
            return;
        }
        let session = &mut shard.sessions[key];
        let answer = match join {
            true => {
                let (room, after, offset) = (room.clone(), here.clone(), here.to_string());
                Down::Joined { change, room, after, offset, recovered: None }
            }
            false => Down::Left { change },
        };
        node.unwritten.extend(session.pid);
        match self.rules.answer_before_record {
            true => conn.push_own(answer),
            false => session.unanswered.push(answer),
        }
        let (who, sid): (Who, _) = ((conn.client, None), session.id);
        self.oracle.change(&who, Some(sid), Some(change), &here, room, join);
        self.note(|| format!("{sid} {} {room} after {}", if join { "joins" } else { "leaves" }, here));
    }

    pub(crate) fn notice_any(&mut self) {
        if let Some(id) = self.any_wire(|conn| conn.closing || !conn.client_open) {
            self.notice(id);
        }
    }

    /// The server notices that a connection is gone, or finishes one that it closed.
    pub(crate) fn notice(&mut self, id: u64) {
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
