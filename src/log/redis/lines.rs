//! What the lines of a node know of each other: how far each is read, what was acknowledged on each a moment ago, and how
//! each is doing, from which the node's metrics follow.

use crate::log::redis::backlog::Backlog;
use crate::log::redis::losses::Losses;
use crate::log::redis::partition_set::PartitionSet;
use crate::logging::Repeats;
use crate::metrics::{Gauge, Metrics};
use crate::model::after::After;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::model::partition::{Line, Partitions};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What was acknowledged so long ago is read on every node, or that node is behind by more than an entry waits.
const RECENT: Duration = Duration::from_secs(10);
/// How long an entry waits for another line.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// A line that an entry waited for in vain is not waited for again before it is read up to there, or this is over.
const GIVEN_UP_FOR: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Lines {
    pub(super) partitions: Partitions,
    lines: Box<[LineState]>,
    pub(super) metrics: Arc<Metrics>,
    /// What waits for any of them.
    pub(super) backlog: Arc<Backlog>,
    /// What they have lost and clients do not know yet.
    pub(super) losses: Losses,
    /// What they have logged.
    pub(super) repeats: Arc<Repeats>,
}

struct LineState {
    is_up: AtomicBool,
    lag_ms: AtomicU64,
    /// The same for operators, where there are several lines.
    lag: Option<Gauge>,
    bytes: AtomicI64,
    /// The line begins with a history up to here, which was read.
    read: watch::Sender<Position>,
    /// Everything up to here was delivered.
    delivered: watch::Sender<Position>,
    /// The newest entry of the line that this node got acknowledged.
    acknowledged: Newest,
    /// The newest entry of the control line that concerns rooms of this partition.
    announced: Newest,
}

/// An offset, and when it was noted.
#[derive(Default)]
struct Newest(Mutex<Option<(Offset, Instant)>>);

impl Newest {
    fn note(&self, offset: Offset) {
        let mut newest = self.0.lock();
        // A repeated idempotency id has an old position.
        if newest.is_none_or(|(known, _)| known.position <= offset.position) {
            *newest = Some((offset, Instant::now()));
        }
    }

    fn recent_offset(&self, now: Instant) -> Option<Offset> {
        let (offset, at) = (*self.0.lock())?;
        (now.saturating_duration_since(at) < RECENT).then_some(offset)
    }

    fn recent(&self) -> Option<Offset> {
        self.recent_offset(Instant::now())
    }

    fn forget(&self) {
        *self.0.lock() = None;
    }

    /// What is left of it comes before `head` on the line as it is now.
    fn fall_back(&self, head: Offset) {
        let mut newest = self.0.lock();
        let is_empty = head.position == Position::default();
        let left = newest.filter(|_| !is_empty);
        *newest = left.map(|(known, at)| (Offset { position: known.position.min(head.position), ..head }, at));
    }
}

impl Lines {
    pub(super) fn new(partitions: Partitions, metrics: Arc<Metrics>) -> Arc<Self> {
        let state = |line| LineState {
            lag: (!partitions.is_one()).then(|| metrics.log.line_lag(line)),
            is_up: AtomicBool::new(false),
            lag_ms: AtomicU64::new(0),
            bytes: AtomicI64::new(0),
            read: watch::Sender::new(Position::default()),
            delivered: watch::Sender::new(Position::default()),
            acknowledged: Newest::default(),
            announced: Newest::default(),
        };
        let lines = partitions.lines().map(state).collect();
        let losses = Losses::new(partitions);
        Arc::new(Self { partitions, lines, metrics, backlog: Arc::default(), losses, repeats: Arc::default() })
    }

    fn of(&self, line: Line) -> &LineState {
        &self.lines[line.index()]
    }

    pub(super) fn note_up(&self, line: Line, up: bool) {
        self.of(line).is_up.store(up, Ordering::Relaxed);
        self.metrics.log.redis_up.set(i64::from(self.lines.iter().all(|line| line.is_up.load(Ordering::Relaxed))));
    }

