//! Nodes, clients and a log, driven at random: in each step one of them does one thing.

use crate::client::Client;
use crate::habits::{Act, Habits};
use crate::log::{Body, Log};
use crate::node::{Node, Settings};
use crate::oracle::{Fact, Oracle};
use crate::publisher::Publisher;
use crate::records::Store;
use crate::rules::Rules;
use crate::shard::Command;
use crate::wire::{Conn, Kind, Wires};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use roomcast::log::window::Slice;
use roomcast::model::command::{Action, Selector, SessionCommand};
use roomcast::model::id::NodeId;
use roomcast::model::names::Room;
use roomcast::model::offset::{Offset, Position};
use roomcast::model::partition::{Line, Partitions};
use roomcast::model::place::Place;
use std::collections::{BTreeMap, VecDeque};

const LINES: usize = 120;
/// Packets that a client may have to read in the end: more than are published in a run.
const MAX_DRAINED: usize = 20_000;

/// The clock of a master, in the log's units.
#[derive(Default)]
struct Clock {
    /// The difference to ours. Another master has another one.
    ahead: i64,
    /// The last time that it showed.
    last: u64,
}

pub(crate) struct World {
    pub rules: Rules,
    pub settings: Settings,
    pub rng: StdRng,
    pub now: u64,
    /// Of each line's master.
    clocks: Vec<Clock>,
    /// One for each line.
    pub logs: Vec<Log>,
    pub nodes: Vec<Node>,
    pub wires: Wires,
    pub clients: Vec<Client>,
    pub store: Store,
    pub oracle: Oracle,
    /// Every stored event by its serial, also those that the log lost.
    pub facts: BTreeMap<u64, Fact>,
    pub serial: u64,
    pub publishers: Vec<Publisher>,
    trace: Option<VecDeque<String>>,
}

/// Of two tenants, and in two of three partitions.
pub(crate) fn room(number: usize) -> Room {
    ["x:1", "y:1", "x:2", "y:0", "x:0"][number].into()
}

