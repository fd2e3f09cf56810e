//! The table of facts. Each user who is connected has one, so it holds a pointer for each and the fact itself once.

use crate::presence::Fact;
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// Facts, and what is known of each.
#[derive(Debug)]
pub(super) struct Facts<S> {
    /// In boxes, because a table has up to twice the room that it needs.
    table: HashTable<Box<(Fact, S)>>,
    hasher: RandomState,
}

impl<S> Default for Facts<S> {
    fn default() -> Self {
        Self { table: HashTable::new(), hasher: RandomState::new() }
    }
}

impl<S: Default> Facts<S> {
    pub(super) fn get(&self, fact: &Fact) -> Option<&S> {
        self.table.find(self.hasher.hash_one(fact), |entry| entry.0 == *fact).map(|entry| &entry.1)
    }

    pub(super) fn get_mut(&mut self, fact: &Fact) -> Option<&mut S> {
        self.table.find_mut(self.hasher.hash_one(fact), |entry| entry.0 == *fact).map(|entry| &mut entry.1)
    }

    pub(super) fn get_or_default(&mut self, fact: &Fact) -> &mut S {
        let hash = self.hasher.hash_one(fact);
        let hasher = &self.hasher;
        let entry = self.table.entry(hash, |entry| entry.0 == *fact, |entry| hasher.hash_one(&entry.0));
        &mut entry.or_insert_with(|| Box::new((fact.clone(), S::default()))).into_mut().1
    }

    pub(super) fn remove(&mut self, fact: &Fact) {
        if let Ok(entry) = self.table.find_entry(self.hasher.hash_one(fact), |entry| entry.0 == *fact) {
            entry.remove();
        }
        if self.table.len() * 8 < self.table.capacity() {
            self.table.shrink_to(self.table.len() * 2, |entry| self.hasher.hash_one(&entry.0));
        }
    }

    pub(super) fn contains(&self, fact: &Fact) -> bool {
        self.get(fact).is_some()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Fact, &mut S)> {
        self.table.iter_mut().map(|entry| (&entry.0, &mut entry.1))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}
