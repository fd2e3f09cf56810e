//! From the log's tail to the window and the shards.

use crate::draft::Source;
use crate::event::{Batch, Delivery, Offset, Position};
use crate::hub::node::{Command, Node};
use crate::log::{Beginning, Pending, Sink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Bytes of events that may wait at a shard before the tail waits too.
const MOST_BACKLOG: usize = 32 << 20;

/// The sink that the log's tail feeds.
pub struct Feed {
    node: Arc<Node>,
    begun: AtomicBool,
    started: Instant,
}

impl Feed {
    /// A feed for this node's shards.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self { node, begun: AtomicBool::new(false), started: Instant::now() })
    }
}

impl Sink for Feed {
    fn begin(&self, beginning: Beginning) {
        let offset = Offset { epoch: beginning.epoch, position: beginning.head };
        let mut window = self.node.window.write().unwrap_or_else(PoisonError::into_inner);
        window.begin(&beginning, self.now());
        drop(window);
        let reset = self.begun.swap(true, Ordering::Relaxed);
        for shard in self.node.shards() {
            shard.tell(Command::Begin { offset, reset });
        }
        self.progress();
    }

    fn deliver(&self, batch: Batch) -> Pending<'_, ()> {
        Box::pin(async move {
            for id in batch.probes {
                if self.node.probes.tail_saw(id) {
                    self.node.shards().iter().for_each(|shard| shard.tell(Command::Probe(id)));
                }
            }
            if !batch.events.is_empty() {
                self.keep(&batch.events);
                let bytes = batch.events.iter().map(|event| event.size()).sum();
                let events: Arc<[_]> = batch.events.into_iter().map(|event| Arc::new(Delivery::new(event))).collect();
                for shard in self.node.shards() {
                    shard.deliver(events.clone(), bytes, MOST_BACKLOG).await;
                }
            }
            self.progress();
        })
    }

    fn has_room(&self) -> bool {
        self.node.shards().iter().all(|shard| shard.has_room(MOST_BACKLOG))
    }

    fn caught_up(&self, position: Position) {
        let mut window = self.node.window.write().unwrap_or_else(PoisonError::into_inner);
        window.advance(position);
        window.expire(self.now());
        drop(window);
        self.progress();
    }
}

impl Feed {
    /// Milliseconds on a clock that does not go back, for the window's ages.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn progress(&self) {
        self.node.tail_seen_ms.store(unix_ms(), Ordering::Relaxed);
    }

    /// The window has an event before any shard does, so that a resume up to a shard's position finds it.
    fn keep(&self, events: &[Arc<crate::event::Event>]) {
        let mut window = self.node.window.write().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let foreign = events.iter().filter(|event| event.draft.source == Source::Stream).count();
        // Those of nodes were counted when they were accepted; every node counts what others added.
        self.node.metrics.accepted(Source::Stream, foreign as u64);
        for event in events {
            window.push(event.clone(), now);
        }
    }
}

/// Unix milliseconds by this node's clock.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
