//! The log: accepts drafts, puts them in order, and delivers them on its tail. [`EventLog`] has two implementations, in
//! memory and in Redis; `tests/log_scenario.rs` runs on both.

pub mod backfill;
pub mod config;
pub mod interest;
pub mod memory;
mod recent_commands;
mod recent_events;
mod recent_ids;
pub mod redis;
pub mod shared_window;
pub mod traced;
pub mod window;

use crate::log::backfill::{Past, PastRange, PastUnavailable};
use crate::model::command::SessionCommand;
use crate::model::draft::Draft;
use crate::model::event::{Batch, Event};
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::Line;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub use recent_ids::ID_LIFETIME;

/// A boxed future that may cross threads: shards append, the control thread runs the log.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The result of appending one draft.
pub type Appended = Result<Accepted, AppendError>;

/// A draft that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its position in the log; `None` for a volatile event.
    pub offset: Option<Offset>,
    /// Replicas that have it, where `redis.min_replicas` asks for some.
    pub replicas: Option<u32>,
    /// Whether its idempotency id is known to be of an earlier draft, whose position this is.
    pub is_repeat: bool,
}

impl Accepted {
    /// A volatile event, which is stored nowhere.
    pub fn volatile() -> Self {
        Self { offset: None, replicas: None, is_repeat: false }
    }
}

/// An ordered log of events and session commands.
pub trait EventLog: Send + Sync + 'static {
    /// Appends the drafts in order, with one result each. What is `Ok` will come out of every tail. May be called from any
    /// thread and runtime. The Redis log answers within `redis.timeout`.
    fn append(&self, drafts: Vec<Draft>) -> BoxFuture<'_, Vec<Appended>>;

    /// [`EventLog::append`] of a log that answers at once: takes the drafts, and adds a result for each to `answers`. Both
    /// lists can be used again. `false`: this log has to wait, and nothing was taken. On a shard's thread, what was taken may
    /// be delivered a little later, together with what other tasks append in the same turn.
    fn append_now(&self, _drafts: &mut Vec<Draft>, _answers: &mut Vec<Appended>) -> bool {
        false
    }

    /// Appends a session command, which every node's tail delivers in [`Batch::commands`]. Bounded and ordered like
    /// [`EventLog::append`].
    fn append_command(&self, command: Arc<SessionCommand>) -> BoxFuture<'_, Result<(), AppendError>>;

    /// Sends a probe through the log, which this node's tail delivers in [`Batch::probes`].
    fn probe(&self, id: Id) -> BoxFuture<'_, Result<(), AppendError>>;

    /// Runs the log on the control thread: gives the sink a snapshot, then what is appended, until dropped. Reconnects by
    /// itself and never returns.
    fn run(self: Arc<Self>, sink: Arc<dyn Sink>) -> BoxFuture<'static, ()>;

    /// Reads a part of the log again, newest first and no longer than `within`: what was found by then is complete after a
    /// later position than was asked for.
    fn read_past(&self, range: PastRange, within: Duration) -> BoxFuture<'_, Result<Past, PastUnavailable>>;

    /// What the calling thread appends goes over a connection of its own, where the log has connections; to be run on the
    /// thread of each shard, until dropped.
    fn run_appender(self: Arc<Self>, _shard: usize) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Notes the position of an event that this node added beside the log (an announcement of presence). What it
    /// appends from then on, volatile or not, reaches no client before that event.
    fn note_announced(&self, _position: Position) {}

    /// What an event to these rooms comes after that is on other lines: the field `after` of an entry of the control line
    /// that is written beside this log.
    fn before(&self, _rooms: &[Room]) -> Option<String> {
        None
    }

    /// The newest entry of a line that this node got acknowledged a moment before `now`, where the log has several lines.
    fn acknowledged(&self, _line: Line, _now: Instant) -> Option<Offset> {
        None
    }

    /// Its state now, for health checks.
    fn status(&self) -> LogStatus;

    /// What keeps it from working although its server answers.
    fn problem(&self) -> Option<String> {
        None
    }
}

/// Where a tail starts.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The line of the log that starts here.
    pub line: Line,
    /// The epoch of all following positions.
    pub epoch: Epoch,
    /// The history is complete after this position. What a client missed before it is unknown.
    pub floor: Position,
    /// The tail delivers what comes after this position, which is not before the last event of the history.
    pub head: Position,
    /// Events of the recovery window that exist already, oldest first. They are not delivered to clients.
    pub history: Vec<Arc<Event>>,
    /// Session commands of that time, oldest first.
    pub commands: Vec<(Position, Arc<SessionCommand>)>,
}

/// Receives what the tails deliver, each line in its order. Two calls for one line never run at once.
pub trait Sink: Send + Sync + 'static {
    /// The tail starts here. Called before any other method, and again after each discontinuity, of which all clients must
    /// hear: the epoch differs, or it is the same and this node alone missed entries that were trimmed before it read
    /// them.
    fn reset(&self, snapshot: Snapshot);

    /// [`Sink::reset`] of several lines, of which clients hear at once.
    fn reset_all(&self, snapshots: Vec<Snapshot>) {
        snapshots.into_iter().for_each(|snapshot| self.reset(snapshot));
    }

    /// The log goes on in a new epoch, and everything before it was delivered: clients that are connected missed nothing.
    /// No offset of the former epoch is known any more.
    fn renewed(&self, snapshot: Snapshot) {
        self.reset(snapshot);
    }

    /// Whether this node needs the event at this offset for this room. Where it needs an event for none of its rooms, the
    /// tail may leave it out: the sink has noted that it was not kept. Asked in log order, and before the event is delivered.
    fn wants(&self, _namespace: &str, _room: &str, _at: Offset) -> bool {
        true
    }

    /// A session command was read, and follows in a batch: rooms that sessions join by it are wanted from here on. Called in
    /// log order between [`Self::wants`].
    fn foresee(&self, _command: &SessionCommand) {}

    /// Delivers a batch. Completes when there is room for the next one, so slow shards slow the tail down.
    fn deliver(&self, batch: Batch) -> BoxFuture<'_, ()>;

    /// Delivers a batch if there is room for it now.
    ///
    /// # Errors
    /// The batch, undelivered, where [`Sink::deliver`] would have to wait.
    fn try_deliver(&self, batch: Batch) -> Result<(), Batch>;

    /// The tail has delivered everything up to this position, which may be after the last event: probes and malformed
    /// entries have positions too.
    fn advanced_to(&self, line: Line, position: Position);
}

/// The state of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStatus {
    /// Appends work and the tail makes progress.
    Ready,
    /// Redis is configured but not reachable.
    Connecting,
    /// The embedded log: there is no Redis.
    Embedded,
}

/// Why a draft was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log did not answer in time or is not reachable. Whether the entry was stored is unknown.
    #[error("the log is not reachable: {0}; try again")]
    Unavailable(String),
    /// Too many events wait for Redis, or for the shards; more would only fill memory.
    #[error("too many events wait in this node; try again in a second")]
    Overloaded,
    /// Redis refused the write: it is out of memory, or the user lacks rights.
    #[error("the log refused the event: {0}")]
    Refused(String),
    /// The event is stored and may be delivered, but too few replicas had it in time: a failover could lose it.
    #[error(
        "the event is stored and may be delivered, but {have} of {wanted} replicas have it \
         (`min_replicas`); a retry with the same `id` is safe"
    )]
    NotReplicated {
        /// Replicas that had it in time.
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
