//! One roomcast process: the parts under test, and a minimal model of the shard around them.

use crate::log::{Body, Entry, Log};
use crate::wire::{Conn, Down, Kind, Wires};
use crate::world::Rules;
use rand::RngExt as _;
use rand::rngs::StdRng;
use roomcast::auth::identity::{Identity, UserId};
use roomcast::log::Snapshot;
use roomcast::log::backfill::{Needs, Past, PastFinder, Waiting};
use roomcast::log::config::Bounds;
use roomcast::log::interest::lines::Interests;
use roomcast::log::redis::generation;
use roomcast::log::redis::generation::{Discontinuity, TailState};
use roomcast::log::shared_window::SharedWindow;
use roomcast::log::window::{Slice, Window};
use roomcast::model::command::{Action, SessionCommand, Subject};
use roomcast::model::draft::Draft;
use roomcast::model::event::{Delivery, Event};
use roomcast::model::id::Id;
use roomcast::model::millis::Millis;
use roomcast::model::names::Room;
use roomcast::model::namespaces::{NamespaceIndex, Namespaces};
use roomcast::model::offset::{Epoch, Offset, Position};
use roomcast::model::partition::{Line, Partitions};
use roomcast::model::place::{LineSet, Place};
use roomcast::model::provenance::Provenance;
use roomcast::session::changes::{Change, Changes};
use roomcast::session::connection::SessionKey;
use roomcast::session::outbox::{Frame, LocalDelivery};
use roomcast::session::parked::Parked;
use roomcast::session::parked_sessions::ParkedSessions;
use roomcast::session::replay::Replay;
use roomcast::shard::rooms::Rooms;
use slotmap::SlotMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NAMESPACE: NamespaceIndex = NamespaceIndex::new(0);
/// In the log's units; longer than any window here.
const KEPT_CHANGES: u64 = 6_000_000;

/// The settings of a run, drawn from the seed.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub window_ms: u64,
    pub window_bytes: usize,
    pub outbox_bytes: usize,
    pub slice: Slice,
    pub history_ms: u64,
    /// Bytes of one room in the window.
    pub room_bytes: usize,
    /// Rooms have tenants, for which they count together.
    pub tenant_segments: u8,
    /// The window keeps events of all rooms.
    pub keeps_all: bool,
    /// Live events overtake what a session has still to get.
    pub live_overtakes: bool,
    /// A session that is behind is parked as if it had everything.
    pub parks_ahead: bool,
    pub partitions: Partitions,
    /// A join or leave is noted without the position in the room's partition.
    pub changes_on_control_only: bool,
    /// What a client gets names only the line that it came on.
    pub places_of_one_line: bool,
    /// Nobody is notified that a partition lost entries.
    pub tells_nobody_of_partitions: bool,
    /// Partitions that a session has left are not named any more.
    pub forgets_left_lines: bool,
}

impl Settings {
    fn bounds(&self) -> Bounds {
        let &Self { window_bytes: bytes, room_bytes, tenant_segments, .. } = self;
        Bounds { bytes, room_bytes, tenant_segments }
    }
}

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

/// One process, from its start to its end.
pub(crate) struct Node {
    pub name: u32,
    pub up: bool,
    /// To the store, and the control line.
    pub linked: bool,
    /// To each line.
    pub links: Vec<bool>,
    pub known: Vec<Option<TailState>>,
    pub window: SharedWindow,
    pub shards: Vec<Shard>,
    /// The offset of each line that was announced to the shards.
    announced: Vec<Offset>,
    /// Sessions whose records in the store are out of date.
    pub unwritten: BTreeSet<Id>,
    /// What was read of a line that begins, until other lines have what it comes after.
    pub pending: Vec<Option<(Snapshot, TailState)>>,
    /// Entries that were delivered before what they come after.
    pub out_of_order: Vec<(Line, Position)>,
    /// Sessions that other nodes may have taken while this node was disconnected.
    pub stale: BTreeSet<Id>,
}

