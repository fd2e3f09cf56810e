//! Who has not proven anything yet (sans-IO): each is known by a ticket, and belongs to an address. Where they have to
//! make room, the address with the most loses its oldest, so that a flood takes the room of nobody but itself.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU64;

/// Names one of them. Later ones are larger.
pub type Ticket = NonZeroU64;

/// All of one kind; `E` is what ends one.
#[derive(Debug)]
pub struct Unproven<E> {
    all: HashMap<Ticket, (IpAddr, E)>,
    by_address: HashMap<IpAddr, BTreeSet<Ticket>>,
    /// Every address with its number and its oldest. Of several with the most, the last has the oldest.
    largest: BTreeSet<(usize, Reverse<Ticket>, IpAddr)>,
}

impl<E> Default for Unproven<E> {
    fn default() -> Self {
        Self { all: HashMap::new(), by_address: HashMap::new(), largest: BTreeSet::new() }
    }
}

impl<E> Unproven<E> {
    /// Adds one. Tickets only grow.
    pub fn insert(&mut self, ticket: Ticket, address: IpAddr, end: E) {
        self.change(address, |tickets| tickets.insert(ticket));
        self.all.insert(ticket, (address, end));
    }

    /// Takes one out: it has proven itself, is gone, or is to end.
    pub fn remove(&mut self, ticket: Ticket) -> Option<E> {
        let (address, end) = self.all.remove(&ticket)?;
        self.change(address, |tickets| tickets.remove(&ticket));
        Some(end)
    }

    /// Takes out the oldest of an address.
    pub fn remove_oldest_of(&mut self, address: IpAddr) -> Option<E> {
        let oldest = *self.by_address.get(&address)?.first()?;
        self.remove(oldest)
    }

    /// Takes out the oldest of the address with the most.
    pub fn remove_oldest_of_largest(&mut self) -> Option<E> {
        let (_, Reverse(oldest), _) = *self.largest.last()?;
        self.remove(oldest)
    }

    /// How many the address with the most has.
    pub fn largest(&self) -> usize {
        self.largest.last().map_or(0, |(count, ..)| *count)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut BTreeSet<Ticket>) -> bool) {
        let tickets = self.by_address.entry(address).or_default();
        let place = |tickets: &BTreeSet<Ticket>| Some((tickets.len(), Reverse(*tickets.first()?), address));
        let before = place(tickets);
        change(tickets);
        let after = place(tickets);
        if after.is_none() {
            self.by_address.remove(&address);
        }
        if before != after {
            before.map(|before| self.largest.remove(&before));
            self.largest.extend(after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn ticket(n: u64) -> Ticket {
        Ticket::new(n).unwrap()
    }

    #[test]
    fn the_address_with_the_most_loses_its_oldest() {
        let mut unproven = Unproven::default();
        unproven.insert(ticket(1), B, "B's first");
        for n in 2..6 {
            unproven.insert(ticket(n), A, "one of A");
        }
        for _ in 0..3 {
            assert_eq!(unproven.remove_oldest_of_largest(), Some("one of A"));
        }
        assert_eq!((unproven.len(), unproven.largest()), (2, 1));
        assert_eq!(unproven.remove_oldest_of_largest(), Some("B's first"), "the oldest of equals");
        assert_eq!(unproven.remove_oldest_of_largest(), Some("one of A"));
        assert_eq!(unproven.remove_oldest_of_largest(), None);
        assert!(unproven.is_empty() && unproven.by_address.is_empty() && unproven.largest.is_empty());
    }

    #[test]
    fn one_that_is_gone_is_not_found() {
        let mut unproven = Unproven::default();
        unproven.insert(ticket(1), A, 'a');
        unproven.insert(ticket(2), A, 'b');
        assert_eq!((unproven.remove(ticket(1)), unproven.remove(ticket(1))), (Some('a'), None));
        assert_eq!((unproven.remove_oldest_of(B), unproven.remove_oldest_of(A)), (None, Some('b')));
    }
}
