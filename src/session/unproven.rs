//! Who has not proven anything yet (sans-IO): each is known by a ticket, and belongs to an address. Where they have to
//! make room, the address with the most loses its oldest, so that a flood takes the room of nobody but itself.
//!
//! While there is room for all, nobody asks which address has the most, and each connection pays only for its place in
//! a table. The ranking of addresses is made when somebody first has to make room, and kept until half of those are
//! gone: making it costs each of that half a few comparisons.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU64;

/// Names one of them. Later ones are larger.
pub type Ticket = NonZeroU64;

/// All of one kind; `E` is what ends one.
#[derive(Debug)]
pub struct Unproven<E> {
    /// Its keys are counted by the node itself, so nobody can choose ones that collide: a fast hash will do.
    all: hashbrown::HashMap<Ticket, (IpAddr, E)>,
    ranking: Option<Ranking>,
}

impl<E> Default for Unproven<E> {
    fn default() -> Self {
        Self { all: hashbrown::HashMap::new(), ranking: None }
    }
}

impl<E> Unproven<E> {
    /// Adds one. Tickets only grow.
    pub fn insert(&mut self, ticket: Ticket, address: IpAddr, end: E) {
        if let Some(ranking) = &mut self.ranking {
            ranking.insert(ticket, address);
        }
        self.all.insert(ticket, (address, end));
    }

    /// Takes one out: it has proven itself, is gone, or is to end.
    pub fn remove(&mut self, ticket: Ticket) -> Option<E> {
        let (address, end) = self.all.remove(&ticket)?;
        if let Some(ranking) = &mut self.ranking {
            ranking.remove(ticket, address);
            if self.all.len() < ranking.made_of / 2 {
                self.ranking = None;
            }
        }
        Some(end)
    }

    /// Takes out the oldest of an address.
    pub fn remove_oldest_of(&mut self, address: IpAddr) -> Option<E> {
        let oldest = *self.ranking().by_address.get(&address)?.first()?;
        self.remove(oldest)
    }

    /// Takes out the oldest of the address with the most.
    pub fn remove_oldest_of_largest(&mut self) -> Option<E> {
        let (_, Reverse(oldest), _) = *self.ranking().largest.last()?;
        self.remove(oldest)
    }

    /// How many the address with the most has.
    pub fn largest(&mut self) -> usize {
        self.ranking().largest.last().map_or(0, |(count, ..)| *count)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn ranking(&mut self) -> &Ranking {
        let Self { all, ranking } = self;
        ranking.get_or_insert_with(|| Ranking::of(all.iter().map(|(ticket, (address, _))| (*ticket, *address))))
    }
}

/// Which address has the most.
#[derive(Debug, Default)]
struct Ranking {
    by_address: HashMap<IpAddr, BTreeSet<Ticket>>,
    /// Every address with its number and its oldest. Of several with the most, the last has the oldest.
    largest: BTreeSet<(usize, Reverse<Ticket>, IpAddr)>,
    /// How many there were when it was made.
    made_of: usize,
}

impl Ranking {
    fn of(all: impl Iterator<Item = (Ticket, IpAddr)>) -> Self {
        let mut ranking = Self::default();
        for (ticket, address) in all {
            ranking.by_address.entry(address).or_default().insert(ticket);
            ranking.made_of += 1;
        }
        ranking.largest = ranking.by_address.iter().filter_map(|(address, tickets)| rank(*address, tickets)).collect();
        ranking
    }

    fn insert(&mut self, ticket: Ticket, address: IpAddr) {
        self.change(address, |tickets| tickets.insert(ticket));
    }

    fn remove(&mut self, ticket: Ticket, address: IpAddr) {
        self.change(address, |tickets| tickets.remove(&ticket));
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut BTreeSet<Ticket>) -> bool) {
        let tickets = self.by_address.entry(address).or_default();
        let before = rank(address, tickets);
        change(tickets);
        let after = rank(address, tickets);
        if after.is_none() {
            self.by_address.remove(&address);
        }
        if before != after {
            before.map(|before| self.largest.remove(&before));
            self.largest.extend(after);
        }
    }
}

fn rank(address: IpAddr, tickets: &BTreeSet<Ticket>) -> Option<(usize, Reverse<Ticket>, IpAddr)> {
    Some((tickets.len(), Reverse(*tickets.first()?), address))
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
        assert!(unproven.is_empty());
    }

    #[test]
    fn one_that_is_gone_is_not_found() {
        let mut unproven = Unproven::default();
        unproven.insert(ticket(1), A, 'a');
        unproven.insert(ticket(2), A, 'b');
        assert_eq!((unproven.remove(ticket(1)), unproven.remove(ticket(1))), (Some('a'), None));
        assert_eq!((unproven.remove_oldest_of(B), unproven.remove_oldest_of(A)), (None, Some('b')));
    }

    #[test]
    fn ranked_only_while_somebody_has_to_make_room() {
        let mut unproven = Unproven::default();
        let mut model = BTreeSet::new();
        for n in 1..=100 {
            let address = if n % 3 == 0 { B } else { A };
            unproven.insert(ticket(n), address, n);
            model.insert((n, address));
        }
        assert!(unproven.ranking.is_none(), "nobody has asked");
        let mut ranked = 0;
        for n in 101..400 {
            let of = |address| model.iter().filter(|one| one.1 == address).count();
            let largest = if of(A) >= of(B) { A } else { B };
            // Every other round two leave of themselves, so that the number falls and grows.
            if n % 2 == 0 {
                let oldest = model.iter().find(|one| one.1 == largest).copied().unwrap();
                if of(A) != of(B) {
                    assert_eq!(unproven.remove_oldest_of_largest(), Some(oldest.0));
                } else {
                    unproven.remove(ticket(oldest.0));
                }
                model.remove(&oldest);
            }
            for gone in model.iter().copied().take(usize::from(n < 250) * 2).collect::<Vec<_>>() {
                assert_eq!(unproven.remove(ticket(gone.0)), Some(gone.0));
                model.remove(&gone);
            }
            unproven.insert(ticket(n), B, n);
            model.insert((n, B));
            ranked += usize::from(unproven.ranking.is_some());
            assert_eq!(unproven.len(), model.len());
        }
        assert!((1..299).contains(&ranked), "the ranking came and went: {ranked}");
    }
}