impl Node {
    pub(crate) fn start(name: u32, settings: &Settings) -> Self {
        let kept = Duration::from_millis(settings.window_ms * 5 / 4);
        let lines = || settings.partitions.lines();
        let namespaces = Namespaces::new(&["/".to_owned()]);
        let interest = match settings.keeps_all {
            true => Interests::everything(settings.partitions, namespaces),
            false => Interests::of_sessions(settings.partitions, &namespaces, kept),
        };
        let of_line = || Window::within(kept, settings.bounds());
        let window = SharedWindow::new(settings.partitions, of_line, interest);
        let shard = || Shard::new(settings, &window);
        Self {
            name,
            up: true,
            linked: false,
            links: lines().map(|_| false).collect(),
            known: lines().map(|_| None).collect(),
            shards: vec![shard(), shard()],
            window,
            announced: lines().map(|line| Offset { line, ..Offset::default() }).collect(),
            unwritten: BTreeSet::new(),
            pending: lines().map(|_| None).collect(),
            out_of_order: Vec::new(),
            stale: BTreeSet::new(),
        }
    }

    /// The node is connected again; `records_lost`: the store may not have the records that it wrote.
    pub(crate) fn relink(&mut self, records_lost: bool) {
        self.linked = true;
        let pids: Vec<_> =
            self.shards.iter().flat_map(|shard| shard.by_pid.keys().copied().chain(shard.parked.pids())).collect();
        if records_lost {
            self.unwritten.extend(&pids);
        }
        self.stale.extend(pids);
    }

    /// Whether this node has read entries that a line has lost, and has not noticed that yet.
    pub(crate) fn alone_knows_of_a_loss(&self, logs: &[Log]) -> bool {
        let lost = |(known, log): (&Option<TailState>, &Log)| {
            known.as_ref().is_some_and(|known| {
                matches!(known.discontinuity(&log.observe(known.last_read)), Some(Discontinuity::EntriesLost))
            })
        };
        self.up && self.known.iter().zip(logs).any(lost)
    }

    /// Whether the node and its shards know of every loss of a line.
    pub(crate) fn is_settled(&self, line: Line, log: &Log) -> bool {
        let broken = |known: &TailState| known.discontinuity(&log.observe(known.last_read)).is_some();
        let is_of = |command: &Command| matches!(command, Command::Reset(offset) if offset.line == line);
        let begins = |shard: &Shard| shard.waiting.iter().any(is_of);
        self.pending[line.index()].is_none()
            && !self.known[line.index()].as_ref().is_some_and(broken)
            && !self.shards.iter().any(begins)
    }

    /// As the tail checks the stream after it connects. Where it begins anew, the history is read.
    pub(crate) fn look(
        &mut self,
        line: Line,
        log: &mut Log,
        asked: Option<Position>,
        settings: &Settings,
        rng: &mut StdRng,
    ) {
        if self.pending[line.index()].is_some() {
            return;
        }
        let seen = log.observe(asked);
        let broken = match &mut self.known[line.index()] {
            None => None,
            Some(known) => match known.discontinuity(&seen) {
                None => {
                    if let Some(stream) = &seen.stream {
                        known.observe(stream);
                    }
                    return;
                }
                broken => broken,
            },
        };
        let epoch = match generation::parse(&seen.epoch_text) {
            Some(epoch) if broken != Some(Discontinuity::EntriesLost) => epoch,
            _ => Epoch(log.agree(&seen.epoch_text, rng.random())),
        };
        let stream = log.observe(None).stream;
        let head = generation::head(self.known[line.index()].as_ref(), stream.as_ref());
        let snapshot = history(line, log, epoch, head, settings);
        self.pending[line.index()] = Some((snapshot, TailState::new(epoch, head, stream.as_ref())));
    }