impl World {
    pub(crate) fn new(seed: u64, rules: Rules, traced: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let settings = Settings {
            window_ms: rng.random_range(100..4_000),
            window_bytes: rng.random_range(1_000..80_000),
            outbox_bytes: rng.random_range(300..4_000),
            slice: Slice { events: rng.random_range(1..5), bytes: rng.random_range(100..2_000) },
            room_bytes: if rng.random_bool(0.3) { rng.random_range(1_000..40_000) } else { usize::MAX },
            tenant_segments: u8::from(seed.is_multiple_of(2)),
            keeps_all: rng.random_bool(0.3),
            habits: Habits::draw(&mut rng, &rules),
            history_ms: 0,
            live_overtakes: rules.live_overtakes,
            parks_ahead: rules.parks_ahead,
            partitions: Partitions::new(if rules.partitions { 3 } else { 1 }, 0),
            changes_on_control_only: rules.changes_on_control_only,
            places_of_one_line: rules.places_of_one_line,
            tells_nobody_of_partitions: rules.tells_nobody_of_partitions,
            forgets_left_lines: rules.forgets_left_lines,
        };
        // The log counts in finer steps, so that two masters hardly ever assign the same id.
        let events = if settings.habits.long_replays { 1 } else { settings.slice.events };
        let slice = Slice { events, ..settings.slice };
        let settings = Settings { history_ms: settings.window_ms * 1_000, slice, ..settings };
        let nodes = (0..rng.random_range(1..4)).map(|name| Node::start(name, &settings)).collect();
        let clients = (0..rng.random_range(2..6)).map(|number| Client::new(number, &mut rng)).collect();
        Self {
            rules,
            settings: settings.clone(),
            rng,
            now: 1_000,
            clocks: settings.partitions.lines().map(|_| Clock::default()).collect(),
            logs: settings.partitions.lines().map(|_| Log::new(true)).collect(),
            nodes,
            wires: Wires::new(),
            clients,
            store: Store::default(),
            oracle: Oracle::new(settings.partitions),
            facts: BTreeMap::new(),
            serial: 100,
            publishers: (0..settings.habits.publishers).map(|_| Publisher::default()).collect(),
            trace: traced.then(VecDeque::new),
        }
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == LINES {
                trace.pop_front();
            }
            trace.push_back(format!("{:>6} {}", self.now, line()));
        }
    }

    pub(crate) fn trace(&self) -> String {
        self.trace.iter().flatten().fold(String::new(), |all, line| all + line + "\n")
    }

    pub(crate) fn chance(&mut self, of_1000: u32) -> bool {
        self.rng.random_range(0..1_000) < of_1000
    }

    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// The whole run.
    pub(crate) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            if self.oracle.verdict.is_some() {
                return;
            }
        }
        self.rest();
        for number in 0..5 {
            self.publish_to(vec![room(number)], Vec::new(), false);
        }
        self.rest();
        let epochs: Vec<_> = self.logs.iter().map(|log| log.epoch.clone()).collect();
        self.oracle.finish(&epochs);
    }

    fn step(&mut self) {
        self.notice_losses();
        if self.rules.failovers > 0 && self.chance(self.rules.failovers) {
            self.fail_over_the_store();
        }
        match self.settings.habits.next(&mut self.rng) {
            Act::Publish => self.publish(),
            Act::Command => self.command(),
            Act::Tail => self.tail(),
            Act::Shard => self.shard_works(),
            Act::Serve => self.serve_any(),
            Act::Client => self.client_acts(),
            Act::Flush => self.flush_any(),
            Act::WriteRecords if self.chance(self.rules.records_late) => {}
            Act::WriteRecords => self.write_records_any(),
            Act::Notice => self.notice_any(),
            Act::NodeFate => self.node_fate(),
            Act::LogFate => self.log_fate(),
            Act::Wait => self.now += self.rng.random_range(1..60),
            Act::WaitLong => self.now += self.rng.random_range(1..self.settings.window_ms * 2 / 3),
        }
    }

    /// Every connection to a master breaks: that of a line, and with the control line that of the store.
    pub(crate) fn hang_up(&mut self, line: Line) {
        for node in &mut self.nodes {
            node.links[line.index()] = false;
            node.linked &= line != Line::CONTROL;
        }
    }

    fn any_line(&mut self) -> Line {
        let lines: Vec<_> = self.settings.partitions.lines().collect();
        lines[self.rng.random_range(0..lines.len())]
    }

    /// Tells the oracle which commands are in force on all nodes.
    pub(crate) fn settle_commands(&mut self) {
        let shards = self.nodes.iter_mut().filter(|node| node.up).flat_map(|node| &mut node.shards);
        let mut least: Option<Position> = None;
        for shard in shards {
            let here = shard.position.control().position;
            least = Some(least.map_or(here, |least| least.min(here)));
            for (position, here) in std::mem::take(&mut shard.carried_out) {
                self.oracle.carried_out(position, &here);
            }
        }
        if let Some(least) = least {
            let ends: Vec<_> = self.logs.iter().map(Log::last).collect();
            self.oracle.settled(least, &ends);
        }
    }

    /// The backend joins or leaves a room for a Socket.IO client.
    fn command(&mut self) {
        let client = self.rng.random_range(0..self.clients.len());
        if self.clients[client].kind != Kind::SocketIo {
            return;
        }
        let (room, joins) = (room(self.rng.random_range(0..5)), self.chance(500));
        let rooms = vec![room.clone()];
        let act = if joins { Action::Join(rooms) } else { Action::Leave(rooms) };
        let (id, from) = (self.fresh_id(), NodeId::parse("00000000").expect("a node"));
        let line = self.settings.partitions.of(&room);
        let issuer = self.any_up().and_then(|node| self.nodes[node].known[line.index()].as_ref());
        let issued = issuer.map_or(Position::default(), |known| known.position);
        let at = match line {
            Line::CONTROL => Vec::new(),
            _ if self.rules.commands_from_nowhere => vec![(line, Position::default())],
            line => vec![(line, issued)],
        };
        let selector = Selector::User(format!("c{client}"));
        let command = SessionCommand { id, from, selector, namespace: None, action: act, at };
        let clock = self.clock(Line::CONTROL);
        let position = self.logs[0].append(clock, Body::SessionCommand(std::sync::Arc::new(command)));
        self.note(|| {
            format!("command at {position}: client {client} {} {room}", if joins { "joins" } else { "leaves" })
        });
        self.oracle.commanded(client, position, room, joins, (line, issued));
    }

    pub(crate) fn clock(&mut self, line: Line) -> u64 {
        let now = i64::try_from(self.now * 1_000).expect("a short time") + self.rng.random_range(0..1_000);
        let clock = &mut self.clocks[line.index()];
        let shown = u64::try_from((now + clock.ahead).max(1)).expect("positive");
        clock.last = clock.last.max(shown);
        clock.last
    }

    pub(crate) fn any_up(&mut self) -> Option<usize> {
        let up: Vec<_> = (0..self.nodes.len()).filter(|node| self.nodes[*node].up).collect();
        (!up.is_empty()).then(|| up[self.rng.random_range(0..up.len())])
    }

    /// A tail of a node that is up, nearly always one that has something to do.
    fn any_tail(&mut self) -> Option<(usize, Line)> {
        let has_work = |at: usize, line: Line| {
            let (node, index) = (&self.nodes[at], line.index());
            let read = node.known[index].as_ref().map(|known| known.position);
            !node.links[index] || node.pending[index].is_some() || read < Some(self.logs[index].last())
        };
        let lines: Vec<_> = self.settings.partitions.lines().collect();
        let up = (0..self.nodes.len()).filter(|at| self.nodes[*at].up);
        let all: Vec<_> = up.flat_map(|at| lines.iter().map(move |line| (at, *line))).collect();
        let busy: Vec<_> = all.iter().copied().filter(|(at, line)| has_work(*at, *line)).collect();
        if self.chance(100) { self.any_of(&all) } else { self.any_of(&busy) }
    }

    /// One of these.
    pub(crate) fn any_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let at = self.rng.random_range(0..all.len().max(1));
        all.get(at).copied()
    }

    fn tail(&mut self) {
        let Some((at, line)) = self.any_tail() else { return };
        let (max, looks, waits) = (self.rng.random_range(1..8), self.chance(200), self.chance(300));
        let is_late = self.chance(20);
        let node = &mut self.nodes[at];
        let log = &mut self.logs[line.index()];
        if node.pending[line.index()].is_some() {
            node.begin(line, log, self.now, (is_late, self.rules));
            self.excuse();
            return self.note(|| format!("node {at} begins line {line}"));
        }
        if !node.links[line.index()] {
            if waits {
                return;
            }
            // A new connection may lead to another Redis.
            let asked = node.known[line.index()].as_ref().and_then(|known| known.last_read);
            node.look(line, log, asked, &self.settings, &mut self.rng);
            node.links[line.index()] = true;
            if line == Line::CONTROL {
                let records_lost = self.store.lost_records_of(node.name);
                node.relink(records_lost);
            }
        } else if looks {
            node.look(line, log, None, &self.settings, &mut self.rng);
        } else {
            // The tail checks the stream before it passes on entries that it reads late; here they are always late.
            node.look(line, log, None, &self.settings, &mut self.rng);
            node.read(line, log, max, self.now, (is_late, self.rules));
        }
        self.excuse();
        let head = self.nodes[at].window.head_of(line);
        self.note(|| format!("node {at} {} line {line} up to {head}", if looks { "looks" } else { "reads" }));
    }

    /// Tells the oracle what came out of order because a line was behind for too long.
    fn excuse(&mut self) {
        for node in &mut self.nodes {
            node.out_of_order.drain(..).for_each(|at| self.oracle.was_early(node.name, at));
        }
    }

    fn shard_works(&mut self) {
        let up = (0..self.nodes.len()).filter(|at| self.nodes[*at].up);
        let all: Vec<_> = up.flat_map(|at| [(at, 0), (at, 1)]).collect();
        let busy: Vec<_> =
            all.into_iter().filter(|(at, index)| !self.nodes[*at].shards[*index].waiting.is_empty()).collect();
        let Some((at, index)) = self.any_of(&busy) else { return };
        for _ in 0..self.rng.random_range(1..4) {
            let shard = &mut self.nodes[at].shards[index];
            if self.rules.park_after_reset
                && let Some(Command::Reset(offset)) = shard.waiting.front()
            {
                shard.position.set(*offset);
            }
            shard.work(&mut self.wires, &self.settings, self.now);
        }
        let position = self.nodes[at].shards[index].position.clone();
        self.note(|| format!("shard {at}.{index} is at {position}"));
    }

    /// Whether all nodes know of every loss of these lines.
    pub(crate) fn is_settled(&self, start: &Place) -> bool {
        let mut nodes = self.nodes.iter().filter(|node| node.up);
        let is_new = |start: Offset| format!("{:x}", start.epoch.0) == self.logs[start.line.index()].epoch;
        let settled = |node: &Node| self.settings.partitions.lines().all(|l| node.is_settled(l, &self.logs[l.index()]));
        start.offsets().all(is_new) && nodes.all(settled)
    }

    fn flush_any(&mut self) {
        let has_room = |conn: &Conn| conn.down.len() < conn.room_on_wire;
        let waits = |(id, conn): (&u64, &Conn)| has_room(conn) && (!conn.outbox.is_empty() || self.is_behind(*id));
        let all: Vec<_> = self.wires.iter().filter(|wire| waits(*wire)).map(|(id, _)| *id).collect();
        if let Some(id) = self.any_of(&all) {
            self.flush(id);
        }
    }

    pub(crate) fn flush(&mut self, id: u64) {
        self.top_up(id);
        if let Some(conn) = self.wires.get_mut(&id) {
            conn.flush();
        }
    }

    /// Whether its session has still something to get.
    fn is_behind(&self, id: u64) -> bool {
        let Some(conn) = self.wires.get(&id) else { return false };
        let sessions = &self.nodes[conn.node].shards[conn.shard].sessions;
        conn.session.and_then(|key| sessions.get(key)).is_some_and(|session| session.replay.is_some())
    }

    /// A connection of which this holds.
    pub(crate) fn any_wire(&mut self, holds: impl Fn(&Conn) -> bool) -> Option<u64> {
        let all: Vec<_> = self.wires.iter().filter(|(_, conn)| holds(conn)).map(|(id, _)| *id).collect();
        self.any_of(&all)
    }

    fn serve_any(&mut self) {
        let waits = |conn: &Conn| !conn.closing && (conn.work.is_some() || !conn.up.is_empty());
        if let Some(id) = self.any_wire(waits) {
            self.serve(id);
        }
    }

    /// A node dies with all its state, or another starts in its place.
    pub(crate) fn node_fate(&mut self) {
        let at = self.rng.random_range(0..self.nodes.len());
        if !self.nodes[at].up {
            let name = u32::try_from(self.next_serial()).expect("few");
            self.nodes[at] = Node::start(name, &self.settings);
            return self.note(|| format!("node {at} starts as {name}"));
        }
        // A second fault before the first is noticed: no node is left that could know of it.
        if self.nodes[at].alone_knows_of_a_loss(&self.logs) {
            return;
        }
        self.nodes[at].up = false;
        for (log, known) in self.logs.iter_mut().zip(&self.nodes[at].known) {
            let read = known.as_ref().map_or(Position::default(), |known| known.position);
            log.entries.iter_mut().filter(|e| e.position <= read).for_each(|entry| entry.read_by_dead = true);
        }
        self.note(|| format!("node {at} dies"));
        let gone: Vec<_> = self.wires.iter().filter(|(_, conn)| conn.node == at).map(|(id, _)| *id).collect();
        for id in gone {
            self.cut_at_client(id);
            self.wires.remove(&id);
        }
    }

    fn log_fate(&mut self) {
        let line = self.any_line();
        let index = line.index();
        let knows = self.nodes.iter().any(|node| node.up && node.links[index] && node.known[index].is_some());
        // A trim of the entries that could show a loss, before a node looks, would be a second fault; trims keep the window.
        let log = &self.logs[index];
        let all_know = self.nodes.iter().filter(|node| node.up).all(|node| node.is_settled(line, log));
        let lost = match self.rng.random_range(0..10) {
            0..5 if all_know => {
                let read = |node: &Node| node.known[index].as_ref().map_or(Position::default(), |known| known.position);
                let slowest = self.nodes.iter().filter(|node| node.up).map(read).min().unwrap_or_default();
                let from_outside = self.chance(400) || self.rules.trimmed_short;
                let entries = &self.logs[index].entries;
                let max = entries.iter().take_while(|entry| from_outside || entry.position <= slowest).count();
                let count = if self.rules.trimmed_short { max } else { self.rng.random_range(0..=max) };
                if entries[..count].iter().any(|entry| entry.position > slowest) {
                    self.oracle.lost(line, std::iter::empty());
                }
                self.logs[index].trim(count);
                return self.note(|| format!("{count} entries of line {line} trimmed"));
            }
            5..7 => {
                self.hang_up(line);
                return self.note(|| format!("line {line} hangs up"));
            }
            7..9 => {
                let max = log.entries.iter().rev().take_while(|entry| !entry.read_by_dead).count();
                let count = self.rng.random_range(0..=if all_know { max.min(4) } else { 0 });
                self.hang_up(line);
                if line == Line::CONTROL {
                    self.store.fail_over();
                }
                let apart = self.settings.habits.apart.max(40) * 1_000;
                let ahead = self.clocks[index].ahead + self.rng.random_range(-40_000..40_000);
                self.clocks[index] = Clock { ahead: ahead.clamp(-apart, apart), last: 0 };
                self.logs[index].fail_over(count)
            }
            _ if knows => {
                let epoch_too = self.chance(500);
                self.oracle.lost_everything(line);
                self.logs[index].delete(epoch_too)
            }
            _ => return,
        };
        self.note(|| format!("line {line} loses {} entries", lost.len()));
        if !lost.is_empty() {
            self.oracle.lost(line, lost.iter().map(|entry| entry.position));
            self.lose(line, &lost);
        }
    }

    /// The client reads until there is nothing more for it, or that does not end.
    fn drain(&mut self, id: u64) {
        for _ in 0..MAX_DRAINED {
            let is_waiting = |conn: &Conn| !conn.outbox.is_empty() || !conn.down.is_empty();
            if !self.wires.get(&id).is_some_and(is_waiting) && !self.is_behind(id) {
                return;
            }
            self.flush(id);
            self.receive(id);
        }
        if let Some(client) = self.wires.get(&id).map(|conn| conn.client) {
            self.oracle.wrong(&(client, None), "never got to the end of a replay".into());
        }
    }

    /// No more faults; everything that is under way is completed.
    fn rest(&mut self) {
        if self.any_up().is_none() {
            self.nodes[0] = Node::start(9_999, &self.settings);
        }
        self.note(|| "to rest".into());
        // A second handshake would replace the client's connection again and again.
        self.settings.habits.twice = 0;
        self.wires.values_mut().for_each(|conn| conn.room_on_wire = conn.room_on_wire.max(1));
        for round in 0..12 {
            self.notice_losses();
            let lines: Vec<_> = self.settings.partitions.lines().rev().collect();
            for node in self.nodes.iter_mut().filter(|node| node.up) {
                for line in lines.iter().chain(&lines).copied() {
                    let log = &mut self.logs[line.index()];
                    let is_linked = std::mem::replace(&mut node.links[line.index()], true);
                    let asked = node.known[line.index()].as_ref().and_then(|known| known.last_read);
                    node.look(line, log, asked.filter(|_| !is_linked), &self.settings, &mut self.rng);
                    node.begin(line, log, self.now, (round > 1, self.rules));
                    if !is_linked && line == Line::CONTROL {
                        let records_lost = self.store.lost_records_of(node.name);
                        node.relink(records_lost);
                    }
                    // What a command came behind may be lost.
                    node.read(line, log, usize::MAX, self.now, (true, self.rules));
                }
                for shard in &mut node.shards {
                    while shard.work(&mut self.wires, &self.settings, self.now) {}
                }
            }
            self.excuse();
            self.settle_commands();
            for client in 0..self.clients.len() {
                self.connect_if_gone(client);
            }
            for id in self.wires.keys().copied().collect::<Vec<_>>() {
                for _ in 0..12 {
                    self.serve(id);
                }
                self.drain(id);
                self.notice(id);
            }
            (0..self.nodes.len()).for_each(|node| self.write_records(node));
            self.now += 20;
        }
        let stuck = (0..self.clients.len()).find(|client| self.clients[*client].session.is_none());
        if let Some(client) = stuck.filter(|client| self.clients[*client].kind != Kind::Sse) {
            self.oracle.wrong(&(client, None), "never came to rest".into());
        }
    }
}
