//! Sessions whose connection is gone and that may resume (sans-IO).

use crate::event::{Offset, Room};
use crate::id::Id;
use crate::session::timers::Millis;
use std::collections::{HashMap, VecDeque};

/// What a resume needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    /// The Socket.IO sid it gets back.
    pub id: Id,
    /// Its namespace's index.
    pub namespace: u16,
    /// Whose it is; a resume by anybody else is a new session.
    pub user: Option<Box<str>>,
    /// Its rooms.
    pub rooms: Vec<Room>,
    /// Where it began: the resume point of a client that received nothing yet.
    pub start: Offset,
}

/// Parked sessions by pid, each for one window, at most so many.
#[derive(Default)]
pub struct ParkedSessions {
    by_pid: HashMap<Id, (Millis, Parked)>,
    /// In order of their end: every session is parked for the same time.
    ends: VecDeque<(Millis, Id)>,
}

impl ParkedSessions {
    /// Keeps a session until `until`; the oldest goes when more than `most` would be kept.
    pub fn park(&mut self, pid: Id, parked: Parked, until: Millis, most: usize) {
        self.by_pid.insert(pid, (until, parked));
        self.ends.push_back((until, pid));
        while self.by_pid.len() > most {
            self.drop_oldest();
        }
    }

    /// Takes a session for a resume.
    pub fn take(&mut self, pid: Id, now: Millis) -> Option<Parked> {
        self.expire(now);
        self.by_pid.remove(&pid).map(|(_, parked)| parked)
    }

    /// Forgets those whose time is over.
    pub fn expire(&mut self, now: Millis) {
        while self.ends.front().is_some_and(|(end, _)| *end <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((end, pid)) = self.ends.pop_front() else { return };
        // The same pid may have been taken and parked again since.
        if self.by_pid.get(&pid).is_some_and(|(until, _)| *until == end) {
            self.by_pid.remove(&pid);
        }
    }

    /// When the next one ends.
    pub fn next(&self) -> Option<Millis> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.by_pid.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked() -> Parked {
        Parked { id: Id::random(), namespace: 0, user: None, rooms: Vec::new(), start: Offset::default() }
    }

    #[test]
    fn kept_for_the_window_and_taken_once() {
        let (mut sessions, pid, other) = (ParkedSessions::default(), Id::random(), Id::random());
        sessions.park(pid, parked(), 100, 10);
        sessions.park(other, parked(), 110, 10);
        assert!(sessions.take(pid, 99).is_some());
        assert!(sessions.take(pid, 99).is_none());
        sessions.park(pid, parked(), 120, 10);
        sessions.expire(110);
        assert_eq!(sessions.len(), 1);
        assert!(sessions.take(pid, 119).is_some());
        sessions.expire(120);
        assert_eq!((sessions.next(), sessions.is_empty()), (None, true));
    }

    #[test]
    fn bounded() {
        let mut sessions = ParkedSessions::default();
        for n in 0..100 {
            sessions.park(Id::random(), parked(), 100 + n, 10);
        }
        assert_eq!((sessions.len(), sessions.ends.len()), (10, 10));
    }
}
