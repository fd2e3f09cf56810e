//! The log: accepts drafts, orders them, and hands them out again on its tail. Memory and Redis are twins:
//! one scenario file (`tests/log_scenario.rs`) runs on both.

pub mod config;
pub mod memory;
mod recent_commands;
mod recent_ids;
pub mod redis;
pub mod window;

use crate::model::command::SessionCommand;
use crate::model::draft::Draft;
use crate::model::event::{Batch, Event};
use crate::model::id::Id;
use crate::model::offset::{Epoch, Offset, Position};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use recent_ids::ID_LIFETIME;

/// A boxed future that may cross threads: shards append, the control thread runs the log.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One draft's fate.
pub type Appended = Result<Accepted, AppendError>;

/// What became of a draft that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Where it is in the log; `None` for a volatile event.
    pub offset: Option<Offset>,
    /// Replicas that have it already, where that was asked for (`redis.min_replicas`).
    pub replicas: Option<u32>,
}

impl Accepted {
    /// A volatile event, which is stored nowhere.
    pub fn volatile() -> Self {
        Self { offset: None, replicas: None }
    }
}

/// The log beside its twins.
pub trait EventLog: Send + Sync + 'static {
    /// Appends the drafts in order; one answer each, in order. What is answered `Ok` will come out of every tail.
    /// May be called from any thread and runtime.
    fn append(&self, drafts: Vec<Draft>) -> Pending<'_, Vec<Appended>>;

    /// Appends an order to sessions; every node's tail brings it in [`Batch::orders`]. Bounded and ordered like
    /// [`EventLog::append`].
    fn order(&self, order: Arc<SessionCommand>) -> Pending<'_, Result<(), AppendError>>;

    /// Sends a probe through the log; it comes out of this node's tail in [`Batch::probes`].
    fn probe(&self, id: Id) -> Pending<'_, Result<(), AppendError>>;

    /// Runs the log on the control thread: fills the sink with what is kept of the window, then tails, until dropped.
    /// Reconnects by itself; returns never but by being dropped.
    fn run(self: Arc<Self>, sink: Arc<dyn Sink>) -> Pending<'static, ()>;

    /// How it stands right now.
    fn status(&self) -> LogStatus;
}

/// Where a log's life begins for this node.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The life that all following positions belong to.
    pub epoch: Epoch,
    /// The history has everything after this position; what a client missed before it cannot be proven.
    pub floor: Position,
    /// The tail delivers what comes after this position; at or after the last event of the history.
    pub head: Position,
    /// What of the recovery window existed already, oldest first; it is not delivered to anybody.
    pub history: Vec<Arc<Event>>,
    /// The orders of that time, oldest first.
    pub commands: Vec<(Position, Arc<SessionCommand>)>,
}

/// Who takes what the tail brings. Called in log order, from the control thread.
pub trait Sink: Send + Sync + 'static {
    /// Called once before any other.
    /// Called again when continuity was lost, and everybody must be told: the epoch differs, or it is the same and
    /// this node alone missed entries that were trimmed before it could read them.
    fn reset(&self, snapshot: Snapshot);

    /// The next events. Completes when the hub has room for more, so a full hub slows the tail.
    fn deliver(&self, batch: Batch) -> Pending<'_, ()>;

    /// Whether [`Sink::deliver`] would complete at once, as long as nobody else delivers.
    fn has_room(&self) -> bool;

    /// The tail has delivered everything up to here: proof of progress. The position may be past the last event,
    /// where probes and malformed entries lie.
    fn advanced_to(&self, position: Position);
}

/// What health says of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStatus {
    /// Appends work and the tail makes progress. `redis` tells which twin.
    Ready,
    /// Redis is configured and not reached.
    Connecting,
    /// The embedded log: there is no Redis.
    Embedded,
}

/// Why a draft was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log did not answer in time or is not reached; whether the entry was stored is not known.
    #[error("the log is not reachable: {0}; try again")]
    Unavailable(String),
    /// The hub is behind; publishing faster would only fill memory.
    #[error("this node is behind with delivering; try again in a second")]
    Overloaded,
    /// Redis refused the write: out of memory, missing rights.
    #[error("the log refused the event: {0}")]
    Refused(String),
    /// It is stored, and may be delivered, but too few replicas had it in time: a failover could lose it.
    #[error(
        "the event is stored and may be delivered, but {have} of {wanted} replicas have it \
         (`min_replicas`); a retry with the same `id` is safe"
    )]
    NotReplicated {
        /// Replicas that have it.
        have: u32,
        /// `redis.min_replicas`.
        wanted: u32,
    },
}

impl AppendError {
    /// The `code` of the error body, and the `reason` of `roomcast_events_refused_total`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Refused(_) => "log_refused",
            Self::NotReplicated { .. } => "not_replicated",
        }
    }
}
