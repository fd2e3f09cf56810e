//! How a session is taken up: found on its node, on another one or in the store, and continued.

use crate::judged::Judged;
use crate::node::NAMESPACE;
use crate::records::Found;
use crate::server::CATCH_UP;
use crate::shard::{Live, identity};
use crate::wire::{Down, Work};
use crate::world::World;
use roomcast::log::window::Gap;
use roomcast::model::id::Id;
use roomcast::model::millis::Millis;
use roomcast::model::place::Place;
use roomcast::session::parked::Parked;
use roomcast::session::recovery;
use roomcast::session::recovery::Lost;
use roomcast::session::replay::Replay;

/// Another node cannot be asked now: the client must connect again.
struct Unreachable;

impl World {
    /// As a resume searches for its session: one shard at a time, then the store.
    pub(crate) fn take(&mut self, id: u64, asked: usize, pid: Id, offset: Option<Place>) {
        let conn = &self.wires[&id];
        let (node, shard) = (conn.node, conn.shard);
        if asked == 0 && self.is_being_resumed(node, pid) {
            return self.wait(id, Work::Take { asked, pid, offset });
        }
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
            Some(mut parked) => {
                let Some(after) = parked.resume_from(offset.as_ref()) else { return self.begin_session(id) };
                parked.note_resumed(&after);
                let until = self.now + CATCH_UP;
                let (reach, parked) = (after.clone(), Box::new(parked));
                self.proceed(id, Work::Resume { until, reach, after, pid, parked, fetched: false });
            }
            None if asked < 2 => self.wait(id, Work::Take { asked: asked + 1, pid, offset }),
            None => self.begin_session(id),
        }
    }

    /// Whether another connection to this node searches for the session, or has it in its hands.
    fn is_being_resumed(&self, node: usize, pid: Id) -> bool {
        self.wires.values().any(|conn| {
            conn.node == node
                && match &conn.work {
                    Some(Work::Take { asked, pid: other, .. }) => *asked > 0 && *other == pid,
                    Some(Work::Resume { pid: other, .. }) => *other == pid,
                    _ => false,
                }
        })
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
    pub(crate) fn resume(&mut self, id: u64, after: &Place, pid: Id, mut parked: Parked) {
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
}

fn describe(missed: &Result<Replay, Lost>) -> String {
    match missed {
        Ok(_) => "recovered".to_owned(),
        Err(lost) => lost.code().to_owned(),
    }
}
