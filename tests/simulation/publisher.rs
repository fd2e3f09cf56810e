//! What is published: to several nodes, each of which is published to by one who waits for each answer, and by others who add
//! to the log themselves.

use crate::log::{Body, Entry};
use crate::oracle::Fact;
use crate::world::{World, room};
use rand::RngExt as _;
use roomcast::log::redis::generation;
use roomcast::model::after::After;
use roomcast::model::args::Args;
use roomcast::model::draft::{Draft, Source};
use roomcast::model::event::Event;
use roomcast::model::names::Room;
use roomcast::model::offset::{Epoch, Offset, Position};
use roomcast::model::partition::Line;
use roomcast::model::place::Place;
use std::collections::{BTreeMap, BTreeSet};

/// For how long entries name what was acknowledged on other lines.
const RECENT: u64 = 200;
/// Within this time nodes notice that a line lost entries: a tenth of that.
const MAX_UNNOTICED: u64 = 20;

/// What was acknowledged.
#[derive(Default)]
struct Memory {
    /// On each line, and when.
    acknowledged: BTreeMap<Line, (Offset, u64)>,
    /// On the control line, of what concerns a partition.
    announced: BTreeMap<Line, (Offset, u64)>,
}

impl Memory {
    fn note(&mut self, entry: Offset, concerned: &[Line], now: u64) {
        match entry.line {
            Line::CONTROL => concerned.iter().for_each(|of| note(&mut self.announced, *of, entry, now)),
            line => note(&mut self.acknowledged, line, entry, now),
        }
    }

    /// What comes before an entry: all of it, or what was acknowledged since then.
    fn before(&self, line: Line, concerned: &[Line], since: u64) -> After {
        let mut after = After::default();
        let is_recent = |(_, (_, at)): &(&Line, &(Offset, u64))| *at >= since;
        match line {
            Line::CONTROL => {
                let of = self.acknowledged.iter().filter(is_recent).filter(|(line, _)| concerned.contains(line));
                of.for_each(|(_, (entry, _))| after.add(*entry));
            }
            line => {
                let of = self.announced.get_key_value(&line).filter(is_recent);
                of.into_iter().for_each(|(_, (entry, _))| after.add(*entry));
            }
        }
        after
    }

    fn of_line(&mut self, line: Line) -> impl Iterator<Item = &mut Offset> {
        let announced = self.announced.values_mut().filter(move |_| line == Line::CONTROL);
        announced.chain(self.acknowledged.get_mut(&line)).map(|(entry, _)| entry)
    }

    /// The line goes on behind this head.
    fn fall_back(&mut self, head: Offset) {
        self.of_line(head.line)
            .for_each(|entry| *entry = Offset { position: entry.position.min(head.position), ..head });
    }
}

/// A node takes a lower position for a repeat of what it knows.
fn note(known: &mut BTreeMap<Line, (Offset, u64)>, line: Line, entry: Offset, now: u64) {
    let known = known.entry(line).or_default();
    if known.0.position <= entry.position {
        *known = (entry, now);
    }
}

/// A node notices that a line lost entries, and names only what is left of it.
struct Notice {
    at: u64,
    line: Line,
    /// The epoch that it replaces, where it got some of them acknowledged. Other nodes may know nothing of those.
    replaced: Option<String>,
}

/// A node that is published to.
#[derive(Default)]
pub(crate) struct Publisher {
    /// What it remembers of what it got acknowledged.
    known: Memory,
    /// What there was, without what was lost.
    all: Memory,
    /// The lines' epochs, as it knows them.
    epochs: BTreeMap<Line, Epoch>,
    /// When it notices what lines lost.
    notices: Vec<Notice>,
    /// The newest entry that was acknowledged.
    newest: BTreeMap<Line, Offset>,
    /// The event of the last publish, and where its node knew the lines to be before it.
    answer: Option<(Offset, Place)>,
}

impl Publisher {
    /// A line lost what was after this position.
    fn lost(&mut self, line: Line, last: Position) {
        self.all.of_line(line).for_each(|entry| entry.position = last.min(entry.position));
    }

