//! What comes and goes on this node's shards, and the one task that tells the store of it, and the backend what the store
//! makes of it.

use crate::backend::Backend;
use crate::backend::request::{BackendRequest, RequestKind};
use crate::model::close::DropReason;
use crate::model::draft::Source;
use crate::node::context::Node;
use crate::presence::config::PresenceConfig;
use crate::presence::tracker::{Millis, Table};
use crate::presence::{Applied, Change, Fact, Messages, Store, StoreError, Turn, TurnKind};
use crate::shard::timers::millis;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::sync::Notify;

/// Changes in one step of the store: some 10 µs each there.
const AT_ONCE: usize = 200;
/// Notices that wait for the backend while what a dead node has left is removed at full speed; over it, one part a tick:
/// it may be more than the notices that may wait.
const MAX_UNTOLD: usize = 5_000;
/// The store hears that this node lives so often, at least four times in a lease.
const TICK: Duration = Duration::from_secs(1);
/// Changes are gathered for so long: to wake another thread for each connection would cost more than all the rest of it.
const GATHER: Duration = Duration::from_millis(3);
/// Between two attempts while the store does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// What this node knows of who is there.
pub struct Presence {
    /// What all nodes know together.
    pub store: Arc<dyn Store>,
    table: Mutex<Table>,
    started: Instant,
    tick: Duration,
    wake: Notify,
    leaving: AtomicBool,
    left: Notify,
}

impl Presence {
    /// Nobody is there yet.
    pub fn new(config: &PresenceConfig, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            table: Mutex::new(Table::new(millis(config.grace))),
            started: Instant::now(),
            tick: (config.lease / 4).min(TICK),
            wake: Notify::new(),
            leaving: AtomicBool::new(false),
            left: Notify::new(),
        }
    }

    fn now(&self) -> Millis {
        millis(self.started.elapsed())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// One connection more makes a fact true.
    pub fn enter(&self, fact: Fact, messages: impl FnOnce() -> Option<Messages>) {
        if self.table().enter(fact, messages) {
            self.wake.notify_one();
        }
    }

    /// One connection less.
    pub fn exit(&self, fact: &Fact, lost: bool) {
        if self.table().exit(fact, self.now(), lost) {
            self.wake.notify_one();
        }
    }

    /// Writes what waits and says that this node stops: its users have the grace to come elsewhere.
    pub async fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.wake.notify_one();
        self.left.notified().await;
    }
}

/// Writes what changes, until the node stops.
pub async fn run(node: Arc<Node>) {
    let presence = &node.presence;
    let mut writer = Writer { node: &node, number: 0, again: None, told: false };
    loop {
        let now = presence.now();
        let until_next = presence.table().next().map_or(Millis::MAX, |next| next.saturating_sub(now));
        let wait = presence.tick.min(Duration::from_millis(until_next));
        // Woken or due: both mean that there is something to write.
        if tokio::time::timeout(wait, presence.wake.notified()).await.is_ok() {
            tokio::time::sleep(GATHER).await;
        }
        let leaving = presence.leaving.load(Ordering::Relaxed);
        if let Err(error) = writer.write_all().await {
            writer.complain(&error);
            if !leaving {
                tokio::time::sleep(PAUSE).await;
            }
        } else {
            writer.told = false;
        }
        if leaving {
            if let Err(error) = presence.store.leave().await {
                tracing::debug!(%error, "the others find out by themselves that this node has gone");
            }
            return presence.left.notify_one();
        }
    }
}

/// The steps of this node.
struct Writer<'a> {
    node: &'a Node,
    /// Of the last step.
    number: u64,
    /// A step whose answer was lost, and when it was taken.
    again: Option<(Vec<Change>, Millis)>,
    /// Whether it was said that the store does not answer.
    told: bool,
}

impl Writer<'_> {
    /// Takes steps until nothing is left.
    async fn write_all(&mut self) -> Result<(), StoreError> {
        // The first step is taken in any case: it says that this node lives.
        let mut is_due = true;
        loop {
            let presence = &self.node.presence;
            let now = presence.now();
            let changes = match self.again.take() {
                Some((mut changes, taken)) => {
                    changes.iter_mut().for_each(|change| change.age += now - taken);
                    changes
                }
                None => {
                    let changes = presence.table().take(now, AT_ONCE);
                    if changes.is_empty() && !is_due {
                        return Ok(());
                    }
                    self.number += 1;
                    changes
                }
            };
            match presence.store.apply(self.number, &changes).await {
                Ok(Applied::Done { turns, events, more }) => {
                    presence.table().confirm(&changes);
                    self.node.metrics.accepted(Source::Client, events);
                    turns.iter().for_each(|turn| tell(self.node, turn));
                    let behind =
                        self.node.backend.as_ref().is_some_and(|backend| backend.pending_notices() > MAX_UNTOLD);
                    is_due = more && !behind;
                }
                Ok(Applied::Behind) => {
                    presence.table().put_back(changes);
                    self.number += 1;
                    let known = presence.store.reset(self.number).await?;
                    if !known.lost {
                        // Who hung up while this node stood still is seen to be gone first.
                        tokio::time::sleep(PAUSE).await;
                    }
                    tracing::warn!(
                        lost = known.lost,
                        facts = known.facts.len(),
                        "presence of this node is written again"
                    );
                    presence.table().write_again(known, presence.now());
                }
                Err(error) => {
                    self.again = Some((changes, now));
                    return Err(error);
                }
            }
        }
    }

    fn complain(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(error = error.0, "who is present cannot be written; it is tried again until it can");
        }
    }
}

/// Tells the backend, where it wants to hear of it.
fn tell(node: &Node, turn: &Turn) {
    let kind = match turn.kind {
        TurnKind::Online(_) => RequestKind::Online,
        TurnKind::Offline(..) => RequestKind::Offline,
        TurnKind::Occupied(..) => RequestKind::Occupied,
        TurnKind::Vacated(..) => RequestKind::Vacated,
    };
    let Some(backend) = node.backend.as_deref().filter(|backend: &&Backend| backend.wants(kind)) else { return };
    let mut call = BackendRequest::new(kind, rfc3339(turn.at_ms));
    match &turn.kind {
        TurnKind::Online(user) => call.user = Some(user),
        TurnKind::Offline(user, seen_ms) => {
            call.user = Some(user);
            call.last_seen = Some(rfc3339(*seen_ms));
        }
        TurnKind::Occupied(namespace, room) | TurnKind::Vacated(namespace, room) => {
            call.namespace = Some(namespace);
            call.room = Some(room);
        }
    }
    let dropped = backend.notify(&call);
    node.metrics.dropped(DropReason::Notice, dropped as u64);
}

/// Unix milliseconds as text.
pub fn rfc3339(unix_ms: u64) -> String {
    // The year 9999 is the last that the format has.
    let max = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms.min(max))).to_string()
}
