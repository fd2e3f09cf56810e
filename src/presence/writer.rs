//! The steps in which this node's changes go to the store, one at a time.

use crate::metrics::Metrics;
use crate::model::draft::Source;
use crate::presence::changes::Changes;
use crate::presence::tracker::Millis;
use crate::presence::{Applied, Change, ImmediateStore, Store, StoreError, Transition};
use std::sync::Arc;
use std::time::Duration;

/// A node that counted as dead waits this long before it writes again, so that it first notices which clients hung up.
const PAUSE: Duration = Duration::from_millis(200);

/// Hears what changes mean to the whole cluster. Called by whichever thread writes: it takes notes and returns.
pub trait Listener: Send + Sync + 'static {
    /// A user came online or went offline, or a room has its first member or lost its last.
    fn on_transition(&self, transition: &Transition);

    /// Whether so many notices wait that the facts of dead nodes must be removed one part at a time.
    fn is_behind(&self) -> bool;
}

/// The steps of this node.
pub(super) struct Writer {
    listener: Box<dyn Listener>,
    metrics: Arc<Metrics>,
    /// Of the last step.
    number: u64,
    /// A step whose answer was lost, and when it was taken.
    again: Option<(Vec<Change>, Millis)>,
    /// Whether the log says that the store does not answer.
    complained: bool,
}

impl Writer {
    /// No step was taken yet.
    pub(super) fn new(listener: Box<dyn Listener>, metrics: Arc<Metrics>) -> Self {
        Self { listener, metrics, number: 0, again: None, complained: false }
    }

    /// Takes steps until nothing is left to write. With `is_due` it takes at least one, which shows that this node is up.
    /// Answers whether there was a step.
    pub(super) async fn write_all(
        &mut self,
        changes: &Changes,
        store: &dyn Store,
        mut is_due: bool,
    ) -> Result<bool, StoreError> {
        let mut stepped = false;
        loop {
            let now = changes.now();
            let taken = match self.again.take() {
                Some((mut taken, then)) => {
                    taken.iter_mut().for_each(|change| change.age += now - then);
                    taken
                }
                None => {
                    let taken = changes.take();
                    if taken.is_empty() && !is_due {
                        // What changed came to nothing.
                        changes.confirm(&taken);
                        return Ok(stepped);
                    }
                    self.number += 1;
                    taken
                }
            };
            match store.apply(self.number, &taken).await {
                Ok(Applied::Behind) => self.begin_again(changes, store, taken).await?,
                Ok(applied) => {
                    is_due = self.note(applied) && !self.listener.is_behind();
                    changes.confirm(&taken);
                    self.complained = false;
                    stepped = true;
                }
                Err(error) => {
                    self.again = Some((taken, now));
                    return Err(error);
                }
            }
        }
    }

    /// The same, without waiting.
    pub(super) fn write_here(&mut self, changes: &Changes, store: &dyn ImmediateStore) {
        loop {
            let taken = changes.take();
            if !taken.is_empty() {
                self.note(store.apply_now(&taken));
            }
            changes.confirm(&taken);
            if taken.is_empty() {
                return;
            }
        }
    }

    /// Notes what a step meant; whether users of nodes that died are still to be removed.
    fn note(&mut self, applied: Applied) -> bool {
        let Applied::Done { transitions, events, more } = applied else { return false };
        self.metrics.events.accepted(Source::Client, events);
        transitions.iter().for_each(|transition| self.listener.on_transition(transition));
        more
    }

    /// The store no longer has what this node wrote before: all facts are queued to be written again.
    async fn begin_again(
        &mut self,
        changes: &Changes,
        store: &dyn Store,
        taken: Vec<Change>,
    ) -> Result<(), StoreError> {
        changes.put_back(taken);
        self.number += 1;
        let known = store.reset(self.number).await?;
        if !known.lost {
            tokio::time::sleep(PAUSE).await;
        }
        tracing::warn!(lost = known.lost, facts = known.facts.len(), "presence of this node is written again");
        changes.write_again(known);
        Ok(())
    }

    /// Says in the log that the store does not answer, once until it does.
    pub(super) fn complain(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(error = error.0, "presence cannot be written to its store; it is tried again until it can");
        }
    }
}