    /// As a line begins once other lines have read, or delivered, what its history comes after, or it `is_late`.
    pub(crate) fn begin(&mut self, line: Line, log: &Log, now: u64, is_late: bool) {
        let Some((snapshot, _)) = &self.pending[line.index()] else { return };
        let head = snapshot.head;
        let has = |(of, position): (Line, Position)| {
            let known = self.known[of.index()].as_ref().map(|known| known.position);
            let read = self.pending[of.index()].as_ref().map(|(snapshot, _)| snapshot.head);
            of == line || known.max(read).is_some_and(|known| known >= position)
        };
        let all = || log.entries.iter().filter(|entry| entry.position <= head);
        if !is_late && !all().all(|entry| entry.after.iter().all(has)) {
            return;
        }
        let is_early = |entry: &&Entry| !entry.past.iter().all(has);
        let early: Vec<_> = all().filter(is_early).map(|entry| (line, entry.position)).collect();
        self.out_of_order.extend(early);
        let Some((snapshot, state)) = self.pending[line.index()].take() else { return };
        self.known[line.index()] = Some(state);
        let offset = Offset { epoch: snapshot.epoch, position: snapshot.head, line };
        self.announced[line.index()] = offset;
        self.window.reset(&snapshot, now);
        self.shards.iter_mut().for_each(|shard| shard.waiting.push_back(Command::Reset(offset)));
    }

    /// As the tail reads entries and passes them to the shards. A command waits until what it comes behind was read, or
    /// `is_late`.
    pub(crate) fn read(&mut self, line: Line, log: &Log, max: usize, now: u64, (is_late, rules): (bool, Rules)) {
        let known = self.known[line.index()].as_ref().filter(|_| self.pending[line.index()].is_none());
        let Some(known) = known else { return };
        let (mut position, epoch) = (known.position, known.epoch);
        let has_read = |(line, position): &(Line, Position)| {
            self.known[line.index()].as_ref().is_some_and(|known| known.position >= *position)
        };
        let may_come = |entry: &&Entry| {
            let at = if let Body::SessionCommand(command) = &entry.body { &command.at[..] } else { &[] };
            is_late
                || at.iter().all(has_read) && (rules.tails_never_wait || entry.after.iter().all(|one| has_read(&one)))
        };
        let unread = log.entries.iter().filter(|entry| entry.position > position);
        let unread: Vec<_> = unread.take(max).take_while(may_come).collect();
        let late = unread.iter().filter(|entry| {
            let is_named = |one| entry.after.iter().any(|named| named == one);
            entry.past.iter().any(|one| !has_read(&one) && !(rules.tails_never_wait && is_named(one)))
        });
        let late: Vec<_> = late.map(|entry| (line, entry.position)).collect();
        self.out_of_order.extend(late);
        if let Some(last) = unread.last() {
            position = last.position;
            let known = self.known[line.index()].as_mut();
            known.expect("it is read").read(unread.len(), position);
        }
        for entry in unread {
            let offset = Offset { epoch, position: entry.position, line };
            match &entry.body {
                // As the tail leaves out what nobody wants.
                Body::Event(draft) if !draft.volatile && !self.wants(draft, offset) => {}
                Body::Event(_) => {
                    if let Some(event) = entry.event(offset) {
                        self.deliver(event, now);
                    }
                }
                Body::SessionCommand(order) => {
                    self.announced[0] = offset;
                    if let Action::Join(rooms) = &order.action
                        && !rules.foresees_nothing
                    {
                        rooms.iter().for_each(|room| self.window.interest().touch(NAMESPACE, room));
                    }
                    self.window.write(Line::CONTROL).push_command(offset.position, order.clone(), now);
                    for shard in &mut self.shards {
                        shard.waiting.push_back(Command::Sessions(offset, order.clone()));
                    }
                }
                Body::Probe => {}
            }
        }
        self.advanced_to(line, position, now);
    }

    /// Volatile events bypass the log and carry the offset of the tail.
    pub(crate) fn receive_volatile(&mut self, line: Line, event: &Event, now: u64) {
        let Some(known) = &self.known[line.index()] else { return };
        let offset = Offset { epoch: known.epoch, position: known.position, line };
        self.deliver(Event { offset, draft: event.draft.clone(), accepted_us: 0, after: None }, now);
    }

    fn wants(&self, draft: &Draft, at: Offset) -> bool {
        draft.rooms.iter().any(|room| self.window.interest().wants("/", room, at))
    }

