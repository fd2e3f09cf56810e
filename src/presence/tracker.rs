//! What this node's connections make true, and what of it the store does not know yet (sans-IO).

use crate::presence::{Change, Fact, Known, Messages};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Milliseconds on the node's monotonic clock.
pub type Millis = u64;

/// After the store has lost what it knew, nothing is taken back for so long: the other nodes write again what they know
/// first, or a user who is still connected there would count as gone.
const HOLD: Millis = 4_000;
/// Changes that may wait before those that cancel each other are looked for: while the store is away, a client that joins
/// and leaves rooms of ever new names would fill the memory.
const MAX_WAITING: usize = 100_000;

/// All facts of this node.
#[derive(Debug)]
pub struct Table {
    grace: Millis,
    facts: HashMap<Fact, State>,
    /// Facts that may not be as the store has them, in the order in which they changed.
    changed: VecDeque<Fact>,
    /// Ends of graces, in order: all are equally long.
    graces: VecDeque<(Millis, Fact)>,
    /// Facts that the store has of this node, and that are not true.
    strays: Vec<Fact>,
    /// Nothing is taken back before.
    hold: Millis,
    /// What has come and gone unwritten is forgotten when more changes wait.
    most_waiting: usize,
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
    /// Whether it is among those that changed.
    queued: bool,
    /// Whether the others have been told of it.
    told: bool,
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

    /// Whether it came and went, and the store never heard of it.
    fn has_passed(&self) -> bool {
        !self.is_true() && !self.in_doubt && !self.told && !self.is_stored
    }
}

impl Table {
    /// An empty one; a fact stays true for `grace` after its last connection was lost.
    pub fn new(grace: Millis) -> Self {
        Self {
            grace,
            facts: HashMap::new(),
            changed: VecDeque::new(),
            graces: VecDeque::new(),
            strays: Vec::new(),
            hold: 0,
            most_waiting: MAX_WAITING,
        }
    }

    /// One connection more; `messages` are made where it is the first. Answers whether there is something to write.
    pub fn enter(&mut self, fact: Fact, messages: impl FnOnce() -> Option<Messages>) -> bool {
        let state = self.facts.entry(fact.clone()).or_default();
        if !state.is_true() {
            state.messages = messages().map(Arc::new);
        }
        state.count += 1;
        state.in_grace = false;
        queue(&mut self.changed, fact, state)
    }

    /// One connection less. One that was `lost` may come back within the grace; who left on purpose has left.
    /// Answers whether there is something to write.
    pub fn exit(&mut self, fact: &Fact, now: Millis, lost: bool) -> bool {
        let Some(state) = self.facts.get_mut(fact).filter(|state| state.count > 0) else { return false };
        state.count -= 1;
        if state.count == 0 {
            state.gone = now;
            if lost && self.grace > 0 {
                state.in_grace = true;
                self.graces.push_back((now + self.grace, fact.clone()));
            }
        }
        let new = queue(&mut self.changed, fact.clone(), state);
        if self.changed.len() > self.most_waiting {
            self.forget_passed();
        }
        new
    }

    fn forget_passed(&mut self) {
        let facts = &mut self.facts;
        self.changed.retain(|fact| {
            let passed = facts.get(fact).is_none_or(State::has_passed);
            if passed {
                facts.remove(fact);
            }
            !passed
        });
        // Not again for each change where all of them count.
        self.most_waiting = MAX_WAITING.max(2 * self.changed.len());
    }

    /// When there is something to do without anybody's doing.
    pub fn next(&self) -> Option<Millis> {
        self.graces.front().map(|(until, _)| *until)
    }

    /// Up to about `max` changes to be written now.
    pub fn take(&mut self, now: Millis, max: usize) -> Vec<Change> {
        self.end_graces(now);
        let mut changes: Vec<Change> = Vec::new();
        let mut later = Vec::new();
        while changes.len() < max
            && let Some(fact) = self.changed.pop_front()
        {
            let Some(state) = self.facts.get_mut(&fact) else { continue };
            state.queued = false;
            if !state.is_true() && now < self.hold {
                later.push(fact);
                continue;
            }
            let before = changes.len();
            state.changes(fact, now, &mut changes);
            state.in_doubt = changes.len() > before;
        }
        if self.changed.is_empty() {
            // Grown by a storm.
            self.changed.shrink_to(max);
        }
        for fact in later {
            self.changed_again(fact);
        }
        if now >= self.hold {
            let some = self.strays.len().min(max.saturating_sub(changes.len()));
            let gone = |fact| Change { fact, count: None, news: false, messages: None, age: 0 };
            changes.extend(self.strays.drain(..some).map(gone));
        }
        changes
    }

