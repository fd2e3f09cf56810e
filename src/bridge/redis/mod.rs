//! Copies what Socket.IO's emitters and adapters publish into the log: `[redis] emitter_key` and `streams_key`.
//!
//! Every node listens, with patterns only: a plain subscription would count as a Socket.IO server, which the others
//! would wait for (docs/protocol/emitters.md section 2). One node at a time copies, under a lease that Redis checks
//! with each append ([`crate::log::redis::leased_append`]); each keeps what it heard until its copy comes out of the
//! log ([`crate::bridge::copy_tracker`]). A successor first sends a probe through the log: once that comes out, all
//! copies of the former holder have, and what is left it appends. The same after an append whose answer was lost. A
//! node that heard what the holder cannot have heard, since that listens for a shorter time, takes the lease over.

mod copy;
mod listen;
mod streams;
mod watch;

pub use watch::Watch;

use crate::bridge::copy_tracker::CopyTracker;
use crate::bridge::request::EmitterError;
use crate::log::redis::RedisLog;
use crate::log::redis::leased_append::Claim;
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

/// Complaints about single messages are at least so far apart; what comes between is counted in the metrics only.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// The readers of this node.
pub struct Emitters {
    log: Arc<RedisLog>,
    id: NodeId,
    key: Option<String>,
    stream: Option<String>,
    limits: DraftLimits,
    metrics: Arc<Metrics>,
    heard: Mutex<CopyTracker>,
    arrival: Notify,
    /// The claim that has the lease, while it is this node's.
    held: channel::Sender<Option<Claim>>,
    leaving: channel::Sender<bool>,
    /// The probe that is to come out of the log.
    probing: channel::Sender<Option<Id>>,
    started: Instant,
    /// When the next complaint may be made, milliseconds after the start.
    quiet_until: AtomicU64,
}

impl Emitters {
    /// The readers that are configured; `None` where there are none.
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
                heard: Mutex::default(),
                arrival: Notify::new(),
                held: channel::Sender::new(None),
                leaving: channel::Sender::new(false),
                probing: channel::Sender::new(None),
                started: Instant::now(),
                quiet_until: AtomicU64::new(0),
            })
        })
    }

    /// Listens and, while this node has the lease, copies; until dropped.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(listen::run(&self), copy::run(&self), streams::run(&self));
    }

    /// Gives the lease back, so that another node goes on at once.
    pub async fn leave(&self) {
        self.leaving.send_replace(true);
        // Over with the node where Redis does not answer.
        let (_, timeout) = self.log.redis();
        let _ = tokio::time::timeout(timeout, self.held.subscribe().wait_for(Option::is_none)).await;
    }

    fn heard(&self) -> MutexGuard<'_, CopyTracker> {
        self.heard.lock()
    }

    fn claim(&self) -> Option<Claim> {
        self.held.borrow().clone()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts a message that cannot be read. All nodes heard it, so only the one that copies does.
    fn refuse(&self, place: &str, error: &EmitterError) {
        if self.claim().is_none() {
            return;
        }
        self.metrics.dropped(DropReason::Malformed, 1);
        self.metrics.refused(Source::Emitter, error.code());
        if self.may_complain() {
            tracing::warn!(%error, place, "what an emitter published is not delivered");
        }
    }

    /// Counts answers; whether all were good. What too few replicas have is in the log all the same.
    fn count(&self, answers: &[Appended]) -> bool {
        let stored = |answer: &&Appended| matches!(answer, Ok(_) | Err(AppendError::NotReplicated { .. }));
        let accepted = answers.iter().filter(stored).count();
        self.metrics.accepted(Source::Emitter, accepted as u64);
        if let Some(Err(error)) = answers.iter().find(|answer| !stored(answer))
            && self.may_complain()
        {
            tracing::warn!(%error, "copying from emitters is interrupted; trying again");
        }
        accepted == answers.len()
    }

    fn may_complain(&self) -> bool {
        let (now, until) = (self.now_ms(), self.quiet_until.load(Ordering::Relaxed));
        let next = now + COMPLAIN_EVERY.as_millis() as u64;
        now >= until && self.quiet_until.swap(next, Ordering::Relaxed) == until
    }

    /// Sends a probe through the log and waits until it comes out, and with it all that was appended before.
    ///
    /// # Errors
    /// When the log takes none.
    async fn read_the_log(&self) -> Result<(), AppendError> {
        let id = Id::random();
        let mut probing = self.probing.subscribe();
        self.probing.send_replace(Some(id));
        self.log.probe(id).await?;
        // A log that begins anew may have lost it.
        let (_, timeout) = self.log.redis();
        match tokio::time::timeout(timeout, probing.wait_for(Option::is_none)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(AppendError::Unavailable("its tail is behind".into())),
        }
    }
}