    /// As a pass reads a line again for a session that waits. `max`: entries that are read until the time is over.
    pub(crate) fn read_past(
        &self,
        (line, log): (Line, &Log),
        needs: &Needs,
        max: usize,
        now: u64,
        (settings, rules): (&Settings, Rules),
    ) {
        let mut waiting = Waiting::default();
        waiting.add(&"/".into(), needs);
        let Some((_, needed)) = waiting.begin() else { return };
        let head = Offset { line, ..self.window.head_of(line) };
        let epoch = head.epoch;
        let interest = self.window.interest().of(line);
        let range = needed.range(interest, head, settings.bounds());
        let is_linked = self.links[line.index()];
        let Some(range) = range.filter(|_| is_linked && generation::parse(&log.epoch) == Some(epoch)) else { return };
        let mut finder = PastFinder::new(&range);
        let mut is_over = false;
        for entry in log.entries.iter().rev().filter(|entry| entry.position <= range.up_to).take(max) {
            if entry.position <= range.after {
                is_over = true;
                break;
            }
            let offset = Offset { epoch, position: entry.position, line };
            let is_taken = match &entry.body {
                Body::Event(_) => entry.event(offset).is_none_or(|event| finder.take(event)),
                Body::SessionCommand(order) => finder.take_command(entry.position, (**order).clone()),
                Body::Probe => true,
            };
            if !is_taken {
                finder.reached(entry.position);
                return self.fill(finder.finish(), now, rules);
            }
            finder.reached(entry.position.predecessor());
        }
        let was_all = log.entries.iter().filter(|entry| entry.position <= range.up_to).count() <= max;
        if is_over {
            finder.reached(range.after);
        } else if was_all {
            let stream = log.observe(None).stream;
            let floor = stream.map_or(range.up_to, |stream| generation::floor(None, &stream, range.up_to));
            finder.reached(floor.max(range.after));
        }
        if rules.trusts_partial {
            finder.reached(range.after);
        }
        self.fill(finder.finish(), now, rules);
    }

    fn fill(&self, past: Past, now: u64, rules: Rules) {
        let past = if rules.fills_blindly { Past { events: Vec::new(), ..past } } else { past };
        self.window.fill(past, now);
    }

    fn deliver(&mut self, event: Event, now: u64) {
        let line = event.offset.line;
        self.announced[line.index()] = event.offset;
        let event = Arc::new(event);
        self.window.write(line).push(event.clone(), now);
        for shard in &mut self.shards {
            shard.waiting.push_back(Command::Events(vec![event.clone()]));
        }
    }

    fn advanced_to(&mut self, line: Line, position: Position, now: u64) {
        self.window.write(line).advance(position);
        self.window.write(line).expire(now);
        self.window.interest().expire(now);
        let announced = &mut self.announced[line.index()];
        if position > announced.position {
            announced.position = position;
            let announced = *announced;
            self.shards.iter_mut().for_each(|shard| shard.waiting.push_back(Command::Advance(announced)));
        }
    }
}

/// As the history is read: newest first, so that never more is read than kept.
fn history(line: Line, log: &Log, epoch: Epoch, head: Position, settings: &Settings) -> Snapshot {
    let (mut events, mut commands, mut bytes, mut left_out) = (Vec::new(), Vec::new(), 0, None);
    for entry in log.entries.iter().rev().filter(|entry| entry.position <= head) {
        let old = entry.position.ms < head.ms.saturating_sub(settings.history_ms);
        let offset = Offset { epoch, position: entry.position, line };
        let event = entry.event(offset);
        bytes += event.as_ref().map_or(0, Event::size);
        if old || bytes > settings.window_bytes {
            left_out = Some(entry.position);
            break;
        }
        events.extend(event.map(Arc::new));
        if let Body::SessionCommand(order) = &entry.body {
            bytes += order.size();
            commands.push((entry.position, order.clone()));
        }
    }
    commands.reverse();
    events.reverse();
    let floor = log.observe(None).stream.map_or(head, |stream| generation::floor(left_out, &stream, head));
    Snapshot { line, epoch, floor, head, history: events, commands }
}

impl Shard {
    fn new(settings: &Settings, window: &SharedWindow) -> Self {
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
        let behind = session.replay.as_ref().filter(|_| !self.parks_ahead);
        let behind = behind.map(|replay| replay.last_possible(&self.position));
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
