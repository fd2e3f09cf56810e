//! Whose request goes next: tenants take turns, in each of them its users, and each has only some requests under way. A user
//! without a tenant, or an address, takes turns like a tenant. Sans-IO.

use crate::backend::source::Source;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// The requests that wait and that are under way. A waiting one is a `T`, which is handed out when its turn comes.
pub(super) struct Turns<T> {
    /// Requests under way at once.
    max: usize,
    /// The same of one source.
    max_per_source: usize,
    groups: HashMap<Arc<str>, Group<T>>,
    /// Groups with waiting requests, once each; the first is next. One whose requests were given up stays until its turn.
    order: VecDeque<Arc<str>>,
    under_way: usize,
    next_number: u64,
}

/// A tenant's users, or one source.
struct Group<T> {
    sources: HashMap<Source, Share<T>>,
    /// As for groups.
    order: VecDeque<Source>,
    under_way: usize,
    /// Whether `order` of all has it.
    is_listed: bool,
}

struct Share<T> {
    under_way: usize,
    /// By number, oldest first.
    waiting: BTreeMap<u64, T>,
    /// Whether `order` of the group has it.
    is_listed: bool,
}

impl<T> Turns<T> {
    pub(super) fn new(max: usize, max_per_source: usize) -> Self {
        Self { max, max_per_source, groups: HashMap::new(), order: VecDeque::new(), under_way: 0, next_number: 0 }
    }

    /// Other bounds from now on. What is under way goes on.
    pub(super) fn allow(&mut self, max: usize, max_per_source: usize) {
        (self.max, self.max_per_source) = (max, max_per_source);
    }

    /// Adds a waiting request; returns its number.
    pub(super) fn wait(&mut self, source: &Source, waiting: T) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let group = self.groups.entry(source.group().clone()).or_insert_with(Group::new);
        if !group.is_listed {
            group.is_listed = true;
            self.order.push_back(source.group().clone());
        }
        let share = group.sources.entry(source.clone()).or_insert_with(Share::new);
        if !share.is_listed {
            share.is_listed = true;
            group.order.push_back(source.clone());
        }
        share.waiting.insert(number, waiting);
        number
    }

    /// Removes a request, whether it waits or is under way.
    pub(super) fn end(&mut self, source: &Source, number: u64) {
        let Some(group) = self.groups.get_mut(source.group()) else { return };
        let Some(share) = group.sources.get_mut(source) else { return };
        if share.waiting.remove(&number).is_none() {
            share.under_way -= 1;
            group.under_way -= 1;
            self.under_way -= 1;
        }
        if share.is_over() {
            group.sources.remove(source);
        }
        if group.is_over() {
            self.groups.remove(source.group());
        }
    }

    /// The next request that may begin. It counts as under way from now on.
    pub(super) fn next(&mut self) -> Option<T> {
        for _ in 0..self.order.len() {
            let free = self.max.saturating_sub(self.under_way);
            if free == 0 {
                return None;
            }
            let name = self.order.pop_front()?;
            let Some(group) = self.groups.get_mut(&name) else { continue };
            // The more is taken, the less one may have: the last places are for those that have none.
            let began = if group.under_way < free { group.next(self.max_per_source.min(free)) } else { None };
            self.under_way += usize::from(began.is_some());
            group.is_listed = !group.order.is_empty();
            if group.is_over() {
                self.groups.remove(&name);
            } else if group.is_listed {
                self.order.push_back(name);
            }
            if began.is_some() {
                return began;
            }
        }
        None
    }
}

impl<T> Group<T> {
    fn new() -> Self {
        Self { sources: HashMap::new(), order: VecDeque::new(), under_way: 0, is_listed: false }
    }

    fn is_over(&self) -> bool {
        self.sources.is_empty() && !self.is_listed
    }

    fn next(&mut self, max_per_source: usize) -> Option<T> {
        for _ in 0..self.order.len() {
            let source = self.order.pop_front()?;
            let Some(share) = self.sources.get_mut(&source) else { continue };
            let began = if share.under_way < max_per_source { share.waiting.pop_first() } else { None };
            share.is_listed = !share.waiting.is_empty();
            share.under_way += usize::from(began.is_some());
            self.under_way += usize::from(began.is_some());
            if share.is_over() {
                self.sources.remove(&source);
            } else if share.is_listed {
                self.order.push_back(source);
            }
            if let Some((_, began)) = began {
                return Some(began);
            }
        }
        None
    }
}

impl<T> Share<T> {
    fn new() -> Self {
        Self { under_way: 0, waiting: BTreeMap::new(), is_listed: false }
    }

    fn is_over(&self) -> bool {
        self.under_way == 0 && self.waiting.is_empty() && !self.is_listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(turns: &mut Turns<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn sources_take_turns_and_none_takes_all_places() {
        let mut turns = Turns::new(6, 3);
        let [a, b, c] = ["a", "b", "c"].map(Source::user);
        let first = turns.wait(&a, "a");
        for _ in 0..9 {
            turns.wait(&a, "a");
        }
        assert_eq!(begun(&mut turns), ["a", "a", "a"], "its cap");
        turns.wait(&b, "b");
        turns.wait(&b, "b");
        assert_eq!(begun(&mut turns), ["b", "b"]);
        turns.wait(&b, "b");
        assert!(begun(&mut turns).is_empty(), "the last place is for who has none");
        turns.wait(&c, "c");
        assert_eq!(begun(&mut turns), ["c"]);
        turns.end(&a, first);
        assert!(begun(&mut turns).is_empty(), "one place is left");
        turns.wait(&Source::user("d"), "d");
        assert_eq!(begun(&mut turns), ["d"]);
    }

    #[test]
    fn a_request_that_is_given_up_leaves_no_trace() {
        let mut turns = Turns::new(1, 1);
        let source = Source::user("a");
        let numbers: Vec<_> = ["1", "2", "3"].into_iter().map(|name| turns.wait(&source, name)).collect();
        assert_eq!(begun(&mut turns), ["1"]);
        turns.end(&source, numbers[1]);
        turns.end(&source, numbers[0]);
        assert_eq!(begun(&mut turns), ["3"]);
        turns.end(&source, numbers[2]);
        let given_up = turns.wait(&source, "4");
        turns.end(&source, given_up);
        assert!(begun(&mut turns).is_empty());
        assert!(turns.groups.is_empty() && turns.order.is_empty() && turns.under_way == 0);
    }

    #[test]
    fn a_tenant_with_many_users_takes_turns_with_the_others_and_has_half_at_most() {
        let mut turns = Turns::new(8, 8);
        let user = |name: &str| Source::user(name).of_tenant(Some("large"));
        let numbers: Vec<_> =
            (0..100).map(|n| (user(&n.to_string()), turns.wait(&user(&n.to_string()), "large"))).collect();
        assert_eq!(begun(&mut turns).len(), 4);
        let small = Source::user("0").of_tenant(Some("small"));
        for name in ["s1", "s2", "s3"] {
            turns.wait(&small, name);
        }
        assert_eq!(begun(&mut turns), ["s1", "s2"]);
        for (source, number) in &numbers[..2] {
            turns.end(source, *number);
        }
        assert_eq!(begun(&mut turns), ["large", "s3"], "in turn, and no more than are free");
    }
}
