//! A publisher that continues through faults, and a check of which of its events arrived.

// Each test binary uses a part.
#![allow(dead_code, clippy::unwrap_used)]

use crate::log_node::{DEADLINE, Node, SHORT, Seen, draft_to};
use roomcast::log::{AppendError, EventLog};
use roomcast::model::offset::Offset;
use roomcast::model::partition::{Line, Partitions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

type Answer = Result<Offset, AppendError>;

/// Appends events named `0`, `1`, … to one room, one after the other.
pub(crate) struct Load {
    room: String,
    line: Line,
    answers: Arc<Mutex<Vec<(Instant, Answer)>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Load {
    /// Starts publishing.
    pub(crate) fn start(log: &Arc<dyn EventLog>) -> Self {
        Self::to(log, "room", Partitions::ONE)
    }

    /// The same to a room of a log with so many partitions.
    pub(crate) fn to(log: &Arc<dyn EventLog>, room: &str, partitions: Partitions) -> Self {
        let (room, line) = (room.to_owned(), partitions.of(room));
        let (answers, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (log, answers, stop, room) = (log.clone(), answers.clone(), stop.clone(), room.clone());
            async move {
                let mut pace = tokio::time::interval(Duration::from_millis(1));
                for n in 0.. {
                    pace.tick().await;
                    let answer = log.append(vec![draft_to(&room, &n.to_string())]).await.remove(0);
                    answers.lock().unwrap().push((Instant::now(), answer.map(|accepted| accepted.offset.unwrap())));
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        });
        Self { room, line, answers, stop, task }
    }

    /// The number of answers so far.
    pub(crate) fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// Waits until an append that begins after now is accepted; returns for how long at most none was since `from`. A short
    /// outage may refuse none: they wait.
    pub(crate) async fn recovered(&self, from: usize) -> Duration {
        // One may have begun before.
        let (begun, deadline) = (self.count() + 1, Instant::now() + DEADLINE);
        loop {
            if let Some(pause) = self.pause(from, begun) {
                return pause;
            }
            assert!(Instant::now() < deadline, "never accepted again: {:?}", self.answers.lock().unwrap().last());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn pause(&self, from: usize, begun: usize) -> Option<Duration> {
        let answers = self.answers.lock().unwrap();
        let accepted = begun + answers.get(begun..)?.iter().position(|(_, answer)| answer.is_ok())?;
        let since = answers[from.saturating_sub(1)..=accepted].iter();
        let times: Vec<_> = since.filter(|(_, answer)| answer.is_ok()).map(|(at, _)| *at).collect();
        Some(times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default())
    }

    /// Whether everything was accepted since `from`.
    pub(crate) fn is_uninterrupted(&self, from: usize) -> bool {
        self.answers.lock().unwrap()[from..].iter().all(|(_, answer)| answer.is_ok())
    }

    /// Waits for `count` more answers.
    pub(crate) async fn more(&self, count: usize) {
        let (deadline, until) = (Instant::now() + DEADLINE, self.count() + count);
        while self.count() < until {
            assert!(Instant::now() < deadline, "stuck");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops and checks that every accepted event came out of the tail once and in order, or that the tail was reset
    /// with another epoch after it. Returns how many accepted events arrived, and how many did not.
    pub(crate) async fn check(mut self, node: &Node) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.unwrap();
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        let passing = |answer: &Answer| matches!(answer, Ok(_) | Err(AppendError::Unavailable(_)));
        let refused = answers.iter().find(|(_, answer)| !passing(answer));
        assert!(refused.is_none(), "{refused:?}");
        // A last event shows that everything before it has arrived. It may be lost itself, if a master accepted it that
        // was already replaced: then the tail is reset, and the next one arrives.
        let (deadline, mut lasts) = (Instant::now() + DEADLINE, Vec::new());
        loop {
            assert!(Instant::now() < deadline, "no last event arrives");
            let last = format!("last to {}", self.room);
            lasts.push(node.stored_again(draft_to(&self.room, &last)).await);
            if tokio::time::timeout(SHORT * 3, node.tail.wait_event(&last)).await.is_ok() {
                break;
            }
        }
        // What a master acknowledged that was already replaced is looked for within a second after its connection is closed.
        let told = |seen: &Seen| self.outcome(seen, &answers, &lasts);
        node.tail.wait("a reset after what did not arrive", told).await
    }

    /// How many accepted events arrived, and how many did not. `None` while one of these is lost without a reset.
    fn outcome(&self, seen: &Seen, answers: &[(Instant, Answer)], lasts: &[Offset]) -> Option<(usize, usize)> {
        let own: Vec<_> = seen.events.iter().filter(|event| *event.draft.rooms[0] == *self.room).collect();
        let numbers: Vec<u64> = own.iter().filter_map(|event| event.draft.event.parse().ok()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "out of order or duplicated");
        let of_line = seen.resets.iter().filter(|snapshot| snapshot.line == self.line);
        let epochs: Vec<_> = of_line.map(|snapshot| snapshot.epoch).collect();
        assert!(epochs.windows(2).all(|pair| pair[0] != pair[1]), "the epoch changes with every reset: {epochs:?}");
        let came_last = own.iter().find(|event| event.draft.event.starts_with("last")).map(|event| event.offset);
        let lost_lasts = lasts.iter().take_while(|offset| Some(**offset) != came_last);
        let accepted = (0..).zip(answers).filter_map(|(n, (_, answer))| Some((n, answer.as_ref().ok()?)));
        let (came, lost): (Vec<_>, Vec<_>) = accepted.partition(|(n, _)| numbers.binary_search(n).is_ok());
        let mut all_lost = lost_lasts.chain(lost.iter().map(|(_, offset)| *offset));
        all_lost.all(|offset| Some(&offset.epoch) != epochs.last()).then_some((came.len(), lost.len()))
    }
}
