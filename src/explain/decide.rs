//! What became of an event for one session: from facts to an outcome.

use crate::explain::history::{End, Reset};
use crate::explain::stamp::Stamp;
use crate::model::close::CloseReason;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use crate::model::place::Place;
use crate::model::session_note::{LeftBy, SessionNote};
use crate::session::changes::Change;

/// The event.
#[derive(Clone, Copy, Debug)]
pub struct EventFacts<'a> {
    /// Its line of the log.
    pub line: Line,
    /// Where it is on that.
    pub position: Position,
    /// The rooms that it went to.
    pub rooms: &'a [Room],
    /// The rooms whose members did not get it.
    pub except: &'a [Room],
}

impl EventFacts<'_> {
    /// A place on its line.
    fn position_of(&self, place: &Place) -> Position {
        place.on(self.line).unwrap_or_default().position
    }

    /// Whether it came before a change of rooms.
    fn is_before(&self, change: &Change) -> bool {
        change.on(self.line).is_some_and(|after| after >= self.position)
    }
}

/// One stay of a session on a shard: between two connections of its client. Positions are those of the event's line.
pub struct Facts<'a> {
    /// Where the session began; the start of the line where that is not known.
    pub began: Position,
    /// When this stay began, in Unix milliseconds.
    pub since_ms: u64,
    /// Whether its client may resume it, so that it may be older than this stay.
    pub is_lasting: bool,
    /// Where its shard is.
    pub here: Position,
    /// How it ended; `None`: it is live.
    pub end: Option<&'a End>,
    /// Up to where it has everything, if it is behind the log.
    pub behind: Option<Position>,
    /// Whether the event waits in its outbox.
    pub is_queued: bool,
    /// When its shard wrote the event.
    pub written_ms: Option<u64>,
    /// Whether it is in a room, now or at its end.
    pub is_in: &'a dyn Fn(&str) -> bool,
    /// Whether it is in a room since its start, by its token.
    pub is_since_start: &'a dyn Fn(&str) -> bool,
    /// How its rooms changed, oldest first.
    pub changes: &'a [Change],
    /// After this position, these are all changes.
    pub known_from: Position,
    /// What happened to it, oldest first.
    pub notes: &'a [(Stamp, SessionNote)],
    /// When the log began anew.
    pub resets: &'a [Reset],
}

/// Why an event that a session gets is not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// In the outbox: its client takes less than there is for it.
    Outbox,
    /// In the recent log: its client reads what it missed.
    Replay,
    /// In the log: the node has not come to it.
    Node,
}

/// What became of an event for one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was written to the network, at this time if that is known.
    Delivered(Option<u64>),
    /// It came while the client was away, and was replayed at this time.
    Replayed(u64),
    /// When the client came back, at this time, it named a later position: it had the event by an earlier connection.
    HadIt(u64),
    /// It is on its way.
    Waiting(Waiting),
    /// It waited when the connection ended, for this reason at this time.
    Dropped(CloseReason, u64),
    /// The client was notified that it may have missed it, for this reason at this time.
    Gap(&'static str, u64),
    /// The session was in this room, whose members did not get it.
    Excepted(Room),
    /// The session joined the room later, at this time if that is known.
    JoinedLater(Option<u64>),
    /// The session had left the room.
    LeftBefore(u64, LeftBy),
    /// The session was not in the room.
    NotInRoom,
    /// The session began later.
    ConnectedLater,
    /// The session had ended or lost its connection.
    EndedBefore(CloseReason, u64),
    /// When the session was in which room is no longer known.
    Unknown,
}

impl Outcome {
    /// Its name in answers.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Delivered(_) | Self::Replayed(_) | Self::HadIt(_) => "delivered",
            Self::Waiting(_) => "waiting",
            Self::Dropped(..) => "dropped",
            Self::Gap(..) => "gap",
            Self::Excepted(_) => "excepted",
            Self::JoinedLater(_) => "joined_later",
            Self::LeftBefore(..) => "left_before",
            Self::NotInRoom => "not_in_room",
            Self::ConnectedLater => "connected_later",
            Self::EndedBefore(..) => "ended_before",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether a session was in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    Inside,
    Outside,
    Unknown,
}

/// A session continued from an earlier position than that at which it came.
struct Resumed<'a> {
    at_ms: u64,
    after: Position,
    room: Option<&'a Room>,
}