    fn end_graces(&mut self, now: Millis) {
        while let Some((until, fact)) = self.graces.pop_front_if(|(until, _)| *until <= now) {
            // Somebody may have come back, and gone again.
            let grace = self.grace;
            let ends = |state: &&mut State| state.in_grace && state.gone + grace == until;
            if let Some(state) = self.facts.get_mut(&fact).filter(ends) {
                state.in_grace = false;
                queue(&mut self.changed, fact, state);
            }
        }
    }

    fn changed_again(&mut self, fact: Fact) {
        if let Some(state) = self.facts.get_mut(&fact) {
            queue(&mut self.changed, fact, state);
        }
    }

    /// These are in the store now.
    pub fn confirm(&mut self, changes: &[Change]) {
        for change in changes {
            let Some(state) = self.facts.get_mut(&change.fact) else { continue };
            state.in_doubt = false;
            state.set_written(change.count);
            state.told = change.count.is_some();
        }
        for change in changes {
            let Some(state) = self.facts.get(&change.fact) else { continue };
            if !state.is_true() && !state.is_stored {
                self.facts.remove(&change.fact);
            } else if !state.is_true() || state.written() != Some(state.count) {
                self.changed_again(change.fact.clone());
            }
        }
    }

    /// These are not.
    pub fn put_back(&mut self, changes: Vec<Change>) {
        for change in changes {
            match self.facts.get_mut(&change.fact) {
                Some(state) => {
                    state.in_doubt = false;
                    self.changed_again(change.fact);
                }
                None => self.strays.push(change.fact),
            }
        }
    }

    /// The store knows this of the node, and nothing else any more: all is to be written again.
    pub fn write_again(&mut self, known: Known, now: Millis) {
        for (fact, state) in &mut self.facts {
            state.set_written(None);
            state.in_doubt = true;
            state.told &= known.lost;
            if !known.lost && state.count == 0 {
                // The others were told that the user is gone, and so it is.
                state.in_grace = false;
                state.set_written(Some(0));
            }
            queue(&mut self.changed, fact.clone(), state);
        }
        self.strays = known.facts.into_iter().filter(|fact| !self.facts.contains_key(fact)).collect();
        if known.lost {
            self.hold = now + HOLD;
        }
    }
}

/// Notes that a fact has changed; whether that is new.
fn queue(changed: &mut VecDeque<Fact>, fact: Fact, state: &mut State) -> bool {
    let new = !std::mem::replace(&mut state.queued, true);
    if new {
        changed.push_back(fact);
    }
    new
}

