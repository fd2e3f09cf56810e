//! What a node knows of polling sessions of other nodes whose requests arrive here.

use crate::cluster::Confirmed;
use crate::model::id::Id;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long the answer about a session whose client has proven who it is counts: longer than a ping interval, so that
/// ordinary polling rarely asks.
const PROVEN_FOR: Duration = Duration::from_secs(30);
/// How long any other answer counts.
const KNOWN_FOR: Duration = Duration::from_secs(5);
/// Answers that are kept, some 4 MB. Above it the oldest go, and are asked for again.
const MAX_KNOWN: usize = 50_000;
/// Requests of one kind and one session on their way to its node at once. A client makes one; the second makes the owner
/// end the session, as the protocol wants it.
const MAX_IN_FLIGHT: u8 = 2;

/// The kinds of polling requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollKind {
    /// Waits for packets.
    Get,
    /// Brings packets.
    Post,
}

/// See the module.
#[derive(Default)]
pub struct ForwardedSids {
    known: HashMap<Id, (Instant, Confirmed)>,
    /// In the order in which they were noted; an entry of `known` that is newer has a later one here.
    order: VecDeque<(Instant, Id)>,
    in_flight: HashMap<Id, [u8; 2]>,
}

impl ForwardedSids {
    /// Notes what the owner said.
    pub fn note(&mut self, sid: Id, answer: Confirmed, now: Instant) {
        self.known.insert(sid, (now, answer));
        self.order.push_back((now, sid));
        while let Some((noted, sid)) = self.order.front().copied()
            && (self.order.len() > MAX_KNOWN || now.duration_since(noted) >= PROVEN_FOR)
        {
            self.order.pop_front();
            if self.known.get(&sid).is_some_and(|(newest, _)| *newest == noted) {
                self.known.remove(&sid);
            }
        }
    }

    /// The owner served a request of this session.
    pub fn note_served(&mut self, sid: Id, now: Instant) {
        let answer = self.known(sid, now).filter(|answer| *answer == Confirmed::Proven);
        self.note(sid, answer.unwrap_or(Confirmed::Unproven), now);
    }

    /// What is known of a sid, if that still counts.
    pub fn known(&self, sid: Id, now: Instant) -> Option<Confirmed> {
        let (noted, answer) = *self.known.get(&sid)?;
        let counts_for = if answer == Confirmed::Proven { PROVEN_FOR } else { KNOWN_FOR };
        (now.duration_since(noted) < counts_for).then_some(answer)
    }

    /// Counts a request; `false` where too many of the kind are on their way already.
    #[must_use]
    pub fn begin(&mut self, sid: Id, kind: PollKind) -> bool {
        let count = &mut self.in_flight.entry(sid).or_default()[kind as usize];
        let is_free = *count < MAX_IN_FLIGHT;
        *count += u8::from(is_free);
        is_free
    }

    /// A request that was counted is over.
    pub fn end(&mut self, sid: Id, kind: PollKind) {
        let Some(counts) = self.in_flight.get_mut(&sid) else { return };
        counts[kind as usize] = counts[kind as usize].saturating_sub(1);
        if *counts == [0, 0] {
            self.in_flight.remove(&sid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_its_time_and_all_are_bounded() {
        let (mut sids, now) = (ForwardedSids::default(), Instant::now());
        let (proven, gone) = (Id::random(), Id::random());
        sids.note(proven, Confirmed::Proven, now);
        sids.note(gone, Confirmed::Unknown, now);
        assert_eq!(sids.known(gone, now + KNOWN_FOR / 2), Some(Confirmed::Unknown));
        assert_eq!(
            (sids.known(gone, now + KNOWN_FOR), sids.known(proven, now + KNOWN_FOR)),
            (None, Some(Confirmed::Proven))
        );
        sids.note_served(proven, now + KNOWN_FOR);
        sids.note_served(gone, now + KNOWN_FOR);
        assert_eq!(sids.known(proven, now + PROVEN_FOR), Some(Confirmed::Proven));
        assert_eq!(sids.known(gone, now + KNOWN_FOR), Some(Confirmed::Unproven));
        for _ in 0..2 * MAX_KNOWN {
            sids.note(Id::random(), Confirmed::Unknown, now + PROVEN_FOR);
        }
        assert_eq!((sids.known.len(), sids.order.len()), (MAX_KNOWN, MAX_KNOWN));
        sids.note(gone, Confirmed::Unknown, now + PROVEN_FOR * 2);
        assert_eq!((sids.known.len(), sids.order.len()), (1, 1));
    }

    #[test]
    fn requests_of_a_session_are_counted_by_kind() {
        let (mut sids, sid) = (ForwardedSids::default(), Id::random());
        assert!(sids.begin(sid, PollKind::Get) && sids.begin(sid, PollKind::Get) && sids.begin(sid, PollKind::Post));
        assert!(!sids.begin(sid, PollKind::Get));
        sids.end(sid, PollKind::Get);
        assert!(sids.begin(sid, PollKind::Get));
        for kind in [PollKind::Get, PollKind::Get, PollKind::Post] {
            sids.end(sid, kind);
        }
        assert!(sids.in_flight.is_empty());
    }
}