    fn fall_back(&mut self, head: Offset) {
        self.known.fall_back(head);
        self.epochs.insert(head.line, head.epoch);
    }
}

impl World {
    pub(crate) fn publish(&mut self) {
        let count = if self.chance(self.settings.habits.bursts()) { 12 } else { 1 };
        for _ in 0..count {
            let pick = |world: &mut Self| match world.chance(200) {
                true => format!("u{}", world.rng.random_range(0..world.clients.len())).into(),
                false => room(world.rng.random_range(0..5)),
            };
            let mut rooms = vec![pick(self)];
            if self.chance(250) {
                rooms.push(pick(self));
            }
            let except = if self.chance(150) { vec![pick(self)] } else { Vec::new() };
            let volatile = self.chance(100);
            self.publish_to(rooms, except, volatile);
        }
    }

    pub(crate) fn publish_to(&mut self, rooms: Vec<Room>, except: Vec<Room>, volatile: bool) {
        let serial = self.next_serial();
        let filler = "x".repeat(self.rng.random_range(0..400));
        let source = if self.chance(300) { Source::Client } else { Source::Http };
        let mut draft = Draft::new(&rooms[0], &serial.to_string(), text(&filler), source);
        (draft.rooms, draft.except, draft.volatile) = (rooms, except, volatile);
        let partitions = self.settings.partitions;
        let line = match self.rules.excepts_anywhere {
            true => partitions.of_event(&draft.rooms, &[]),
            false => partitions.of_event(&draft.rooms, &draft.except),
        };
        self.settle_commands();
        if volatile {
            let event = Event { offset: Offset::default(), draft, accepted_us: 0, after: None };
            let now = self.now;
            self.nodes
                .iter_mut()
                .filter(|node| node.up && node.links[line.index()])
                .for_each(|node| node.receive_volatile(line, &event, now));
            return self.note(|| format!("publish {serial} volatile"));
        }
        let by = self.any_publisher();
        let clock = self.clock(line);
        let concerned: Vec<Line> = draft.rooms.iter().map(|room| partitions.of(room)).collect();
        // Where order is a matter of clocks, only what was acknowledged in the same millisecond is named.
        let recent = if self.rules.replays_have_no_clock { 1 } else { RECENT };
        let (after, past) = by.map(|by| self.before(by, line, &concerned, recent)).unwrap_or_default();
        let accepted_us = if by.is_some() { self.accepted_us() } else { clock };
        let others = by.and_then(|by| self.known_lines(by));
        let position =
            self.logs[line.index()].append_after(clock, Body::Event(draft.clone()), (after.clone(), past), accepted_us);
        if let Some(by) = by {
            self.acknowledged(by, line, position, &concerned);
            let answer = others.and_then(|others| Some((Offset { position, ..others.on(line)? }, others)));
            if self.publishers[by].answer.is_none() || answer.is_some() && self.chance(200) {
                self.publishers[by].answer = answer;
            }
        }
        let fact = Fact { serial, by, line, position, rooms: draft.rooms, except: draft.except };
        self.note(|| {
            let (rooms, except, after) = (&fact.rooms, &fact.except, after.text());
            format!("{by:?} publishes {serial} at {line}/{position} ({accepted_us}) to {rooms:?} except {except:?} after {after:?}")
        });
        self.oracle.published(fact.clone());
        self.facts.insert(serial, fact);
        if self.chance(100) {
            self.logs[line.index()].append(clock, Body::Probe);
        }
    }

    /// A line lost its newest entries: nothing comes after them any more. Nodes notice that each by itself, a little later.
    pub(crate) fn lose(&mut self, line: Line, lost: &[Entry]) {
        let (last, epoch) = (self.logs[line.index()].last(), self.logs[line.index()].epoch.clone());
        self.logs.iter_mut().flat_map(|log| &mut log.entries).for_each(|entry| entry.forget(line, last));
        let serials = lost.iter().filter_map(Entry::serial);
        let by: BTreeSet<_> = serials.filter_map(|serial| self.facts.get(&serial)?.by).collect();
        for (number, publisher) in self.publishers.iter_mut().enumerate() {
            let at = self.now + self.rng.random_range(0..MAX_UNNOTICED);
            publisher.lost(line, last);
            publisher.notices.push(Notice { at, line, replaced: by.contains(&number).then(|| epoch.clone()) });
        }
    }

