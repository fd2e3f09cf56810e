//! Notices that wait, in lanes: one after the other in each, several lanes at once. Sans-IO.
//!
//! Of one session, one user's presence or one room at most two notices wait, such as `connect` and `disconnect`. A third one
//! says what the first said, and replaces both. What was sent already, and is to be sent again, is not replaced. Over the bound in bytes the largest lane loses its oldest notice, so that who causes many loses their own.

use crate::backend::request::{EncodedRequest, RequestKind};
use crate::backend::source::Source;
use crate::model::id::Id;
use crate::model::names::{Namespace, Room};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Lanes of an address and of the rooms, over which their sessions and rooms are spread. A user has one.
const PARTS: u64 = 4;
/// What a waiting notice costs besides its body, about: itself and its entries in the tables, which are its own if its user has
/// no other.
const OVERHEAD: usize = 700;

/// What a notice is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A session: `connect`, `disconnect`.
    Session(Id),
    /// A user's presence: `online`, `offline`.
    Presence(Source),
    /// A room: `occupied`, `vacated`.
    Room(Namespace, Room),
}

/// Its notices are sent in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lane(Source, u64);

impl Lane {
    /// That of a user, for all of their sessions and their presence.
    fn of(source: &Source, subject: &Subject) -> Self {
        if source.is_user() {
            return Self(source.clone(), 0);
        }
        let mut hasher = DefaultHasher::new();
        subject.hash(&mut hasher);
        Self(source.clone(), hasher.finish() % PARTS)
    }

    pub(super) fn source(&self) -> &Source {
        &self.0
    }
}

/// A notice on its way out.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub lane: Lane,
    pub subject: Subject,
    pub request: EncodedRequest,
    /// Attempts that failed.
    pub failures: u32,
    /// When the first attempt began.
    pub first_ms: Option<u64>,
    number: u64,
}

impl Notice {
    fn bytes(&self) -> usize {
        self.request.body.len() + OVERHEAD
    }
}

/// What follows.
pub(super) enum Next {
    Send(Notice),
    /// Nothing before this time.
    At(u64),
    Nothing,
}

/// What a change has cost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Replaced by newer ones about the same subject.
    pub merged: u64,
    /// Dropped for the bound.
    pub dropped: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// `ready` has it, perhaps without notices.
    Ready,
    /// A notice of it is being sent.
    Sending,
    /// `delayed` has it, at this time.
    Delayed(u64),
}

struct Waiting {
    state: State,
    /// Never sent; by number, oldest first.
    notices: BTreeMap<u64, Box<Notice>>,
    /// Before them: to be sent again.
    again: Option<Box<Notice>>,
    /// Of both.
    bytes: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.notices.is_empty() && self.again.is_none()
    }
}

/// The queue.
pub(super) struct NoticeQueue {
    max_bytes: usize,
    lanes: HashMap<Lane, Waiting>,
    /// Where the waiting notice about a subject is, or the one that was sent and is not done.
    subjects: HashMap<Subject, Place>,
    ready: VecDeque<Lane>,
    delayed: BTreeSet<(u64, Lane)>,
    /// Lanes with notices, by their bytes.
    by_size: BTreeSet<(usize, Lane)>,
    bytes: usize,
    /// Notices that wait.
    len: usize,
    next_number: u64,
}

struct Place {
    lane: Lane,
    /// Those that wait and were never sent, oldest first: at most two, of different kinds.
    waiting: Vec<(u64, RequestKind)>,
    /// One was sent and is not done.
    is_sent: bool,
}

