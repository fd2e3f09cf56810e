//! The memory budget of the node: what is held, by kind, and how close that is to `limits.memory`.

use std::cmp;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

macro_rules! holdings {
    ($($name:ident, $label:literal, $doc:literal;)*) => {
        /// What memory is held for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Holding { $(#[doc = $doc] $name,)* }
        impl Holding {
            /// Every kind, in the order of their discriminants.
            pub const ALL: &[Self] = &[$(Self::$name),*];
            /// The `kind` label of `roomcast_memory_bytes`.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }
        }
        const HOLDINGS: usize = Holding::ALL.len();
    };
}

holdings! {
    Outbox, "outbox", "Unsent bytes of connections.";
    Replay, "replay", "What is kept for clients that read what they missed.";
    Parked, "parked", "Sessions without a connection that may resume.";
    Pending, "pending", "Messages of clients that wait for the backend, the log or their rate.";
    Unfinished, "unfinished", "Fragments and attachments of messages that are not complete.";
    Handshake, "handshake", "The handshake auth of sessions.";
    Heads, "heads", "Heads of requests that are not complete.";
    Bodies, "bodies", "Request bodies that are being read, and large answers to publishers that are being written.";
    Window, "window", "The recent log, for clients that resume.";
    Records, "records", "Session records and messages to other nodes, on their way to the shared store.";
    Copies, "copies", "Events of emitters that are not in the log yet.";
    Notices, "notices", "Notices for the backend.";
}

/// From this part of the limit on, new work is refused: [`Level::Tight`].
const TIGHT_PERCENT: usize = 85;
/// From this part of the limit on, the largest holders are closed until [`TIGHT_PERCENT`] is reached: [`Level::Over`].
const OVER_PERCENT: usize = 95;

/// How close the node is to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything is let in.
    Calm,
    /// New connections, handshakes and joins with a replay are refused.
    Tight,
    /// The largest holders are closed.
    Over,
}

/// A counter with a cache line of its own, so that shards which charge different kinds do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counter(AtomicUsize);

/// The memory of the node, as far as its clients can grow it.
///
/// The sums by kind are near enough for limits, but they are not all: tables, the allocator and the events that many outboxes
/// share come on top. So [`MemoryBudget::observe`] gets what the process really has, regularly. Between two looks the sums
/// say how that has changed.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: AtomicUsize,
    held: [Counter; HOLDINGS],
    /// What the process had at the last look beyond the sums; negative where the sums exceed it.
    beyond: AtomicIsize,
}

impl MemoryBudget {
    /// For a limit in bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), held: Default::default(), beyond: AtomicIsize::new(0) })
    }

    /// No limit, for tests and for systems that do not tell how much memory they have.
    pub fn unlimited() -> Arc<Self> {
        Self::new(usize::MAX)
    }

    /// `limits.memory`.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Another limit from now on. What is held stays; over the limit the largest holders go as ever.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Counts bytes that are held from now on. Whoever charges them releases them; [`MemoryBudget::hold`] does both.
    pub fn charge(&self, kind: Holding, bytes: usize) {
        self.counter(kind).fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that are no longer held.
    pub fn release(&self, kind: Holding, bytes: usize) {
        self.counter(kind).fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes over a sum that changed from `before` to `after`, which its owner keeps anyway.
    pub fn adjust(&self, kind: Holding, before: usize, after: usize) {
        match after.cmp(&before) {
            cmp::Ordering::Greater => self.charge(kind, after - before),
            cmp::Ordering::Less => self.release(kind, before - after),
            // Nearly always: the counter is not touched, which all shards share.
            cmp::Ordering::Equal => {}
        }
    }

    /// Counts bytes until the guard is dropped.
    pub fn hold(self: &Arc<Self>, kind: Holding, bytes: usize) -> Held {
        self.charge(kind, bytes);
        Held { budget: self.clone(), kind, bytes }
    }

    /// Bytes that are held of this kind.
    pub fn held(&self, kind: Holding) -> usize {
        self.counter(kind).load(Ordering::Relaxed)
    }

    /// Takes over how many bytes the process has just now.
    pub fn observe(&self, resident: usize) {
        self.beyond.store(resident.cast_signed().wrapping_sub(self.sum().cast_signed()), Ordering::Relaxed);
    }

    /// Bytes in use, near enough for limits.
    pub fn used(&self) -> usize {
        self.sum().saturating_add_signed(self.beyond.load(Ordering::Relaxed))
    }

    /// How close that is to the limit.
    pub fn level(&self) -> Level {
        let used = self.used();
        if used < self.part(TIGHT_PERCENT) {
            Level::Calm
        } else if used < self.part(OVER_PERCENT) {
            Level::Tight
        } else {
            Level::Over
        }
    }

    /// Whether new work is refused.
    pub fn is_tight(&self) -> bool {
        self.level() != Level::Calm
    }

    /// How many bytes must go until nothing is refused any more.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.part(TIGHT_PERCENT))
    }

    fn part(&self, percent: usize) -> usize {
        // Divided first: the limit may be as large as the type.
        self.limit() / 100 * percent
    }

    fn sum(&self) -> usize {
        self.held.iter().map(|counter| counter.0.load(Ordering::Relaxed)).fold(0, usize::wrapping_add)
    }

    fn counter(&self, kind: Holding) -> &AtomicUsize {
        &self.held[kind as usize].0
    }
}

/// Counts what is held until it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<MemoryBudget>,
    kind: Holding,
    bytes: usize,
}

impl Held {
    /// The bytes that it counts.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What they are held for.
    pub fn kind(&self) -> Holding {
        self.kind
    }

    /// Counts so many bytes from now on.
    pub fn resize(&mut self, bytes: usize) {
        self.budget.adjust(self.kind, self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.release(self.kind, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_until_it_is_dropped() {
        let budget = MemoryBudget::new(1_000);
        let mut one = budget.hold(Holding::Bodies, 400);
        budget.charge(Holding::Outbox, 100);
        assert_eq!((budget.used(), budget.held(Holding::Bodies), budget.level()), (500, 400, Level::Calm));
        one.resize(750);
        assert_eq!((budget.level(), budget.excess()), (Level::Tight, 0));
        one.resize(900);
        assert_eq!((budget.level(), budget.excess()), (Level::Over, 150));
        drop(one);
        budget.release(Holding::Outbox, 100);
        assert_eq!((budget.used(), budget.level()), (0, Level::Calm));
    }

    #[test]
    fn what_the_process_has_is_the_truth_and_the_sums_say_how_it_changes() {
        let budget = MemoryBudget::new(1_000);
        budget.charge(Holding::Outbox, 2_000);
        budget.observe(300);
        assert_eq!((budget.used(), budget.level()), (300, Level::Calm), "an event in many outboxes is held once");
        budget.charge(Holding::Pending, 600);
        assert_eq!((budget.used(), budget.is_tight()), (900, true));
        budget.observe(860);
        budget.release(Holding::Pending, 600);
        assert_eq!(budget.used(), 260);
        budget.release(Holding::Outbox, 2_000);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn labels_are_distinct() {
        let mut labels: Vec<_> = Holding::ALL.iter().map(|kind| kind.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), HOLDINGS);
        assert!(!MemoryBudget::unlimited().is_tight());
    }
}
