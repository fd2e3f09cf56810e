//! What this node's connections make true, and which changes the store does not have yet (sans-IO).

mod facts;

use crate::presence::{Change, Fact, Known, LeaveReason, Messages, Ticket};
use facts::Facts;
use std::collections::VecDeque;
use std::sync::Arc;

/// Milliseconds on the node's monotonic clock.
pub type Millis = u64;

/// For this long after the store has lost its data, no fact is removed. The other nodes write their facts again first;
/// otherwise a user who is still connected to one of them would be reported gone.
const HOLD: Millis = 4_000;
/// Changes that may wait before those that cancel each other are dropped. While the store is away, a client that joins and
/// leaves rooms with ever new names would otherwise fill the memory.
const MAX_WAITING: usize = 100_000;

/// All facts of this node.
#[derive(Debug)]
pub struct Table {
    grace: Millis,
    facts: Facts<State>,
    changed: Changed,
    /// Every change up to this ticket was taken to be written.
    taken: Ticket,
    /// Every change up to this ticket is in the store.
    written: Ticket,
    /// While everything is written again, no ticket counts as written before this one is taken.
    rewriting: Ticket,
    /// Ends of graces, in order: all are equally long.
    graces: VecDeque<(Millis, Fact)>,
    /// Facts that the store has for this node although they are not true.
    orphans: Vec<Fact>,
    /// No fact is removed before this time.
    hold: Millis,
    /// When more changes wait than this, facts that began and ended unwritten are forgotten.
    max_waiting: usize,
}

/// One for each user who is connected here: with the fact 56 bytes, which is a size of the allocator.
#[derive(Debug, Default)]
struct State {
    messages: Option<Arc<Messages>>,
    /// When the last connection went.
    gone: Millis,
    count: u32,
    /// The count that the store has, if it is there at all.
    stored: u32,
    is_stored: bool,
    /// Whether the store may have it though it does not count as written: a step is on its way, or one was lost.
    in_doubt: bool,
    /// Within the grace.
    in_grace: bool,
    /// Whether the present connection came within the grace.
    came_back: bool,
    /// Whether it ended since it was last taken to be written.
    ended: bool,
    /// How often it ended and began again since it was last taken: each time is announced.
    absences: u16,
    /// Whether it was announced.
    announced: bool,
    /// Its place among those that changed; the default where it is not among them.
    queued: Ticket,
}

/// Facts that may not be as the store has them, in the order of their tickets.
#[derive(Debug, Default)]
struct Changed {
    facts: VecDeque<(Ticket, Fact)>,
    /// The newest ticket.
    last: Ticket,
}

impl Changed {
    /// A fact that changes again before it is taken keeps its place.
    fn push(&mut self, fact: &Fact, state: &mut State) -> Ticket {
        if state.queued == Ticket::default() {
            self.last.0 += 1;
            state.queued = self.last;
            self.facts.push_back((self.last, fact.clone()));
        }
        state.queued
    }
}

impl State {
    fn is_true(&self) -> bool {
        self.count > 0 || self.in_grace
    }

    fn written(&self) -> Option<u32> {
        self.is_stored.then_some(self.stored)
    }

    fn set_written(&mut self, count: Option<u32>) {
        (self.is_stored, self.stored) = (count.is_some(), count.unwrap_or(0));
    }

    /// Whether it began and ended without being written to the store.
    fn has_passed(&self) -> bool {
        !self.is_true() && !self.in_doubt && !self.announced && !self.is_stored
    }
}

impl Table {
    /// An empty one; a fact stays true for `grace` after its last connection was lost.
    pub fn new(grace: Millis) -> Self {
        Self {
            grace,
            facts: Facts::default(),
            changed: Changed::default(),
            taken: Ticket::default(),
            written: Ticket::default(),
            rewriting: Ticket::default(),
            graces: VecDeque::new(),
            orphans: Vec::new(),
            hold: 0,
            max_waiting: MAX_WAITING,
        }
    }

