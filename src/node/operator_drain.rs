//! A drain that an operator asked for, and how far it has come. The process goes on until it is stopped, and lets nobody in.

use crate::cluster::DrainStatus;
use crate::model::millis::whole_millis;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Default)]
pub struct OperatorDrain {
    begun: OnceLock<Begun>,
    refuses: AtomicBool,
    done: AtomicBool,
}

struct Begun {
    at: Instant,
    over: Duration,
    connections: usize,
}

impl OperatorDrain {
    /// Notes that it begins; `false` if it was begun before.
    pub fn begin(&self, over: Duration, connections: usize) -> bool {
        self.begun.set(Begun { at: Instant::now(), over, connections }).is_ok()
    }

    /// From now on new clients are refused.
    pub fn refuse_clients(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    /// All connections are closed.
    pub fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    /// Whether new clients are refused.
    pub fn refuses_clients(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }

    /// How far it has come; `None` if nobody asked for one. `open` are the connections now.
    pub fn status(&self, open: usize) -> Option<DrainStatus> {
        self.begun.get().map(|begun| DrainStatus {
            over_ms: whole_millis(begun.over),
            elapsed_ms: whole_millis(begun.at.elapsed()),
            connections: begun.connections as u64,
            left: open as u64,
            done: self.done.load(Ordering::Relaxed),
        })
    }
}