    pub(super) fn note_lag(&self, line: Line, lag_ms: u64) {
        self.of(line).lag_ms.store(lag_ms, Ordering::Relaxed);
        let longest = self.lines.iter().map(|line| line.lag_ms.load(Ordering::Relaxed)).max().unwrap_or(0);
        self.metrics.log.tail_lag.set(longest as f64 / 1e3);
        if let Some(gauge) = &self.of(line).lag {
            gauge.set(lag_ms as f64 / 1e3);
        }
    }

    pub(super) fn note_bytes(&self, line: Line, bytes: i64) {
        self.of(line).bytes.store(bytes, Ordering::Relaxed);
        let sum = self.lines.iter().fold(0_i64, |sum, line| sum.saturating_add(line.bytes.load(Ordering::Relaxed)));
        self.metrics.log.stream_bytes.set(sum);
    }

    /// The partitions whose rooms an event to these rooms concerns: what goes to everybody or to one session concerns all.
    pub(super) fn concerned<'a>(&self, rooms: impl Iterator<Item = &'a Room>) -> PartitionSet {
        let mut set = PartitionSet::default();
        for room in rooms {
            match self.partitions.of(room) {
                Line::CONTROL => return PartitionSet::ALL,
                partition => set.add(partition),
            }
        }
        set
    }

    /// What comes before an entry that is about to be written to a line and concerns these partitions.
    pub(super) fn before(&self, line: Line, concerned: PartitionSet) -> After {
        let mut after = After::default();
        match line {
            _ if self.partitions.is_one() => {}
            Line::CONTROL => {
                for partition in self.partitions.lines().filter(|line| concerned.has(*line)) {
                    self.of(partition).acknowledged.recent().into_iter().for_each(|offset| after.add(offset));
                }
            }
            partition => {
                self.of(partition).announced.recent().into_iter().for_each(|offset| after.add(offset));
            }
        }
        after
    }

    /// The newest entry of the control line that concerns a partition, of a moment ago.
    pub(super) fn announced(&self, partition: Line) -> Option<Position> {
        self.of(partition).announced.recent().map(|offset| offset.position)
    }

    /// This node got an entry acknowledged, or its presence script wrote it.
    pub(super) fn note_acknowledged(&self, entry: Offset, concerned: PartitionSet) {
        match entry.line {
            _ if self.partitions.is_one() => {}
            Line::CONTROL => {
                let partitions = self.partitions.lines().filter(|line| concerned.has(*line));
                partitions.for_each(|partition| self.of(partition).announced.note(entry));
                self.of(Line::CONTROL).acknowledged.note(entry);
            }
            partition => self.of(partition).acknowledged.note(entry),
        }
    }

    /// The newest entry of a line that this node got acknowledged, of a moment before `now`.
    pub(super) fn acknowledged(&self, line: Line, now: Instant) -> Option<Offset> {
        self.of(line).acknowledged.recent_offset(now)
    }

    /// A line is not run any more: its positions say nothing.
    pub(super) fn forget(&self, line: Line) {
        self.newest_of(line).for_each(Newest::forget);
    }

    /// A line has lost entries, and goes on behind `head`. What is left of those that this node got acknowledged still comes
    /// before what it publishes from now on.
    pub(super) fn fall_back(&self, head: Offset) {
        self.newest_of(head.line).for_each(|newest| newest.fall_back(head));
    }

    fn newest_of(&self, line: Line) -> impl Iterator<Item = &Newest> {
        let announced = self.lines.iter().filter(move |_| line == Line::CONTROL).map(|state| &state.announced);
        announced.chain([&self.of(line).acknowledged])
    }

    /// A line was delivered up to there.
    pub(super) fn note_delivered(&self, line: Line, position: Position) {
        if !self.partitions.is_one() {
            self.of(line).delivered.send_replace(position);
        }
    }

    /// The history of a line was read up to there, and is delivered next.
    pub(super) fn note_read(&self, line: Line, head: Position) {
        if !self.partitions.is_one() {
            self.of(line).read.send_replace(head);
        }
    }

    pub(super) fn delivered(&self, line: Line) -> Position {
        *self.of(line).delivered.borrow()
    }

    /// Completes when a line was delivered further than it is now.
    pub(super) async fn advance_of(&self, line: Line) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.of(line).delivered.subscribe().changed().await;
    }
}

