//! Copies what Socket.IO's emitters and adapters publish into the log: `[redis] emitter_key` and `streams_key`.
//!
//! Every node subscribes, with patterns only: a plain subscription would count as a Socket.IO server, for which the others
//! would wait (docs/protocol/emitters.md section 2). One node at a time copies, under a lease that Redis checks with each
//! append ([`crate::log::redis::leased_append`]). Each node keeps what it received until the copy comes out of the log
//! ([`crate::bridge::copy_tracker`]).
//!
//! A new holder first sends a probe through the log. Once that comes out, all copies of the former holder have come out too,
//! and it appends the rest. It does the same after an append whose reply was lost. A node that received a message before the
//! holder started to listen takes the lease over.

mod copier;
mod observer;
mod streams;
mod subscription;

pub use observer::CopyObserver;

use crate::bridge::copy_tracker::CopyTracker;
use crate::bridge::request::EmitterError;
use crate::log::redis::RedisLog;
use crate::log::redis::leased_append::LeaseToken;
use crate::log::{AppendError, Appended, EventLog as _};
use crate::metrics::Metrics;
use crate::model::close::DropReason;
use crate::model::draft::{DraftLimits, Source};
use crate::model::id::{Id, NodeId};
use crate::redis::config::RedisConfig;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch as channel};

/// Warnings about single messages are logged at most this often. The metrics count all of them.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// This node's part in copying.
pub struct EmitterBridge {
    log: Arc<RedisLog>,
    id: NodeId,
    key: Option<String>,
    stream: Option<String>,
    limits: DraftLimits,
    metrics: Arc<Metrics>,
    tracker: Mutex<CopyTracker>,
    arrival: Notify,
    /// The token of the lease, while this node holds it.
    lease: channel::Sender<Option<LeaseToken>>,
    leaving: channel::Sender<bool>,
    /// The probe that has not come out of the log yet.
    probing: channel::Sender<Option<Id>>,
    started: Instant,
    /// Milliseconds after the start from which the next warning may be logged.
    quiet_until: AtomicU64,
}

impl EmitterBridge {
    /// `None` where neither key is configured.
    pub fn new(
        config: &RedisConfig,
        log: Arc<RedisLog>,
        id: NodeId,
        limits: DraftLimits,
        metrics: Arc<Metrics>,
    ) -> Option<Arc<Self>> {
        let (key, stream) = (config.emitter_key.clone(), config.streams_key.clone());
        (key.is_some() || stream.is_some()).then(|| {
            Arc::new(Self {
                log,
                id,
                key,
                stream,
                limits,
                metrics,
                tracker: Mutex::default(),
                arrival: Notify::new(),
                lease: channel::Sender::new(None),
                leaving: channel::Sender::new(false),
                probing: channel::Sender::new(None),
                started: Instant::now(),
                quiet_until: AtomicU64::new(0),
            })
        })
    }

    /// Subscribes and, while this node holds the lease, copies; until dropped.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(subscription::run(&self), copier::run(&self), streams::run(&self));
    }

    /// Gives the lease back, so that another node continues at once.
    pub async fn leave(&self) {
        self.leaving.send_replace(true);
        // Where Redis does not answer, the lease expires.
        let (_, timeout) = self.log.redis();
        let _ = tokio::time::timeout(timeout, self.lease.subscribe().wait_for(Option::is_none)).await;
    }

    fn tracker(&self) -> MutexGuard<'_, CopyTracker> {
        self.tracker.lock()
    }

    fn lease(&self) -> Option<LeaseToken> {
        self.lease.borrow().clone()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts a message that cannot be read. All nodes receive it; only the holder of the lease counts it.
    fn refuse(&self, place: &str, error: &EmitterError) {
        if self.lease().is_none() {
            return;
        }
        self.metrics.events.dropped(DropReason::Malformed, 1);
        self.metrics.events.refused(Source::Emitter, error.code());
        if self.may_warn() {
            tracing::warn!(%error, place, "a message of an emitter is refused and not delivered");
        }
    }

    /// Counts results; whether all events are in the log, also those that too few replicas have.
    fn count(&self, answers: &[Appended]) -> bool {
        let stored = |answer: &&Appended| matches!(answer, Ok(_) | Err(AppendError::NotReplicated { .. }));
        let accepted = answers.iter().filter(stored).count();
        self.metrics.events.accepted(Source::Emitter, accepted as u64);
        if let Some(Err(error)) = answers.iter().find(|answer| !stored(answer))
            && self.may_warn()
        {
            tracing::warn!(%error, "copying from emitters is interrupted; trying again");
        }
        accepted == answers.len()
    }

    fn may_warn(&self) -> bool {
        let (now, until) = (self.now_ms(), self.quiet_until.load(Ordering::Relaxed));
        let next = now + WARNING_INTERVAL.as_millis() as u64;
        now >= until && self.quiet_until.swap(next, Ordering::Relaxed) == until
    }

    /// Waits until all that was appended before has come out of the log, by sending a probe through it.
    ///
    /// # Errors
    /// When the log does not take the probe, or it does not come out in time.
    async fn read_the_log(&self) -> Result<(), AppendError> {
        let id = Id::random();
        let mut probing = self.probing.subscribe();
        self.probing.send_replace(Some(id));
        self.log.probe(id).await?;
        // A log that started over may have lost it.
        let (_, timeout) = self.log.redis();
        match tokio::time::timeout(timeout, probing.wait_for(Option::is_none)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(AppendError::Unavailable("the tail is behind".into())),
        }
    }
}