    /// Nodes notice what lines have lost.
    pub(crate) fn notice_losses(&mut self) {
        for publisher in &mut self.publishers {
            let due: Vec<_> = publisher.notices.extract_if(.., |notice| notice.at <= self.now).collect();
            for Notice { line, replaced, .. } in due {
                let log = &mut self.logs[line.index()];
                if let Some(replaced) = replaced.filter(|replaced| log.epoch == *replaced) {
                    log.agree(&replaced, self.rng.random());
                }
                let epoch = generation::parse(&log.epoch).unwrap_or_default();
                let position = log.entries.last().map_or(Position::default(), |entry| entry.position);
                publisher.fall_back(Offset { epoch, position, line });
            }
        }
    }

    /// Where some node knows the lines to be: what it has read, and what was acknowledged.
    fn known_lines(&mut self, publisher: usize) -> Option<Place> {
        let partitions = self.settings.partitions;
        let node = self.any_up()?;
        let mut place = Place::unread(partitions);
        for line in partitions.lines() {
            let read = Offset { line, ..self.nodes[node].window.head_of(line) };
            let newest = self.publishers[publisher].newest.get(&line).filter(|newest| newest.epoch == read.epoch);
            place.set(newest.copied().filter(|newest| newest.position > read.position).unwrap_or(read));
        }
        place.has_begun().then_some(place)
    }

    /// An offset that a publisher got, now and then, and what comes after it: what was published later.
    pub(crate) fn answer_of_a_publish(&mut self) -> Option<(String, Place)> {
        let by = self.any_publisher()?;
        let (event, others) = self.publishers[by].answer.clone().filter(|_| self.chance(500))?;
        let mut start = others.clone();
        start.set(event);
        let said = if self.rules.late_answers { self.known_lines(by)? } else { others };
        Some((said.at(event).to_string(), start))
    }

    /// A node, or somebody who adds to the log without one. The log of one line has one order, whoever publishes.
    fn any_publisher(&mut self) -> Option<usize> {
        let nodes = self.publishers.len();
        if nodes > 1 && self.chance(100) { None } else { Some(self.rng.random_range(0..nodes)) }
    }

    /// What comes before an entry as nodes write it, and all that does.
    fn before(&self, by: usize, line: Line, concerned: &[Line], within: u64) -> (After, Vec<(Line, Position)>) {
        let publisher = &self.publishers[by];
        let since = (self.now + 1).saturating_sub(within);
        let all = publisher.all.before(line, concerned, 0);
        let past = all.iter().map(|entry| (entry.line, entry.position)).collect();
        (publisher.known.before(line, concerned, since), past)
    }

    fn acknowledged(&mut self, by: usize, line: Line, position: Position, concerned: &[Line]) {
        let (now, publisher) = (self.now, &mut self.publishers[by]);
        if let Some(epoch) = generation::parse(&self.logs[line.index()].epoch) {
            publisher.newest.insert(line, Offset { epoch, position, line });
        }
        let present = generation::parse(&self.logs[line.index()].epoch).unwrap_or_default();
        let epoch = *publisher.epochs.entry(line).or_insert(present);
        let entry = Offset { epoch, position, line };
        publisher.known.note(entry, concerned, now);
        publisher.all.note(entry, concerned, now);
    }

    /// By the clock of a node, which may be set while it runs.
    fn accepted_us(&mut self) -> u64 {
        let apart = match self.settings.habits.apart {
            0 => 0,
            max => self.rng.random_range(-max..max),
        };
        self.now.saturating_add_signed(apart) * 1_000 + self.serial
    }
}

fn text(filler: &str) -> Args {
    Args::one(&format!("\"{filler}\"")).expect("a JSON string")
}