/// What a tail waited for in vain. A line that has lost that, and goes on with another epoch, is waited for again.
#[derive(Default)]
pub(super) struct GivenUp(Vec<(Offset, Instant)>);

impl GivenUp {
    fn has(&mut self, lines: &Lines, named: Offset) -> bool {
        let is_behind = |offset: Offset| lines.delivered(offset.line) < offset.position;
        self.0.retain(|(offset, at)| is_behind(*offset) && at.elapsed() < GIVEN_UP_FOR);
        self.0.iter().any(|(offset, _)| (offset.line, offset.epoch) == (named.line, named.epoch))
    }
}

impl Lines {
    /// Whether a tail of `own` may deliver an entry with this `after` at once.
    pub(super) fn has_delivered(&self, own: Line, after: &After) -> bool {
        after.iter().all(|Offset { line, position, .. }| {
            line == own || self.lines.get(line.index()).is_none_or(|state| *state.delivered.borrow() >= position)
        })
    }

    /// Waits until the histories of other lines are read up to there, or these lines are delivered. `false` where one was not
    /// in time. None of them waits for what this one has read, since that was read after it.
    pub(super) async fn wait_to_begin(&self, own: Line, comes_after: &After) -> bool {
        let deadline = Instant::now() + MAX_WAIT;
        let mut in_time = true;
        for Offset { line, position, .. } in comes_after.iter().filter(|offset| offset.line != own) {
            let Some(state) = self.lines.get(line.index()) else { continue };
            let (mut read, mut delivered) = (state.read.subscribe(), state.delivered.subscribe());
            let reached = async {
                tokio::select! {
                    _ = read.wait_for(|read| *read >= position) => {}
                    _ = delivered.wait_for(|delivered| *delivered >= position) => {}
                }
            };
            in_time &= tokio::time::timeout_at(deadline, reached).await.is_ok();
        }
        in_time
    }

