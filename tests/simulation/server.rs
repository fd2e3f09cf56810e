//! What a server does with the packets of its clients, and the store of session records.

use crate::node::{Live, NAMESPACE, identity};
use crate::oracle::Who;
use crate::wire::{Down, Kind, Up, Work};
use crate::world::World;
use base64::Engine as _;
use rand::RngExt as _;
use roomcast::log::shared_window::SharedWindow;
use roomcast::log::window::{Gap, Pulled, RecentLog, Slice};
use roomcast::model::command::SessionCommand;
use roomcast::model::event::Event;
use roomcast::model::id::Id;
use roomcast::model::millis::Millis;
use roomcast::model::names::Room;
use roomcast::model::offset::{Offset, Position};
use roomcast::model::partition::{Line, Partitions};
use roomcast::model::place::Place;
use roomcast::session::parked::Parked;
use roomcast::session::recovery;
use roomcast::session::recovery::{Asked, Lost};
use roomcast::session::replay::{Replay, Step};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a packet waits for its shard to catch up.
const CATCH_UP: u64 = 500;
/// How long a shard may take to come to where the log was read again.
const MAX_BEHIND: u64 = 5_000;

/// The records of one process, and the generation of the store in which it wrote all of them.
#[derive(Clone, Default)]
struct Hash {
    mark: Option<u64>,
    records: BTreeMap<Id, (u32, String)>,
}

/// The records of every process.
#[derive(Default)]
pub(crate) struct Store {
    hashes: BTreeMap<u32, Hash>,
    /// The records on the replica.
    replica: BTreeMap<u32, Hash>,
    life: u64,
}

/// The answer of the store to a search for a record.
enum Found {
    Nowhere,
    At(u32),
    Taken(Box<Parked>),
    Later,
}

/// Another node cannot be asked now: the client must connect again.
struct Unreachable;

impl Store {
    /// The replica is in sync.
    pub(crate) fn replicate(&mut self) {
        self.replica = self.hashes.clone();
    }

    /// The replica is promoted.
    pub(crate) fn fail_over(&mut self) {
        self.hashes = self.replica.clone();
        self.life += 1;
    }

    /// As in the heartbeat: whether all records of a node must be written anew.
    pub(crate) fn lost_records_of(&mut self, node: u32) -> bool {
        let hash = self.hashes.entry(node).or_default();
        let lost = hash.mark != Some(self.life);
        if lost {
            hash.records.clear();
        }
        lost
    }

