//! One roomcast process: the parts under test, and the tail that feeds its shards.

use crate::habits::Habits;
use crate::log::{Body, Entry, Log};
use crate::rules::Rules;
use crate::shard::{Command, Shard};
use rand::RngExt as _;
use rand::rngs::StdRng;
use roomcast::log::Snapshot;
use roomcast::log::backfill::{Needs, Past, PastFinder, Waiting};
use roomcast::log::config::Bounds;
use roomcast::log::interest::lines::Interests;
use roomcast::log::redis::generation;
use roomcast::log::redis::generation::{Discontinuity, TailState};
use roomcast::log::shared_window::SharedWindow;
use roomcast::log::window::Slice;
use roomcast::model::command::Action;
use roomcast::model::draft::Draft;
use roomcast::model::event::Event;
use roomcast::model::id::Id;
use roomcast::model::namespaces::{NamespaceIndex, Namespaces};
use roomcast::model::offset::{Epoch, Offset, Position};
use roomcast::model::partition::{Line, Partitions};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NAMESPACE: NamespaceIndex = NamespaceIndex::new(0);

/// The settings of a run, drawn from the seed.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub window_ms: u64,
    pub window_bytes: usize,
    pub outbox_bytes: usize,
    pub slice: Slice,
    pub habits: Habits,
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
        let window = SharedWindow::new(settings.partitions, kept, settings.bounds(), interest);
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
    pub(crate) fn begin(&mut self, line: Line, log: &Log, now: u64, (is_late, rules): (bool, Rules)) {
        let Some((snapshot, _)) = &self.pending[line.index()] else { return };
        let head = snapshot.head;
        let has = |(of, position): (Line, Position)| {
            let known = self.known[of.index()].as_ref().map(|known| known.position);
            let read = self.pending[of.index()].as_ref().map(|(snapshot, _)| snapshot.head);
            of == line || known.max(read).is_some_and(|known| known >= position)
        };
        let all = || log.entries.iter().filter(|entry| entry.position <= head);
        if !is_late && !rules.begins_early && !all().all(|entry| entry.named().all(has)) {
            return;
        }
        let is_early = |entry: &&Entry| {
            let is_named = |one| entry.named().any(|named| named == one);
            !entry.past.iter().all(|one| has(*one) || rules.begins_early && is_named(*one))
        };
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
            is_late || at.iter().all(has_read) && (rules.tails_never_wait || entry.named().all(|one| has_read(&one)))
        };
        let unread = log.entries.iter().filter(|entry| entry.position > position);
        let unread: Vec<_> = unread.take(max).take_while(may_come).collect();
        let late = unread.iter().filter(|entry| {
            let is_named = |one| entry.named().any(|named| named == one);
            let is_allowed = |one: &(Line, Position)| has_read(one) || (rules.tails_never_wait && is_named(*one));
            !entry.past.iter().all(is_allowed)
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