    /// Waits until the other lines are delivered up to there. `false` where one was not in time.
    pub(super) async fn wait_for(&self, own: Line, after: &After, given_up: &mut GivenUp) -> bool {
        let deadline = Instant::now() + MAX_WAIT;
        let mut in_time = true;
        for named in after.iter().filter(|offset| offset.line != own) {
            let Some(state) = self.lines.get(named.line.index()) else { continue };
            if *state.delivered.borrow() >= named.position {
                continue;
            }
            if given_up.has(self, named) {
                in_time = false;
                continue;
            }
            let mut delivered = state.delivered.subscribe();
            let reached = delivered.wait_for(|delivered| *delivered >= named.position);
            if tokio::time::timeout_at(deadline, reached).await.is_err() {
                given_up.0.push((named, Instant::now()));
                in_time = false;
            }
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::offset::Epoch;

    fn at(ms: u64) -> Position {
        Position { ms, seq: 0 }
    }

    fn on(line: Line, ms: u64) -> Offset {
        Offset { line, position: at(ms), ..Offset::default() }
    }

    fn lines() -> (Arc<Lines>, Line, Line) {
        let partitions = Partitions::new(8, 0);
        let (one, other) = (partitions.of("a"), partitions.of("c"));
        assert_ne!(one, other);
        (Lines::new(partitions, Arc::new(Metrics::new("0").unwrap())), one, other)
    }

    fn of(lines: &Lines, rooms: &[&str]) -> PartitionSet {
        let rooms: Vec<Room> = rooms.iter().map(|room| Room::from(*room)).collect();
        lines.concerned(rooms.iter())
    }

    #[test]
    fn an_entry_comes_after_what_was_acknowledged_for_its_rooms() {
        let (lines, one, other) = lines();
        let before = |line, rooms: &[&str]| lines.before(line, of(&lines, rooms)).text();
        assert_eq!(before(one, &["a"]), None);
        lines.note_acknowledged(on(one, 5), of(&lines, &["a"]));
        lines.note_acknowledged(on(one, 4), of(&lines, &["a"]));
        assert_eq!(before(Line::CONTROL, &["a", "c"]), Some(format!("{one}:5-0@0")), "a repeat is no later");
        assert_eq!(before(Line::CONTROL, &["c"]), None);
        assert_eq!(before(Line::CONTROL, &[""]), Some(format!("{one}:5-0@0")), "everybody");
        assert_eq!(before(other, &["c"]), None, "partitions have no order among them");
        lines.note_acknowledged(on(Line::CONTROL, 7), of(&lines, &["a", "c"]));
        assert_eq!([before(one, &["a"]), before(other, &["c"])], [Some("0:7-0@0".into()), Some("0:7-0@0".into())]);
        assert_eq!(
            [one, Line::CONTROL].map(|line| lines.acknowledged(line, Instant::now())),
            [Some(on(one, 5)), Some(on(Line::CONTROL, 7))]
        );
        let head = |line, ms| Offset { epoch: Epoch(0xe), ..on(line, ms) };
        lines.fall_back(head(one, 3));
        assert_eq!(before(Line::CONTROL, &["a"]), Some(format!("{one}:3-0@e")), "what is left of it");
        lines.fall_back(head(Line::CONTROL, 9));
        assert_eq!(before(one, &["a"]), Some("0:7-0@e".into()), "others have added something since");
        lines.fall_back(head(one, 0));
        assert_eq!(before(Line::CONTROL, &["a"]), None, "nothing is left");
        lines.forget(Line::CONTROL);
        assert_eq!([one, Line::CONTROL].map(|line| lines.acknowledged(line, Instant::now())), [None, None]);
        assert_eq!([before(one, &["a"]), before(Line::CONTROL, &["a", "c"])], [None, None]);
    }

    #[test]
    fn what_was_long_ago_is_not_named() {
        let newest = Newest::default();
        newest.note(on(Line::CONTROL, 7));
        assert_eq!(newest.recent(), Some(on(Line::CONTROL, 7)));
        *newest.0.lock() = Some((on(Line::CONTROL, 7), Instant::now().checked_sub(RECENT).unwrap()));
        assert_eq!(newest.recent(), None);
    }

    #[tokio::test]
    async fn an_entry_waits_for_a_line_once_and_not_for_long() {
        let (lines, one, _) = lines();
        let after = After::parse(b"0:7-0");
        let mut given_up = GivenUp::default();
        assert!(!lines.has_delivered(one, &after));
        let begun = Instant::now();
        assert!(!lines.wait_for(one, &after, &mut given_up).await);
        let waited = begun.elapsed();
        assert!(waited >= MAX_WAIT, "{waited:?}");
        let after_more = After::parse(b"0:8-0");
        let at_once = tokio::time::timeout(Duration::ZERO, lines.wait_for(one, &after_more, &mut given_up)).await;
        assert_eq!(at_once, Ok(false), "given up");
        let renewed = After::parse(b"0:5-0@1");
        let (waited, ()) = tokio::join!(lines.wait_for(one, &renewed, &mut given_up), async {
            lines.note_delivered(Line::CONTROL, at(5));
        });
        assert!(waited, "the line has lost what was given up");
        lines.note_delivered(Line::CONTROL, at(7));
        assert!(lines.has_delivered(one, &after));
        let later = After::parse(b"0:9-0");
        let (waited, ()) = tokio::join!(lines.wait_for(one, &later, &mut given_up), async {
            lines.note_delivered(Line::CONTROL, at(9));
        });
        assert!(waited, "it is read again, so it is waited for again");
    }

    #[tokio::test]
    async fn a_line_begins_once_what_its_history_comes_after_is_read() {
        let (lines, one, other) = lines();
        let (of_one, of_control) = (After::parse(b"0:7-0"), After::parse(format!("{one}:5-0,0:99-0").as_bytes()));
        lines.note_read(one, at(5));
        assert!(lines.wait_to_begin(Line::CONTROL, &of_control).await, "its own line is not waited for");
        assert!(!lines.wait_to_begin(one, &of_one).await, "nobody has read the control line");
        lines.note_read(Line::CONTROL, at(6));
        let (waited, ()) = tokio::join!(lines.wait_to_begin(one, &of_one), async {
            lines.note_delivered(Line::CONTROL, at(7));
        });
        assert!(waited);
        assert!(lines.wait_to_begin(other, &After::default()).await);
    }
}