impl NoticeQueue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            lanes: HashMap::new(),
            subjects: HashMap::new(),
            ready: VecDeque::new(),
            delayed: BTreeSet::new(),
            by_size: BTreeSet::new(),
            bytes: 0,
            len: 0,
            next_number: 0,
        }
    }

    /// Bytes of the waiting notices.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a notice.
    pub(super) fn push(&mut self, source: &Source, subject: Subject, request: EncodedRequest) -> Lost {
        let known = self.subjects.get(&subject);
        // A session without a user may come back from another address. Its notices stay in order.
        let lane = known.map_or_else(|| Lane::of(source, &subject), |place| place.lane.clone());
        let replaced = known.map_or_else(Vec::new, |place| {
            let same = place.waiting.iter().position(|(_, kind)| *kind == request.kind);
            same.map_or_else(Vec::new, |first| place.waiting[first..].to_vec())
        });
        let number = replaced.first().map_or(self.next_number, |(number, _)| *number);
        self.next_number += 1;
        for (number, _) in &replaced {
            self.remove(&lane, *number);
        }
        self.insert(Notice { lane, subject, request, failures: 0, first_ms: None, number });
        Lost { merged: replaced.len() as u64, dropped: self.shrink() }
    }

    /// The next notice, of the lanes in turn. [`NoticeQueue::done`] or [`NoticeQueue::retry`] follows.
    pub(super) fn next(&mut self, now_ms: u64) -> Next {
        while let Some((at, _)) = self.delayed.first()
            && *at <= now_ms
            && let Some((_, lane)) = self.delayed.pop_first()
        {
            self.set_ready(&lane);
        }
        while let Some(lane) = self.ready.pop_front() {
            let Some(waiting) = self.lanes.get_mut(&lane) else { continue };
            waiting.state = State::Sending;
            match self.take_first(&lane) {
                Some(notice) => return Next::Send(notice),
                None => drop(self.lanes.remove(&lane)),
            }
        }
        self.delayed.first().map_or(Next::Nothing, |(at, _)| Next::At(*at))
    }

    /// A notice arrived, or is given up.
    pub(super) fn done(&mut self, notice: &Notice) {
        self.end(&notice.subject);
        self.set_ready(&notice.lane);
    }

    /// A notice is to be sent again at this time, before the others of its lane.
    pub(super) fn retry(&mut self, notice: Notice, at_ms: u64) -> Lost {
        let (lane, bytes) = (notice.lane.clone(), notice.bytes());
        if let Some(waiting) = self.lanes.get_mut(&lane) {
            waiting.again = Some(Box::new(notice));
            waiting.state = State::Delayed(at_ms);
            self.delayed.insert((at_ms, lane.clone()));
            self.len += 1;
            self.resize(&lane, |size| size + bytes);
        }
        Lost { merged: 0, dropped: self.shrink() }
    }

    /// The notice about this subject that was sent is over.
    fn end(&mut self, subject: &Subject) {
        if let Some(place) = self.subjects.get_mut(subject) {
            place.is_sent = false;
            if place.waiting.is_empty() {
                self.subjects.remove(subject);
            }
        }
    }

    /// The first notice of a lane, to be sent.
    fn take_first(&mut self, lane: &Lane) -> Option<Notice> {
        if let Some(again) = self.take_again(lane) {
            return Some(again);
        }
        let number = *self.lanes.get(lane)?.notices.first_key_value()?.0;
        let notice = self.remove(lane, number)?;
        let place = self.subjects.entry(notice.subject.clone());
        place.or_insert_with(|| Place { lane: lane.clone(), waiting: Vec::new(), is_sent: false }).is_sent = true;
        Some(notice)
    }

    fn take_again(&mut self, lane: &Lane) -> Option<Notice> {
        let again = *self.lanes.get_mut(lane)?.again.take()?;
        let bytes = again.bytes();
        self.len -= 1;
        self.resize(lane, |size| size - bytes);
        Some(again)
    }

    fn set_ready(&mut self, lane: &Lane) {
        match self.lanes.get_mut(lane) {
            Some(waiting) if !waiting.is_empty() => {
                waiting.state = State::Ready;
                self.ready.push_back(lane.clone());
            }
            _ => drop(self.lanes.remove(lane)),
        }
    }

    fn insert(&mut self, notice: Notice) {
        let (lane, number, bytes) = (notice.lane.clone(), notice.number, notice.bytes());
        let place = self.subjects.entry(notice.subject.clone());
        let place = place.or_insert_with(|| Place { lane: lane.clone(), waiting: Vec::new(), is_sent: false });
        place.waiting.push((number, notice.request.kind));
        let waiting = self.lanes.entry(lane.clone()).or_insert_with(|| {
            self.ready.push_back(lane.clone());
            Waiting { state: State::Ready, notices: BTreeMap::new(), again: None, bytes: 0 }
        });
        waiting.notices.insert(number, Box::new(notice));
        self.len += 1;
        self.resize(&lane, |size| size + bytes);
    }

    /// Takes a waiting notice out. Its lane stays, also without notices.
    fn remove(&mut self, lane: &Lane, number: u64) -> Option<Notice> {
        let notice = *self.lanes.get_mut(lane)?.notices.remove(&number)?;
        let bytes = notice.bytes();
        self.len -= 1;
        self.resize(lane, |size| size - bytes);
        if let Some(place) = self.subjects.get_mut(&notice.subject) {
            place.waiting.retain(|(other, _)| *other != number);
            if place.waiting.is_empty() && !place.is_sent {
                self.subjects.remove(&notice.subject);
            }
        }
        Some(notice)
    }

    fn resize(&mut self, lane: &Lane, change: impl FnOnce(usize) -> usize) {
        let Some(waiting) = self.lanes.get_mut(lane) else { return };
        let (old, new) = (waiting.bytes, change(waiting.bytes));
        waiting.bytes = new;
        self.bytes = self.bytes - old + new;
        self.by_size.remove(&(old, lane.clone()));
        if new > 0 {
            self.by_size.insert((new, lane.clone()));
        }
    }

    /// Another bound from now on.
    pub(super) fn allow(&mut self, max_bytes: usize) -> Lost {
        self.max_bytes = max_bytes;
        Lost { merged: 0, dropped: self.shrink() }
    }

    /// Drops the oldest notices of the largest lanes until the bound holds.
    fn shrink(&mut self) -> u64 {
        let mut dropped = 0;
        while self.bytes > self.max_bytes
            && let Some((_, lane)) = self.by_size.last().cloned()
        {
            let oldest = self.lanes.get(&lane).and_then(|waiting| waiting.notices.first_key_value());
            match oldest.map(|(number, _)| *number) {
                Some(number) => drop(self.remove(&lane, number)),
                None => self.take_again(&lane).iter().for_each(|notice| self.end(&notice.subject)),
            }
            dropped += 1;
            self.forget_if_empty(&lane);
        }
        dropped
    }

    /// The other states end by themselves: a lane that is ready at its turn, one that is sending by `done` or `retry`.
    fn forget_if_empty(&mut self, lane: &Lane) {
        let Some(waiting) = self.lanes.get(lane).filter(|waiting| waiting.is_empty()) else { return };
        if let State::Delayed(at) = waiting.state {
            self.delayed.remove(&(at, lane.clone()));
            self.lanes.remove(lane);
        }
    }
}

#[cfg(test)]
mod tests;