    /// Of several records the one with the most moves is current, and the others are removed. `has_beaten`: a node that
    /// missed its heartbeat may return soon.
    fn find(
        &mut self,
        me: u32,
        pid: Id,
        is_gone: impl Fn(u32) -> bool,
        has_beaten: impl Fn(u32) -> bool,
        trust_all: bool,
    ) -> Found {
        let others = self.hashes.iter().filter(|(node, _)| **node != me);
        let mut all: Vec<_> = others.filter_map(|(node, hash)| Some((hash.records.get(&pid)?.0, *node))).collect();
        all.sort_by_key(|(moves, _)| *moves);
        let Some((_, node)) = all.pop() else { return Found::Nowhere };
        for (_, older) in all {
            self.hashes.get_mut(&older).and_then(|hash| hash.records.remove(&pid));
        }
        if !is_gone(node) {
            return Found::At(node);
        }
        let hash = self.hashes.get_mut(&node);
        let Some(hash) = hash.filter(|hash| trust_all || hash.mark == Some(self.life)) else {
            return if has_beaten(node) { Found::Later } else { Found::Nowhere };
        };
        let taken = hash.records.remove(&pid);
        taken
            .and_then(|(_, text)| Parked::from_record(&text, NAMESPACE))
            .map_or(Found::Nowhere, |parked| Found::Taken(Box::new(parked)))
    }
}

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

    fn proceed(&mut self, id: u64, work: Work) {
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

    fn wait(&mut self, id: u64, work: Work) {
        if let Some(conn) = self.wires.get_mut(&id) {
            conn.work = Some(work);
        }
    }

    fn here(&self, id: u64) -> Place {
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
        if conn.kind == Kind::SocketIo { vec![format!("u{}", conn.client).into()] } else { Vec::new() }
    }

    /// As a session begins or is resumed.
    fn begin_session(&mut self, id: u64) {
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

    /// As a resume searches for its session: one shard at a time, then the store.
    fn take(&mut self, id: u64, asked: usize, pid: Id, offset: Option<Place>) {
        let conn = &self.wires[&id];
        let (node, shard) = (conn.node, conn.shard);
        let found = match asked {
            0 | 1 => {
                let at = if asked == 0 { shard } else { 1 - shard };
                self.nodes[node].unwritten.insert(pid);
                self.nodes[node].shards[at].take(pid, &mut self.wires, &self.settings, self.now)
            }
            _ => match self.take_elsewhere(pid, node) {
                Ok(found) => found,
                Err(Unreachable) => return self.send_away(id),
            },
        };
        let found = match found {
            Some(parked) if asked < 2 && self.is_stale(id, pid, &parked) => match self.take_elsewhere(pid, node) {
                Ok(other) => {
                    self.nodes[node].stale.remove(&pid);
                    Some(other.filter(|other| other.moves > parked.moves).unwrap_or(parked))
                }
                Err(Unreachable) => {
                    let until = self.now + self.settings.window_ms;
                    self.nodes[node].shards[shard].parked.park(
                        pid,
                        parked,
                        None,
                        Millis::new(until),
                        self.settings.window_bytes,
                    );
                    return self.send_away(id);
                }
            },
            found => found,
        };
        match found {
            Some(parked) => {
                let Some(after) = parked.resume_from(offset.as_ref()) else { return self.begin_session(id) };
                let until = self.now + CATCH_UP;
                let (reach, parked) = (after.clone(), Box::new(parked));
                self.proceed(id, Work::Resume { until, reach, after, pid, parked, fetched: false });
            }
            None if asked < 2 => self.wait(id, Work::Take { asked: asked + 1, pid, offset }),
            None => self.begin_session(id),
        }
    }

    /// Whether another node may have had the session since. After a discontinuity of the log that does not matter.
    fn is_stale(&self, id: u64, pid: Id, parked: &Parked) -> bool {
        let node = &self.nodes[self.wires[&id].node];
        let stale = !node.linked || node.stale.contains(&pid);
        stale && parked.start.control().epoch == self.here(id).control().epoch
    }

    /// Closed as unreachable.
    fn send_away(&mut self, id: u64) {
        self.note(|| format!("{id} is to come again"));
        if let Some(conn) = self.wires.get_mut(&id) {
            conn.closing = true;
        }
    }

    /// As a resume takes a session from another node: the node hands it over, or its record is used if the node is gone.
    fn take_elsewhere(&mut self, pid: Id, me: usize) -> Result<Option<Parked>, Unreachable> {
        if !self.nodes[me].linked {
            return Err(Unreachable);
        }
        let mine = self.nodes[me].name;
        let mut suspects = Vec::new();
        for round in 0..4 {
            let lives = |node: u32| self.nodes.iter().any(|other| other.up && other.name == node);
            let listens = |node: u32| self.nodes.iter().any(|other| other.up && other.linked && other.name == node);
            let is_gone = |node| suspects.contains(&node) || !listens(node);
            let found = self.store.find(mine, pid, is_gone, lives, self.rules.trust_old_records);
            let node = match found {
                // Newer than its record, or being handed over: some node has the session, or none.
                Found::Nowhere if round == 0 => {
                    let others = self.nodes.iter().filter(|other| other.up && other.linked && other.name != mine);
                    let others: Vec<_> = others.map(|other| other.name).collect();
                    return Ok(others.into_iter().find_map(|node| self.ask(node, pid).flatten()));
                }
                Found::Nowhere => return Ok(None),
                Found::Later => return Err(Unreachable),
                Found::Taken(parked) => return Ok(Some(*parked)),
                Found::At(node) => node,
            };
            match self.ask(node, pid) {
                Some(Some(parked)) => return Ok(Some(parked)),
                Some(None) => {}
                None => suspects.push(node),
            }
        }
        Ok(None)
    }

    /// Asks a node for a session; `None` without an answer: messages may be lost, and a live node may count as dead.
    fn ask(&mut self, node: u32, pid: Id) -> Option<Option<Parked>> {
        let (asks, answers) = (!self.chance(self.rules.messages_lost), !self.chance(self.rules.messages_lost));
        let other = self.nodes.iter().position(|other| other.up && other.name == node).filter(|_| asks)?;
        let (wires, settings, now) = (&mut self.wires, &self.settings, self.now);
        let node = &mut self.nodes[other];
        node.unwritten.insert(pid);
        let taken = node.shards.iter_mut().find_map(|shard| shard.take(pid, wires, settings, now));
        if !answers && let Some(parked) = taken {
            // The node parks the session again when its answer was lost.
            let until = now + settings.window_ms;
            node.shards[0].parked.park(pid, parked, None, Millis::new(until), settings.window_bytes);
            return None;
        }
        answers.then(|| taken.and_then(|parked| Parked::from_record(&parked.to_record(), NAMESPACE)))
    }

    /// As a resume is completed and the session continues.
    fn resume(&mut self, id: u64, after: &Place, pid: Id, mut parked: Parked) {
        let here = self.here(id);
        let conn = &self.wires[&id];
        let window = Judged { lives_early: self.rules.lives_early, ..Judged::of(&self.nodes[conn.node].window) };
        let window = &window;
        let before = parked.clone();
        self.oracle.taken_up(before.at.control().position, &here);
        let mut missed = recovery::take_up(&mut parked, window, &here, "/", after);
        if matches!(missed, Err(Lost::Missed(Gap::TooOld))) && self.rules.ignore_floor {
            parked = before;
            let mut floor = Place::default();
            parked.at.offsets().for_each(|at| floor.set(window.window.write(at.line).floor()));
            missed = recovery::take_up(&mut parked, window, &here, "/", &floor);
        }
        let rooms = &parked.rooms;
        self.note(|| format!("resume on {id} from {after} at {here} in {rooms:?}: {}", describe(&missed)));
        let Ok(missed) = missed else { return self.begin_session(id) };
        let conn = self.wires.get_mut(&id).expect("it is served");
        let node = &mut self.nodes[conn.node];
        let shard = &mut node.shards[conn.shard];
        let (start, rooms, moves, lines) = (parked.start, parked.rooms, parked.moves + 1, parked.at.lines());
        let (last, last_line, changes) = (parked.last, parked.last_line, parked.changes);
        let newcomer = shard.newcomer(parked.id, Some(pid), id, identity(conn.client));
        let (first, replay) = (start.clone(), Some(missed));
        let session = Live { start, last, last_line, lines, moves, changes, replay, ..newcomer };
        conn.session = Some(shard.admit(session, &rooms));
        node.unwritten.insert(pid);
        self.top_up(id);
        self.push_own(id, Down::Connected { sid: parked.id, pid: Some(pid), start: first, rooms });
    }

    fn push_own(&mut self, id: u64, packet: Down) {
        if let Some(conn) = self.wires.get_mut(&id) {
            conn.push_own(packet);
        }
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
                    (session.last, session.last_line) = (offset.position, offset.line);
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
        if let Some(Ok(Some(after))) = &missed {
            let rooms: Vec<_> = shard.rooms.of(key).cloned().collect();
            let own = here.only(shard.sessions[key].lines);
            let session = &mut shard.sessions[key];
            let partitions = self.settings.partitions;
            let live = || Replay::of_rooms(&session.id, &rooms, partitions, &own, &own);
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

    pub(crate) fn write_records_any(&mut self) {
        if let Some(node) = self.any_up() {
            self.write_records(node);
        }
    }

    /// Writes the records of sessions that changed, or were not written for a fifth of the window.
    pub(crate) fn write_records(&mut self, at: usize) {
        let (now, quarter) = (self.now, self.settings.window_ms / 5);
        let node = &mut self.nodes[at];
        if !node.up || !node.linked {
            return;
        }
        for shard in &node.shards {
            let old = shard.sessions.values().filter(|session| session.written_ms + quarter <= now);
            node.unwritten.extend(old.filter_map(|session| session.pid));
        }
        let hash = self.store.hashes.entry(node.name).or_default();
        for pid in std::mem::take(&mut node.unwritten) {
            let mut record = None;
            for shard in &mut node.shards {
                let Some(&key) = shard.by_pid.get(&pid) else {
                    record = record.or(shard.parked.get(pid).cloned());
                    continue;
                };
                record = Some(shard.parked_now(&shard.sessions[key], key));
                let session = &mut shard.sessions[key];
                session.written_ms = now;
                if let Some(conn) = self.wires.get_mut(&session.conn) {
                    std::mem::take(&mut session.unanswered).into_iter().for_each(|answer| conn.push_own(answer));
                }
            }
            match record {
                Some(parked) => drop(hash.records.insert(pid, (parked.moves, parked.to_record()))),
                None => drop(hash.records.remove(&pid)),
            }
        }
        // Every session after a reset.
        hash.mark = Some(self.store.life);
        if self.chance(if self.rules.failovers > 0 { 150 } else { 500 }) {
            self.store.replicate();
        }
        self.note(|| format!("node {at} writes its records"));
    }

    pub(crate) fn notice_any(&mut self) {
        if let Some(id) = self.any_wire() {
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

/// The window, without the rule that is left out.
struct Judged<'a> {
    window: &'a SharedWindow,
    lives_early: bool,
    replays_never_wait: bool,
    replays_have_no_clock: bool,
}

impl<'a> Judged<'a> {
    fn of(window: &'a SharedWindow) -> Self {
        Self { window, lives_early: false, replays_never_wait: false, replays_have_no_clock: false }
    }

    fn judged(&self, event: &Event) -> Event {
        Event {
            offset: event.offset,
            draft: event.draft.clone(),
            accepted_us: if self.replays_have_no_clock { 0 } else { event.accepted_us },
            after: event.after.clone().filter(|_| !self.replays_never_wait),
        }
    }
}

impl RecentLog for Judged<'_> {
    fn partitions(&self) -> Partitions {
        self.window.partitions()
    }

    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        self.window.covers(after, namespace, rooms)
    }

    fn pull(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room], max: Slice) -> Result<Pulled, Gap> {
        let mut pulled = self.window.pull(after, up_to, namespace, rooms, max)?;
        if self.replays_never_wait || self.replays_have_no_clock {
            pulled.events.iter_mut().for_each(|event| *event = Arc::new(self.judged(event)));
        }
        Ok(pulled)
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        self.window.commands(after)
    }

    fn filled_up_to(&self, line: Line) -> Position {
        if self.lives_early { Position::default() } else { self.window.filled_up_to(line) }
    }
}

fn describe(missed: &Result<Replay, Lost>) -> String {
    match missed {
        Ok(_) => "recovered".to_owned(),
        Err(lost) => lost.code().to_owned(),
    }
}