impl State {
    /// What the store is to be told: one change, or two where something came and went before it heard of it.
    fn changes(&self, fact: Fact, now: Millis, changes: &mut Vec<Change>) {
        let age = if self.count == 0 { now.saturating_sub(self.gone) } else { 0 };
        if !self.is_stored || (self.is_true() && self.written() != Some(self.count)) {
            let (count, news) = (Some(self.count), !self.told);
            changes.push(Change { fact: fact.clone(), count, news, messages: self.messages.clone(), age });
        }
        if !self.is_true() {
            changes.push(Change { fact, count: None, news: true, messages: self.messages.clone(), age });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        table.enter(USER("a"), || None);
        table.enter(USER("a"), || None);
        assert_eq!(written(&mut table, 0), "a+2");
        table.exit(&USER("a"), 5, true);
        table.exit(&USER("a"), 10, true);
        assert_eq!((written(&mut table, 10), table.next()), ("(a+0)".into(), Some(110)));
        table.enter(USER("a"), || None);
        assert_eq!(written(&mut table, 50), "(a+1)", "the others know");
        assert_eq!(written(&mut table, 110), "", "the grace has ended for nobody");
        table.exit(&USER("a"), 200, true);
        assert_eq!(written(&mut table, 299), "(a+0)");
        let changes = table.take(300, 10);
        assert_eq!((changes.len(), changes[0].count, changes[0].age), (1, None, 100));
        table.confirm(&changes);
        assert!(table.facts.is_empty() && table.changed.is_empty() && table.graces.is_empty());
    }

    #[test]
    fn who_leaves_on_purpose_has_left() {
        let mut table = Table::new(100);
        table.enter(USER("a"), || None);
        assert_eq!(written(&mut table, 0), "a+1");
        table.exit(&USER("a"), 1, false);
        assert_eq!(written(&mut table, 1), "a-");
        assert!(!table.exit(&USER("a"), 2, false), "nobody is there");
    }

    #[test]
    fn what_comes_and_goes_unwritten_is_told_all_the_same() {
        let mut table = Table::new(100);
        table.enter(USER("a"), || None);
        table.exit(&USER("a"), 0, false);
        assert_eq!(written(&mut table, 0), "a+0 a-");
        assert!(table.enter(USER("a"), || None), "else nobody is woken by the next change");
        table.exit(&USER("a"), 0, false);
        assert_eq!(written(&mut table, 0), "a+0 a-");
        table.enter(USER("b"), || None);
        let changes = table.take(0, 10);
        table.exit(&USER("b"), 0, false);
        table.confirm(&changes);
        assert_eq!(written(&mut table, 0), "b-", "it left while it was being written");
        table.enter(USER("c"), || None);
        assert_eq!(written(&mut table, 0), "c+1");
        table.exit(&USER("c"), 0, false);
        let changes = table.take(0, 10);
        table.enter(USER("c"), || None);
        table.confirm(&changes);
        assert_eq!(written(&mut table, 0), "c+1", "it came back while it was being taken out");
    }

    #[test]
    fn what_came_and_went_while_the_store_is_away_does_not_pile_up() {
        let mut table = Table::new(0);
        table.enter(USER("taken"), || None);
        let taken = table.take(0, 10);
        table.exit(&USER("taken"), 0, false);
        table.enter(USER("stays"), || None);
        for n in 0..3 * MAX_WAITING {
            let fact = USER(&n.to_string());
            table.enter(fact.clone(), || None);
            table.exit(&fact, 0, false);
        }
        assert!(table.facts.len() <= MAX_WAITING && table.changed.len() <= MAX_WAITING);
        table.forget_passed();
        table.confirm(&taken);
        assert_eq!(written(&mut table, 0), "taken- stays+1", "what the store may know, and what is true, stay");
    }

    #[test]
    fn failed_changes_are_written_again() {
        let mut table = Table::new(0);
        table.enter(USER("a"), || None);
        let changes = table.take(0, 10);
        assert_eq!(written(&mut table, 0), "");
        table.put_back(changes);
        assert_eq!(written(&mut table, 0), "a+1");
    }

    #[test]
    fn a_store_that_lost_its_memory_hears_no_news() {
        let mut table = Table::new(0);
        table.enter(USER("a"), || None);
        table.enter(USER("b"), || None);
        assert_eq!(written(&mut table, 0), "a+1 b+1");
        table.enter(USER("c"), || None);
        table.exit(&USER("b"), 0, true);
        table.write_again(Known { facts: vec![USER("a"), USER("x")], lost: true }, 1_000);
        assert_eq!(written(&mut table, 1_000), "c+1 (a+1)", "and nothing is taken back as yet");
        assert_eq!(written(&mut table, 1_000 + HOLD), "(b+0) b- (x-)");
        assert_eq!(written(&mut table, 1_000 + HOLD), "");
    }

    #[test]
    fn a_node_that_counted_as_dead_tells_everything_again() {
        let mut table = Table::new(0);
        table.enter(USER("a"), || None);
        assert_eq!(written(&mut table, 0), "a+1");
        table.write_again(Known { facts: Vec::new(), lost: false }, 1_000);
        assert_eq!(written(&mut table, 1_000), "a+1");
    }

    #[test]
    fn who_went_while_the_node_counted_as_dead_is_not_told_as_online_again() {
        let mut table = Table::new(100);
        table.enter(USER("a"), || None);
        table.enter(USER("b"), || None);
        assert_eq!(written(&mut table, 0), "a+1 b+1");
        table.exit(&USER("a"), 1_000, true);
        table.exit(&USER("b"), 1_000, true);
        table.write_again(Known { facts: Vec::new(), lost: false }, 1_000);
        table.enter(USER("b"), || None);
        let mut parts: Vec<_> = written(&mut table, 1_000).split(' ').map(str::to_owned).collect();
        parts.sort();
        assert_eq!(parts, ["a-", "b+1"]);
    }
}
