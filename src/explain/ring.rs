//! The last things that happened, bounded by bytes and age, and by number for each owner, so that one who comes and goes all
//! the time does not push out what is known of others.

use crate::explain::stamp::Stamp;
use std::collections::{HashMap, VecDeque};

/// Bytes of one item beside its own: its place in the ring and in the list of its owner.
const OVERHEAD: usize = 96;

/// See the module.
pub(super) struct Ring<T> {
    max_bytes: usize,
    max_age_ms: u64,
    per_owner: usize,
    /// In order of their numbers. An owner's surplus leaves holes.
    items: VecDeque<Item<T>>,
    owners: HashMap<u64, Owner>,
    next: u64,
    len: usize,
    bytes: usize,
    /// The newest that was forgotten for lack of room, or for its age.
    forgotten: Stamp,
}

struct Item<T> {
    number: u64,
    owner: u64,
    at: Stamp,
    bytes: usize,
    value: Option<T>,
}

#[derive(Default)]
struct Owner {
    numbers: VecDeque<u64>,
    /// The newest of this owner that gave way to a newer one.
    forgotten: Stamp,
}

impl<T> Ring<T> {
    pub(super) fn new(max_bytes: usize, max_age_ms: u64, per_owner: usize) -> Self {
        Self {
            max_bytes,
            max_age_ms,
            per_owner,
            items: VecDeque::new(),
            owners: HashMap::new(),
            next: 0,
            len: 0,
            bytes: 0,
            forgotten: Stamp::default(),
        }
    }

    /// Adds what happened now to somebody, of so many bytes. Answers its number.
    pub(super) fn push(&mut self, owner: u64, at: Stamp, bytes: usize, value: T) -> u64 {
        let (number, bytes, now_ms) = (self.next, bytes + OVERHEAD + at.size(), at.unix_ms);
        self.next += 1;
        self.items.push_back(Item { number, owner, at, bytes, value: Some(value) });
        self.len += 1;
        self.bytes += bytes;
        let own = self.owners.entry(owner).or_default();
        own.numbers.push_back(number);
        if own.numbers.len() > self.per_owner
            && let Some(oldest) = own.numbers.pop_front()
        {
            self.take(oldest, true);
        }
        self.expire(now_ms);
        number
    }

    /// Forgets what is too old or too much.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some(first) = self.items.front() {
            let is_old = now_ms.saturating_sub(first.at.unix_ms) > self.max_age_ms;
            if first.value.is_some() && !is_old && self.bytes <= self.max_bytes {
                break;
            }
            let (number, owner) = (first.number, first.owner);
            if first.value.is_some() {
                self.take(number, false);
                self.forget_number(owner, number);
            }
            self.items.pop_front();
        }
        if self.items.len() > 64 && self.items.len() > 2 * self.len {
            self.items.retain(|item| item.value.is_some());
        }
    }

    fn forget_number(&mut self, owner: u64, number: u64) {
        if let Some(own) = self.owners.get_mut(&owner) {
            own.numbers.retain(|known| *known != number);
            if own.numbers.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }

    fn take(&mut self, number: u64, is_surplus: bool) {
        let Ok(index) = self.items.binary_search_by_key(&number, |item| item.number) else { return };
        let item = &mut self.items[index];
        if item.value.take().is_none() {
            return;
        }
        self.len -= 1;
        self.bytes -= item.bytes;
        let forgotten = match self.owners.get_mut(&item.owner).filter(|_| is_surplus) {
            Some(own) => &mut own.forgotten,
            None => &mut self.forgotten,
        };
        if item.at > *forgotten {
            *forgotten = item.at.clone();
        }
    }

    /// What happened to somebody, oldest first.
    pub(super) fn of(&self, owner: u64) -> impl Iterator<Item = (Stamp, &T)> {
        let numbers = self.owners.get(&owner).into_iter().flat_map(|own| &own.numbers);
        numbers.filter_map(|number| {
            let index = self.items.binary_search_by_key(number, |item| item.number).ok()?;
            let item = &self.items[index];
            Some((item.at.clone(), item.value.as_ref()?))
        })
    }

    /// The item of this number, if it is still there.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let index = self.items.binary_search_by_key(&number, |item| item.number).ok()?;
        self.items[index].value.as_mut()
    }

    /// Everything of this owner after this is still known.
    pub(super) fn forgotten(&self, owner: u64) -> Stamp {
        let own = self.owners.get(&owner).map(|own| &own.forgotten);
        own.map_or(&self.forgotten, |own| own.max(&self.forgotten)).clone()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::place::Place;

    fn at(unix_ms: u64) -> Stamp {
        Stamp::new(unix_ms, &Place::default())
    }

    fn of(ring: &Ring<u64>, owner: u64) -> Vec<u64> {
        ring.of(owner).map(|(_, value)| *value).collect()
    }

    #[test]
    fn bounded_in_bytes_and_age_and_says_how_far_back_it_sees() {
        let mut ring = Ring::new(10 * (OVERHEAD + 4), 1_000, 100);
        for n in 0..50 {
            ring.push(n % 5, at(n), 4, n);
            assert!(ring.bytes() <= 10 * (OVERHEAD + 4));
        }
        assert_eq!((of(&ring, 4), ring.forgotten(4)), (vec![44, 49], at(39)));
        ring.expire(1_046);
        assert_eq!((of(&ring, 4), of(&ring, 0), ring.forgotten(0)), (vec![49], Vec::new(), at(45)));
        ring.expire(9_999);
        assert_eq!((ring.owners.len(), ring.items.len(), ring.bytes, ring.len), (0, 0, 0, 0));
    }

    #[test]
    fn who_comes_and_goes_pushes_out_only_what_is_known_of_them() {
        let mut ring = Ring::new(1_000_000, 1_000_000, 3);
        let number = ring.push(7, at(1), 4, 70);
        for n in 2..5_000 {
            ring.push(8, at(n), 4, n);
        }
        assert_eq!((of(&ring, 7), of(&ring, 8)), (vec![70], vec![4_997, 4_998, 4_999]));
        assert_eq!((ring.forgotten(7), ring.forgotten(8), ring.forgotten(9)), (at(0), at(4_996), at(0)));
        assert!(ring.items.len() < 100, "holes are filled: {}", ring.items.len());
        *ring.get_mut(number).unwrap() = 71;
        assert_eq!(of(&ring, 7), [71]);
    }
}
