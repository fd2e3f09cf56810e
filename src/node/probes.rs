//! The probes of `/socket/ping` that are on their way, and the last answer.

use crate::model::id::Id;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Probes on their way.
#[derive(Default)]
pub struct Probes {
    pending: Mutex<HashMap<Id, ProbeState>>,
    /// The last answer. Its lock lets one probe at a time be on its way.
    pub last: LastAnswer,
}

struct ProbeState {
    tails_left: usize,
    shards_left: usize,
    done: Option<oneshot::Sender<()>>,
}

/// Where a probe was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The log did not take it: its error.
    Log(String),
    /// The tail did not read it.
    Tail,
    /// So many shards did not see it in time.
    Shards(usize),
}

impl Probes {
    /// Starts waiting for a probe; the receiver completes when all `shards` have seen it on every line of the log.
    pub fn start(&self, id: Id, lines: usize, shards: usize) -> (PendingProbe<'_>, oneshot::Receiver<()>) {
        let (done, receiver) = oneshot::channel();
        let state = ProbeState { tails_left: lines, shards_left: lines * shards, done: Some(done) };
        self.pending.lock().insert(id, state);
        (PendingProbe { probes: self, id }, receiver)
    }

    /// The tail of a line has read it; `false` if it is another node's probe or nobody waits any more.
    pub fn tail_saw(&self, id: Id) -> bool {
        self.pending.lock().get_mut(&id).map(|probe| probe.tails_left = probe.tails_left.saturating_sub(1)).is_some()
    }

    /// One shard has seen it.
    pub fn shard_saw(&self, id: Id) {
        if let Some(probe) = self.pending.lock().get_mut(&id) {
            probe.shards_left = probe.shards_left.saturating_sub(1);
            if probe.shards_left == 0
                && let Some(done) = probe.done.take()
            {
                // The caller may have given up.
                let _ = done.send(());
            }
        }
    }
}

type LastAnswer = tokio::sync::Mutex<Option<(Instant, Result<Duration, Stage>)>>;

/// A probe that somebody waits for. It is forgotten when dropped, also when the caller hangs up.
pub struct PendingProbe<'a> {
    probes: &'a Probes,
    id: Id,
}

impl PendingProbe<'_> {
    /// The stage that it has not passed.
    pub fn stage(&self) -> Stage {
        match self.probes.pending.lock().get(&self.id) {
            Some(probe) if probe.tails_left == 0 => Stage::Shards(probe.shards_left),
            _ => Stage::Tail,
        }
    }
}

impl Drop for PendingProbe<'_> {
    fn drop(&mut self) {
        self.probes.pending.lock().remove(&self.id);
    }
}