    /// Whether a fact is true already, so that one connection more brings no messages.
    pub fn is_true(&self, fact: &Fact) -> bool {
        self.facts.get(fact).is_some_and(State::is_true)
    }

    /// One connection more; `messages` are those of the first.
    pub fn enter(&mut self, fact: Fact, messages: Option<Messages>) -> Ticket {
        let state = self.facts.get_or_default(&fact);
        if !state.is_true() {
            state.messages = messages.map(Arc::new);
        }
        if state.count == 0 {
            state.came_back = state.in_grace;
        }
        if std::mem::take(&mut state.ended) {
            state.absences = state.absences.saturating_add(1);
        }
        state.count += 1;
        state.in_grace = false;
        self.changed.push(&fact, state)
    }

    /// One connection less.
    pub fn exit(&mut self, fact: &Fact, now: Millis, reason: LeaveReason) -> Ticket {
        // While the store is away nothing is taken, and graces must not pile up.
        self.end_graces(now);
        let Some(state) = self.facts.get_mut(fact).filter(|state| state.count > 0) else { return Ticket::default() };
        state.count -= 1;
        if state.count == 0 && reason == LeaveReason::Undone {
            state.undo(now, self.grace);
            if state.has_passed() {
                self.facts.remove(fact);
                return Ticket::default();
            }
        } else if state.count == 0 {
            state.gone = now;
            state.in_grace = reason == LeaveReason::Lost && self.grace > 0;
            state.ended = !state.in_grace;
            if state.in_grace {
                self.graces.push_back((now + self.grace, fact.clone()));
            }
        }
        let ticket = self.changed.push(fact, state);
        if self.changed.facts.len() > self.max_waiting {
            self.forget_passed();
        }
        ticket
    }

    /// Whether the store has every change up to this ticket.
    pub fn is_written(&self, ticket: Ticket) -> bool {
        ticket <= self.written
    }

    /// The newest ticket that is written, with every one before it.
    pub fn written(&self) -> Ticket {
        self.written
    }

    /// Whether the store lost its data so recently that no fact is removed yet (`HOLD`).
    pub fn is_holding(&self, now: Millis) -> bool {
        now < self.hold
    }

    fn forget_passed(&mut self) {
        let facts = &mut self.facts;
        self.changed.facts.retain(|(_, fact)| {
            let passed = facts.get(fact).is_none_or(State::has_passed);
            if passed {
                facts.remove(fact);
            }
            !passed
        });
        // Not again for each change where all of them count.
        self.max_waiting = MAX_WAITING.max(2 * self.changed.facts.len());
    }

    /// When the next grace ends, so that there is something to write.
    pub fn next(&self) -> Option<Millis> {
        self.graces.front().map(|(until, _)| *until)
    }

    /// Up to about `max` changes to be written now.
    pub fn take(&mut self, now: Millis, max: usize) -> Vec<Change> {
        self.end_graces(now);
        let mut changes: Vec<Change> = Vec::new();
        let mut later = Vec::new();
        while changes.len() < max
            && let Some((ticket, fact)) = self.changed.facts.pop_front()
        {
            self.taken = ticket;
            // A fact that was forgotten and is true again has a newer ticket.
            let Some(state) = self.facts.get_mut(&fact).filter(|state| state.queued == ticket) else { continue };
            state.queued = Ticket::default();
            if !state.is_true() && now < self.hold {
                later.push(fact);
                continue;
            }
            let before = changes.len();
            state.changes(fact, now, &mut changes);
            state.in_doubt = changes.len() > before;
        }
        if self.changed.facts.is_empty() {
            self.taken = self.changed.last;
            // Grown by a storm.
            self.changed.facts.shrink_to(max);
        }
        for fact in later {
            self.changed_again(fact);
        }
        if now >= self.hold {
            let some = self.orphans.len().min(max.saturating_sub(changes.len()));
            let gone = |fact| Change { fact, count: None, news: false, messages: None, age: 0 };
            changes.extend(self.orphans.drain(..some).map(gone));
        }
        changes
    }

