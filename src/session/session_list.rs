//! The sessions of a connection, in the order in which they began (sans-IO). Most have one, which costs no allocation.

use crate::session::keys::SessionKey;
use std::ops::Deref;

/// Read as a slice.
#[derive(Clone, Debug, Default)]
pub struct SessionList(List);

#[derive(Clone, Debug)]
#[expect(clippy::box_collection, reason = "16 bytes for each connection instead of 24")]
enum List {
    Few(Option<SessionKey>),
    Many(Box<Vec<SessionKey>>),
}

impl Default for List {
    fn default() -> Self {
        Self::Few(None)
    }
}

impl SessionList {
    /// Adds one that is not in it.
    pub fn push(&mut self, key: SessionKey) {
        match &mut self.0 {
            List::Few(few @ None) => *few = Some(key),
            List::Few(Some(first)) => self.0 = List::Many(Box::new(vec![*first, key])),
            List::Many(all) => all.push(key),
        }
    }

    /// Takes one out, if it is in it.
    pub fn remove(&mut self, key: SessionKey) {
        match &mut self.0 {
            List::Few(few) => drop(few.take_if(|own| *own == key)),
            List::Many(all) => {
                all.retain(|own| *own != key);
                if all.len() <= 1 {
                    self.0 = List::Few(all.first().copied());
                }
            }
        }
    }
}

impl Deref for SessionList {
    type Target = [SessionKey];

    fn deref(&self) -> &[SessionKey] {
        match &self.0 {
            List::Few(few) => few.as_slice(),
            List::Many(all) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    fn keeps_their_order() {
        let mut keys = SlotMap::<SessionKey, ()>::with_key();
        let [a, b, c] = [(); 3].map(|()| keys.insert(()));
        let mut list = SessionList::default();
        assert!(list.is_empty());
        [a, b, c].into_iter().for_each(|key| list.push(key));
        assert_eq!(*list, [a, b, c]);
        list.remove(b);
        list.remove(b);
        assert_eq!(*list, [a, c]);
        list.remove(a);
        assert!(*list == [c] && matches!(list.0, List::Few(_)));
        list.push(a);
        assert_eq!(*list, [c, a]);
        [a, c].into_iter().for_each(|key| list.remove(key));
        assert!(list.is_empty());
        assert_eq!(size_of::<SessionList>(), 16);
    }
}
