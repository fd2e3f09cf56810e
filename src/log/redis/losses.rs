//! Lines that lost entries at once, such as by a FLUSHALL: clients hear it once.
//!
//! Each line notices by itself, within a second or so. The first one waits, without going on, until each other line has
//! looked too. Those that have also lost entries bring their snapshots, and the sink gets all of them together. What is
//! published meanwhile is in the snapshots or read after them, so nothing is delivered to a client that has yet to hear.

use crate::log::{Sink, Snapshot};
use crate::model::partition::{Line, Partitions};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long the other lines are waited for: each looks once a second, if its server answers.
const MAX_WAIT: Duration = Duration::from_millis(1500);
/// Lines that brought a snapshot wait so much longer before they tell the clients themselves.
const SLACK: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Losses {
    partitions: Partitions,
    /// Whether somebody waits for lines that have not looked yet.
    is_open: AtomicBool,
    state: Mutex<State>,
    /// Changes with the state.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// Of the lines that have lost entries, and wait.
    snapshots: Vec<Snapshot>,
    unchecked: Vec<Line>,
}

impl State {
    fn has(&self, line: Line) -> bool {
        self.snapshots.iter().any(|snapshot| snapshot.line == line)
    }
}

impl Losses {
    pub(super) fn new(partitions: Partitions) -> Self {
        let (is_open, state, changed) = (AtomicBool::new(false), Mutex::default(), watch::Sender::new(()));
        Self { partitions, is_open, state, changed }
    }

    /// A line was looked at and has lost nothing.
    pub(super) fn note_checked(&self, line: Line) {
        if self.is_open.load(Ordering::Relaxed) {
            self.state.lock().unchecked.retain(|unchecked| *unchecked != line);
            self.changed.send_replace(());
        }
    }

    /// A line has lost entries: tells it to the sink, together with the others of this moment. To be dropped only with the
    /// line's tail.
    pub(super) async fn tell(&self, snapshot: Snapshot, sink: &dyn Sink) {
        if self.partitions.is_one() {
            return sink.reset(snapshot);
        }
        let line = snapshot.line;
        let is_first = self.add(snapshot);
        // A tail that ends has nothing to tell any more.
        let _withdrawal = Withdrawal(self, line);
        let deadline = Instant::now() + if is_first { MAX_WAIT } else { MAX_WAIT + SLACK };
        let mut changed = self.changed.subscribe();
        let is_known = |state: &State| !state.has(line);
        let ready = async {
            loop {
                changed.borrow_and_update();
                let is_ready = {
                    let state = self.state.lock();
                    is_known(&state) || is_first && state.unchecked.is_empty()
                };
                // The sender lives as long as `self`.
                if is_ready || changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // Lines that do not answer notify clients by themselves, later.
        let _ = timeout_at(deadline, ready).await;
        let mut state = self.state.lock();
        if !is_known(&state) {
            self.is_open.store(false, Ordering::Relaxed);
            // With the lock: a line that brought its snapshot goes on only when the clients know.
            sink.reset_all(std::mem::take(&mut state.snapshots));
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Whether it is the first.
    fn add(&self, snapshot: Snapshot) -> bool {
        let mut state = self.state.lock();
        let is_first = state.snapshots.is_empty();
        if is_first {
            state.unchecked = self.partitions.lines().collect();
            self.is_open.store(true, Ordering::Relaxed);
        }
        state.unchecked.retain(|unchecked| *unchecked != snapshot.line);
        state.snapshots.push(snapshot);
        drop(state);
        self.changed.send_replace(());
        is_first
    }
}

struct Withdrawal<'a>(&'a Losses, Line);

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        self.0.state.lock().snapshots.retain(|snapshot| snapshot.line != self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::BoxFuture;
    use crate::model::event::Batch;
    use crate::model::offset::{Epoch, Position};
    use std::sync::Arc;

    /// Notes which lines came together.
    #[derive(Default)]
    struct Told(Mutex<Vec<Vec<u8>>>);

    impl Sink for Told {
        fn reset(&self, snapshot: Snapshot) {
            self.reset_all(vec![snapshot]);
        }

        fn reset_all(&self, snapshots: Vec<Snapshot>) {
            let mut lines: Vec<u8> = snapshots.iter().map(|snapshot| snapshot.line.number()).collect();
            lines.sort_unstable();
            self.0.lock().push(lines);
        }

        fn deliver(&self, _: Batch) -> BoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }

        fn try_deliver(&self, _: Batch) -> Result<(), Batch> {
            Ok(())
        }

        fn advanced_to(&self, _: Line, _: Position) {}
    }

    fn line(number: u8) -> Line {
        Line::new(number).unwrap()
    }

    fn snapshot(number: u8) -> Snapshot {
        let head = Position::default();
        Snapshot { line: line(number), epoch: Epoch(1), floor: head, head, history: vec![], commands: vec![] }
    }

    #[tokio::test]
    async fn lines_that_lost_entries_at_once_come_together() {
        let (losses, told) = (Losses::new(Partitions::new(3, 0)), Told::default());
        losses.note_checked(line(3));
        tokio::join!(losses.tell(snapshot(2), &told), losses.tell(snapshot(0), &told), async {
            losses.note_checked(line(1));
            assert_eq!(told.0.lock().len(), 0, "one has not looked yet");
            losses.note_checked(line(3));
        });
        assert_eq!(*told.0.lock(), [[0, 2]]);
        tokio::join!(losses.tell(snapshot(1), &told), async {
            [0, 2, 3].into_iter().for_each(|number| losses.note_checked(line(number)));
        });
        assert_eq!(*told.0.lock(), [vec![0, 2], vec![1]], "a later loss is another one");
        let one = Losses::new(Partitions::ONE);
        one.tell(snapshot(0), &told).await;
        assert_eq!(told.0.lock().len(), 3);
    }

    #[tokio::test]
    async fn a_line_that_does_not_look_holds_the_others_up_for_a_moment() {
        let (losses, told) = (Losses::new(Partitions::new(3, 0)), Told::default());
        let begun = Instant::now();
        losses.tell(snapshot(2), &told).await;
        assert!(begun.elapsed() >= MAX_WAIT);
        assert_eq!(*told.0.lock(), [[2]]);
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_the_first_one_is_gone() {
        let (losses, told) = (Arc::new(Losses::new(Partitions::new(3, 0))), Arc::new(Told::default()));
        let (own, sink) = (losses.clone(), told.clone());
        let first = tokio::spawn(async move { own.tell(snapshot(2), &*sink).await });
        while !losses.is_open.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        tokio::join!(losses.tell(snapshot(1), &*told), async { first.abort() });
        assert_eq!(*told.0.lock(), [[1]], "what a tail that is gone had to tell is void");
    }
}
