//! What this node's connections make true, and which changes the store does not have yet (sans-IO).

use crate::presence::{Change, Fact, Known, LeaveReason, Messages, Ticket};
use std::collections::{HashMap, VecDeque};
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
    facts: HashMap<Fact, State>,
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

/// One for each user who is connected here: kept small.
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
            facts: HashMap::new(),
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
        let state = self.facts.entry(fact.clone()).or_default();
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
        for (fact, state) in &mut self.facts {
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
        self.orphans = known.facts.into_iter().filter(|fact| !self.facts.contains_key(fact)).collect();
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
mod tests {
    use super::*;
    use LeaveReason::{Left, Lost, Undone};

    const USER: fn(&str) -> Fact = |name| Fact::Online(name.into());

    /// What would be written, as `name+count` and `name-`; what is no news in brackets.
    fn written(table: &mut Table, now: Millis) -> String {
        let changes = table.take(now, 10);
        let text = |change: &Change| {
            let Fact::Online(name) = &change.fact else { return "?".to_owned() };
            let text = change.count.map_or(format!("{name}-"), |count| format!("{name}+{count}"));
            if change.news { text } else { format!("({text})") }
        };
        let texts: Vec<String> = changes.iter().map(text).collect();
        table.confirm(&changes);
        texts.join(" ")
    }

    #[test]
    fn a_reload_is_no_absence() {
        let mut table = Table::new(100);
        table.enter(USER("a"), None);
        table.enter(USER("a"), None);
        assert_eq!(written(&mut table, 0), "a+2");
        table.exit(&USER("a"), 5, Lost);
        table.exit(&USER("a"), 10, Lost);
        assert_eq!((written(&mut table, 10), table.next()), ("(a+0)".into(), Some(110)));
        table.enter(USER("a"), None);
        assert_eq!(written(&mut table, 50), "(a+1)", "the others know");
        assert_eq!(written(&mut table, 110), "", "the grace has ended for nobody");
        table.exit(&USER("a"), 200, Lost);
        assert_eq!(written(&mut table, 299), "(a+0)");
        let changes = table.take(300, 10);
        assert_eq!((changes.len(), changes[0].count, changes[0].age), (1, None, 100));
        table.confirm(&changes);
        assert!(table.facts.is_empty() && table.changed.facts.is_empty() && table.graces.is_empty());
    }

    #[test]
    fn who_leaves_on_purpose_has_left() {
        let mut table = Table::new(100);
        table.enter(USER("a"), None);
        assert_eq!(written(&mut table, 0), "a+1");
        table.exit(&USER("a"), 1, Left);
        assert_eq!(written(&mut table, 1), "a-");
        assert_eq!(table.exit(&USER("a"), 2, Left), Ticket::default(), "nobody is there");
    }

    #[test]
    fn what_comes_and_goes_unwritten_is_announced_all_the_same() {
        let mut table = Table::new(100);
        table.enter(USER("a"), None);
        table.exit(&USER("a"), 0, Left);
        assert_eq!(written(&mut table, 0), "a+0 a-");
        table.enter(USER("a"), None);
        table.exit(&USER("a"), 0, Left);
        assert_eq!(written(&mut table, 0), "a+0 a-");
        table.enter(USER("b"), None);
        let changes = table.take(0, 10);
        table.exit(&USER("b"), 0, Left);
        table.confirm(&changes);
        assert_eq!(written(&mut table, 0), "b-", "it left while it was being written");
        table.enter(USER("c"), None);
        assert_eq!(written(&mut table, 0), "c+1");
        table.exit(&USER("c"), 0, Left);
        let changes = table.take(0, 10);
        table.enter(USER("c"), None);
        table.confirm(&changes);
        assert_eq!(written(&mut table, 0), "c+1", "it came back while it was being taken out");
    }

    #[test]
    fn what_came_and_went_while_the_store_is_away_does_not_pile_up() {
        let mut table = Table::new(0);
        table.enter(USER("taken"), None);
        let taken = table.take(0, 10);
        table.exit(&USER("taken"), 0, Left);
        table.enter(USER("stays"), None);
        for n in 0..3 * MAX_WAITING {
            let fact = USER(&n.to_string());
            table.enter(fact.clone(), None);
            table.exit(&fact, 0, Left);
        }
        assert!(table.facts.len() <= MAX_WAITING && table.changed.facts.len() <= MAX_WAITING);
        table.forget_passed();
        table.confirm(&taken);
        assert_eq!(written(&mut table, 0), "taken- stays+1", "what the store may know, and what is true, stay");
    }

    #[test]
    fn graces_do_not_pile_up_while_the_store_is_away() {
        let mut table = Table::new(100);
        for now in 0..10_000 {
            table.enter(USER("a"), None);
            table.exit(&USER("a"), now, Lost);
        }
        assert!(table.graces.len() <= 101, "{}", table.graces.len());
    }

    #[test]
    fn failed_changes_are_written_again() {
        let mut table = Table::new(0);
        table.enter(USER("a"), None);
        let changes = table.take(0, 10);
        assert_eq!(written(&mut table, 0), "");
        table.put_back(changes);
        assert_eq!(written(&mut table, 0), "a+1");
    }

    #[test]
    fn a_store_that_lost_its_memory_hears_no_news() {
        let mut table = Table::new(0);
        table.enter(USER("a"), None);
        table.enter(USER("b"), None);
        assert_eq!(written(&mut table, 0), "a+1 b+1");
        table.enter(USER("c"), None);
        table.exit(&USER("b"), 0, Lost);
        table.write_again(Known { facts: vec![USER("a"), USER("x")], lost: true }, 1_000);
        assert_eq!(written(&mut table, 1_000), "c+1 (a+1)", "and nothing is taken back as yet");
        assert_eq!(written(&mut table, 1_000 + HOLD), "(b+0) b- (x-)");
        assert_eq!(written(&mut table, 1_000 + HOLD), "");
    }

    #[test]
    fn a_node_that_counted_as_dead_tells_everything_again() {
        let mut table = Table::new(0);
        table.enter(USER("a"), None);
        assert_eq!(written(&mut table, 0), "a+1");
        table.write_again(Known { facts: Vec::new(), lost: false }, 1_000);
        assert_eq!(written(&mut table, 1_000), "a+1");
    }

    #[test]
    fn who_went_while_the_node_counted_as_dead_is_not_told_as_online_again() {
        let mut table = Table::new(100);
        table.enter(USER("a"), None);
        table.enter(USER("b"), None);
        assert_eq!(written(&mut table, 0), "a+1 b+1");
        table.exit(&USER("a"), 1_000, Lost);
        table.exit(&USER("b"), 1_000, Lost);
        table.write_again(Known { facts: Vec::new(), lost: false }, 1_000);
        table.enter(USER("b"), None);
        let mut parts: Vec<_> = written(&mut table, 1_000).split(' ').map(str::to_owned).collect();
        parts.sort();
        assert_eq!(parts, ["a-", "b+1"]);
    }

    /// Takes and confirms, and answers which of these tickets are written.
    fn settle(table: &mut Table, now: Millis, max: usize, tickets: &[Ticket]) -> Vec<bool> {
        let changes = table.take(now, max);
        table.confirm(&changes);
        tickets.iter().map(|ticket| table.is_written(*ticket)).collect()
    }

    #[test]
    fn a_ticket_is_written_when_its_change_and_all_before_it_are() {
        let mut table = Table::new(100);
        assert!(table.is_written(Ticket::default()));
        let [a, b, again] = ["a", "b", "a"].map(|name| table.enter(USER(name), None));
        assert_eq!(a, again, "one change");
        let taken = table.take(0, 1);
        assert!(!table.is_written(a), "on its way");
        let later = table.enter(USER("a"), None);
        table.confirm(&taken);
        assert_eq!([a, b, later].map(|ticket| table.is_written(ticket)), [true, false, false]);
        assert_eq!(settle(&mut table, 0, 1, &[b, later]), [true, false]);
        assert_eq!(settle(&mut table, 0, 1, &[b, later]), [true, true]);
        let left = table.exit(&USER("a"), 0, Lost);
        table.enter(USER("a"), None);
        assert_eq!(settle(&mut table, 0, 1, &[left]), [true], "it came to nothing");
    }

    #[test]
    fn while_all_is_written_again_no_ticket_is_written_before_it() {
        let mut table = Table::new(100);
        table.enter(USER("a"), None);
        settle(&mut table, 0, 10, &[]);
        let late = table.enter(USER("late"), None);
        let taken = table.take(0, 10);
        let behind = table.enter(USER("behind"), None);
        table.put_back(taken);
        table.write_again(Known { facts: Vec::new(), lost: true }, 0);
        assert_eq!(settle(&mut table, 0, 1, &[late, behind]), [false, false]);
        assert_eq!(settle(&mut table, 0, 1, &[late, behind]), [false, false]);
        assert_eq!(settle(&mut table, 0, 1, &[late, behind]), [true, true]);
        assert!(table.is_holding(HOLD - 1) && !table.is_holding(HOLD));
    }

    #[test]
    fn leaving_and_coming_again_is_no_staying() {
        let mut table = Table::new(100);
        table.enter(USER("a"), None);
        assert_eq!(written(&mut table, 0), "a+1");
        table.exit(&USER("a"), 0, Left);
        table.enter(USER("a"), None);
        assert_eq!(written(&mut table, 0), "a- a+1");
        for _ in 0..2 {
            table.exit(&USER("a"), 0, Left);
            table.enter(USER("a"), None);
        }
        table.exit(&USER("a"), 0, Left);
        assert_eq!(written(&mut table, 0), "a- a+0 a- a+0 a-");
        assert!(table.facts.is_empty());
        table.enter(USER("b"), None);
        table.exit(&USER("b"), 0, Left);
        table.enter(USER("b"), None);
        assert_eq!(written(&mut table, 0), "b+1 b- b+1", "joined, left, joined, before the store heard of it");
    }

    #[test]
    fn what_was_refused_is_as_if_it_had_not_been() {
        let mut table = Table::new(100);
        table.enter(USER("a"), None);
        table.exit(&USER("a"), 0, Undone);
        assert_eq!(written(&mut table, 0), "", "the store never heard of it");
        table.enter(USER("b"), None);
        let taken = table.take(0, 10);
        table.exit(&USER("b"), 0, Undone);
        table.confirm(&taken);
        assert_eq!(written(&mut table, 0), "b-", "it was on its way");
        table.enter(USER("c"), None);
        table.exit(&USER("c"), 0, Lost);
        assert_eq!(written(&mut table, 0), "c+0");
        table.enter(USER("c"), None);
        table.exit(&USER("c"), 50, Undone);
        assert_eq!((written(&mut table, 99), &*written(&mut table, 100)), (String::new(), "c-"), "still in its grace");
        table.enter(USER("d"), None);
        assert_eq!(written(&mut table, 100), "d+1");
        table.exit(&USER("d"), 100, Left);
        table.enter(USER("d"), None);
        table.exit(&USER("d"), 100, Undone);
        assert_eq!(written(&mut table, 100), "d-", "it had left before");
        assert!(table.facts.is_empty());
    }
}
