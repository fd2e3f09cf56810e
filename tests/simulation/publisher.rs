//! What is published: to several nodes, each of which is published to by one who waits for each answer, and by others who add
//! to the log themselves.

use crate::log::Body;
use crate::oracle::Fact;
use crate::world::{World, room};
use rand::RngExt as _;
use roomcast::log::redis::generation;
use roomcast::model::after::After;
use roomcast::model::args::Args;
use roomcast::model::draft::{Draft, Source};
use roomcast::model::event::Event;
use roomcast::model::names::Room;
use roomcast::model::offset::{Offset, Position};
use roomcast::model::partition::Line;
use roomcast::model::place::Place;
use std::collections::BTreeMap;

/// For how long entries name what was acknowledged on other lines.
const RECENT: u64 = 200;

/// A node that is published to: what it remembers of what it got acknowledged.
#[derive(Default)]
pub(crate) struct Publisher {
    /// What was acknowledged, by lines, and what of the control line concerns a partition, and when.
    acknowledged: BTreeMap<Line, (Position, u64)>,
    announced: BTreeMap<Line, (Position, u64)>,
    /// The newest entry that was acknowledged.
    newest: BTreeMap<Line, Offset>,
    /// The event of the last publish, and where its node knew the lines to be before it.
    answer: Option<(Offset, Place)>,
}

impl Publisher {
    /// A line lost entries, so none of it is named any more.
    pub(crate) fn forget(&mut self, line: Line) {
        match line {
            Line::CONTROL => self.announced.clear(),
            line => self.acknowledged.retain(|of, _| *of != line),
        }
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
        let before = |within| by.map_or_else(After::default, |by| self.before(by, line, &concerned, within));
        let (after, past) = (before(recent), before(u64::MAX));
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

    /// Where some node knows the lines to be: what it has read, and what was acknowledged.
    fn known_lines(&mut self, publisher: usize) -> Option<Place> {
        let partitions = self.settings.partitions;
        let node = self.any_up().filter(|_| !partitions.is_one())?;
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

    /// What comes before an entry, as nodes write it.
    fn before(&self, by: usize, line: Line, concerned: &[Line], within: u64) -> After {
        let mut after = After::default();
        let is_recent = |(_, (_, at)): &(&Line, &(Position, u64))| at.saturating_add(within) > self.now;
        match line {
            Line::CONTROL => {
                let of =
                    self.publishers[by].acknowledged.iter().filter(is_recent).filter(|(line, _)| concerned.contains(line));
                of.for_each(|(line, (position, _))| after.add(*line, *position));
            }
            line => {
                let of = self.publishers[by].announced.get_key_value(&line).filter(is_recent);
                of.into_iter().for_each(|(_, (position, _))| after.add(Line::CONTROL, *position));
            }
        }
        after
    }

    fn acknowledged(&mut self, by: usize, line: Line, position: Position, concerned: &[Line]) {
        let (now, publisher) = (self.now, &mut self.publishers[by]);
        if let Some(epoch) = generation::parse(&self.logs[line.index()].epoch) {
            publisher.newest.insert(line, Offset { epoch, position, line });
        }
        match line {
            Line::CONTROL => publisher.announced.extend(concerned.iter().map(|of| (*of, (position, now)))),
            line => publisher.acknowledged.extend([(line, (position, now))]),
        }
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