impl Facts<'_> {
    /// What became of an event.
    pub fn outcome(&self, event: &EventFacts<'_>) -> Outcome {
        let position = event.position;
        if let Some((at, code)) = self.gap(event) {
            return Outcome::Gap(code, at);
        }
        if let Some(end) = self.end.filter(|end| end.at.on(event.line) < position) {
            return Outcome::EndedBefore(end.reason, end.at.unix_ms);
        }
        let resumed = self.resumed(event);
        if position <= self.began && (self.is_lasting || resumed.is_none()) {
            return Outcome::ConnectedLater;
        }
        let inside = |room: &Room| match &resumed {
            // It asked for the past of the rooms that it joined.
            Some(Resumed { room: Some(joined), .. }) if *joined == room => Membership::Inside,
            Some(_) if !self.is_lasting => self.membership_now(room),
            _ => self.membership(room, event),
        };
        let of_rooms: Vec<Membership> = event.rooms.iter().map(inside).collect();
        if !of_rooms.contains(&Membership::Inside) {
            return match of_rooms.contains(&Membership::Unknown) {
                true => Outcome::Unknown,
                false => self.outside(event),
            };
        }
        if let Some(except) = event.except.iter().find(|room| inside(room) == Membership::Inside) {
            return Outcome::Excepted(except.clone());
        }
        match &resumed {
            Some(Resumed { at_ms, after, .. }) if position <= *after => Outcome::HadIt(*at_ms),
            _ => self.delivery(event, resumed.map(|resumed| resumed.at_ms)),
        }
    }

    fn membership_now(&self, room: &str) -> Membership {
        if (self.is_in)(room) { Membership::Inside } else { Membership::Outside }
    }

    /// Whether it was in a room when the event came.
    fn membership(&self, room: &Room, event: &EventFacts<'_>) -> Membership {
        let position = event.position;
        let later = self.changes.iter().find(|change| event.is_before(change) && change.room == *room);
        match later {
            // Before its first later change it was the other way round.
            Some(change) if position > self.known_from => match change.joined {
                true => Membership::Outside,
                false => Membership::Inside,
            },
            _ if (self.is_in)(room) && (self.is_since_start)(room) => Membership::Inside,
            None if position > self.known_from => self.membership_now(room),
            _ => Membership::Unknown,
        }
    }

    /// The last time at which it continued from an earlier position with a room of the event's, if the event had come by then.
    fn resumed(&self, event: &EventFacts<'_>) -> Option<Resumed<'_>> {
        let mut notes = self.notes.iter().rev().filter(|(at, _)| at.on(event.line) >= event.position);
        notes.find_map(|(at, note)| {
            let SessionNote::Resumed { after, room } = note else { return None };
            let after = event.position_of(after);
            // Of a single room nothing is said about what its client had before.
            let concerns = |room: &Room| after < event.position && event.rooms.contains(room);
            room.as_ref().is_none_or(concerns).then_some(Resumed { at_ms: at.unix_ms, after, room: room.as_ref() })
        })
    }

    /// When its client was notified that events may be missing, among them this one, and why.
    fn gap(&self, event: &EventFacts<'_>) -> Option<(u64, &'static str)> {
        if !event.rooms.iter().any(|room| (self.is_in)(room)) {
            return None;
        }
        let covers = |at: Position, after: Position| after < event.position && event.position <= at;
        let is_one = |room: &Option<Room>| room.as_ref().is_none_or(|room| event.rooms.contains(room));
        let told = self.notes.iter().rev().find_map(|(at, note)| match note {
            SessionNote::Gap { code, room, after } if is_one(room) => {
                let after = after.as_ref().map_or_else(Position::default, |after| event.position_of(after));
                covers(at.on(event.line), after).then_some((at.unix_ms, *code))
            }
            _ => None,
        });
        let is_it = |reset: &&Reset| {
            reset.to.line == event.line
                && reset.at.unix_ms >= self.since_ms
                && covers(reset.to.position, reset.at.on(event.line))
        };
        let reset = self.resets.iter().find(is_it);
        told.or_else(|| reset.map(|reset| (reset.at.unix_ms, "log_reset")))
    }

    /// It was in no room of the event's.
    fn outside(&self, event: &EventFacts<'_>) -> Outcome {
        let concerns = |room: &Room| event.rooms.contains(room);
        let left = self.notes.iter().rev().find_map(|(at, note)| match note {
            SessionNote::Left { room, by } if concerns(room) && at.on(event.line) < event.position => {
                Some(Outcome::LeftBefore(at.unix_ms, *by))
            }
            _ => None,
        });
        let joined_ms = self.notes.iter().find_map(|(at, note)| match note {
            SessionNote::Joined { room, .. } if concerns(room) && at.on(event.line) >= event.position => {
                Some(at.unix_ms)
            }
            _ => None,
        });
        let joins = |change: &Change| change.joined && concerns(&change.room) && event.is_before(change);
        match left {
            _ if joined_ms.is_some() || self.changes.iter().any(joins) => Outcome::JoinedLater(joined_ms),
            Some(left) => left,
            None => Outcome::NotInRoom,
        }
    }

    /// It was to get the event.
    fn delivery(&self, event: &EventFacts<'_>, resumed_ms: Option<u64>) -> Outcome {
        let position = event.position;
        let reached = || match resumed_ms {
            Some(at_ms) => Outcome::Replayed(at_ms),
            None => Outcome::Delivered(self.written_ms),
        };
        if let Some(end) = self.end {
            let is_from = |first: &Offset| first.line == event.line && position >= first.position;
            let is_lost = end.lost_from.iter().any(is_from);
            let is_unsent = end.unsent_from.iter().any(is_from);
            return match end.behind.as_ref().map(|behind| event.position_of(behind)) {
                _ if is_lost => Outcome::Dropped(end.reason, end.at.unix_ms),
                Some(behind) if position > behind => Outcome::Dropped(end.reason, end.at.unix_ms),
                _ if is_unsent => Outcome::Waiting(Waiting::Outbox),
                _ => reached(),
            };
        }
        match self.behind {
            _ if self.here < position => Outcome::Waiting(Waiting::Node),
            Some(behind) if position > behind => Outcome::Waiting(Waiting::Replay),
            _ if self.is_queued => Outcome::Waiting(Waiting::Outbox),
            _ => reached(),
        }
    }
}

#[cfg(test)]
mod tests;
