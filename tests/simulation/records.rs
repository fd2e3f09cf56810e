//! The records of sessions, as processes write and search them.

use crate::node::NAMESPACE;
use crate::rules::Rules;
use crate::world::World;
use roomcast::model::id::Id;
use roomcast::model::partition::Line;
use roomcast::session::parked::Parked;
use std::collections::BTreeMap;

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
pub(crate) enum Found {
    Nowhere,
    At(u32),
    Taken(Box<Parked>),
    Later,
}

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
    pub(crate) fn find(
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
    /// The log itself loses nothing.
    pub(crate) fn fail_over_the_store(&mut self) {
        let (dies, promotes) = if self.rules.fails_together { (1_000, 1_000) } else { (300, 500) };
        if self.chance(dies) {
            self.node_fate();
        }
        self.hang_up(Line::CONTROL);
        if self.chance(promotes) {
            self.store.fail_over();
        }
        self.note(|| "the store hangs up".into());
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
        let replicated = match self.rules {
            Rules { fails_together: true, .. } => 200,
            Rules { failovers: 1.., .. } => 150,
            _ => 500,
        };
        if self.chance(replicated) {
            self.store.replicate();
        }
        self.note(|| format!("node {at} writes its records"));
    }
}