    fn end_graces(&mut self, now: Millis) {
        while let Some((until, fact)) = self.graces.pop_front_if(|(until, _)| *until <= now) {
            // The user may have returned and left again since.
            let grace = self.grace;
            let ends = |state: &&mut State| state.in_grace && state.gone + grace == until;
            if let Some(state) = self.facts.get_mut(&fact).filter(ends) {
                state.in_grace = false;
                state.ended = true;
                self.changed.push(&fact, state);
            }
        }
    }

    fn changed_again(&mut self, fact: Fact) {
        if let Some(state) = self.facts.get_mut(&fact) {
            self.changed.push(&fact, state);
        }
    }

    /// What was last taken is in the store now: these changes.
    pub fn confirm(&mut self, changes: &[Change]) {
        for change in changes {
            let Some(state) = self.facts.get_mut(&change.fact) else { continue };
            state.in_doubt = false;
            state.set_written(change.count);
            state.announced = change.count.is_some();
        }
        for change in changes {
            let Some(state) = self.facts.get(&change.fact) else { continue };
            if !state.is_true() && !state.is_stored {
                self.facts.remove(&change.fact);
            } else if !state.is_true() || state.written() != Some(state.count) {
                self.changed_again(change.fact.clone());
            }
        }
        if self.taken >= self.rewriting {
            self.written = self.taken;
        }
    }

    /// These changes are not in the store: they wait again.
    pub fn put_back(&mut self, changes: Vec<Change>) {
        for change in changes {
            match self.facts.get_mut(&change.fact) {
                Some(state) => {
                    state.in_doubt = false;
                    self.changed_again(change.fact);
                }
                None => self.orphans.push(change.fact),
            }
        }
    }

    /// All facts are to be written again: of this node, the store has only what is `known`.
    pub fn write_again(&mut self, known: Known, now: Millis) {
        for (fact, state) in self.facts.iter_mut() {
            state.set_written(None);
            state.in_doubt = true;
            state.announced &= known.lost;
            if !known.lost && state.count == 0 {
                // It was announced that the user is gone, and the user is gone.
                state.in_grace = false;
                state.set_written(Some(0));
            }
            self.changed.push(fact, state);
        }
        self.rewriting = self.changed.last;
        self.orphans = known.facts.into_iter().filter(|fact| !self.facts.contains(fact)).collect();
        if known.lost {
            self.hold = now + HOLD;
        }
    }
}

impl State {
    /// Takes back the last connection's start.
    fn undo(&mut self, now: Millis, grace: Millis) {
        if self.absences > 0 {
            self.absences -= 1;
            self.ended = true;
        } else if self.came_back && now < self.gone + grace {
            self.in_grace = true;
        } else if !self.has_passed() {
            // Its join may have been announced, or is about to be.
            self.gone = now;
            self.ended = true;
        }
    }

    /// The changes to be written: one, or several if the fact ended and began again since the last write.
    fn changes(&mut self, fact: Fact, now: Millis, changes: &mut Vec<Change>) {
        let age = if self.count == 0 { now.saturating_sub(self.gone) } else { 0 };
        let change = |count, news| Change { fact: fact.clone(), count, news, messages: self.messages.clone(), age };
        if !self.is_stored || (self.absences == 0 && self.is_true() && self.written() != Some(self.count)) {
            changes.push(change(Some(self.count), !self.announced));
        }
        for _ in 0..self.absences {
            changes.push(change(None, true));
            changes.push(change(Some(self.count), true));
        }
        if !self.is_true() {
            changes.push(change(None, true));
        }
        self.absences = 0;
        self.ended = false;
    }
}

#[cfg(test)]
mod tests;
