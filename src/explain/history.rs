//! What a shard remembers of its sessions.

use crate::explain::config::ExplainConfig;
use crate::explain::ring::Ring;
use crate::explain::stamp::Stamp;
use crate::explain::turns::Turns;
use crate::model::close::CloseReason;
use crate::model::id::Id;
use crate::model::millis::whole_millis;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use crate::model::place::Place;
use crate::model::provenance::Provenance;
use crate::model::session_note::SessionNote;
use crate::model::transport::{Protocol, Transport};
use crate::session::changes::Changes;
use crate::session::connection::{ConnectionKey, SessionKey};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

/// Ended sessions of one user that are remembered.
const ENDED_PER_USER: usize = 32;
/// Notes of one session that are remembered.
const NOTES_PER_SESSION: usize = 64;
/// The last times that a user was not let in.
const TURNED_AWAY_PER_USER: usize = 4;
/// What is remembered of those takes this part of each half: tokens that are forged may name any user.
const TURNED_AWAY_PART: usize = 8;
/// Sessions for which volatile events are counted that they did not get.
const MAX_SKIPPED: usize = 4_096;
/// Beginnings of the log that are remembered.
const MAX_RESETS: usize = 16;

/// How a stay of a session on a shard ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Stamp,
    /// Why.
    pub reason: CloseReason,
    /// The position up to which the session had everything, if it was behind.
    pub behind: Option<Box<Place>>,
    /// The first event of each line that waited in the outbox.
    pub unsent_from: Vec<Offset>,
    /// The first event of each line that was lost with the outbox.
    pub lost_from: Vec<Offset>,
    /// Until when it may resume, in Unix milliseconds.
    pub resumable_until_ms: Option<u64>,
}

/// A session that has ended, or lost its connection.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its id.
    pub id: Id,
    /// Its namespace.
    pub namespace: NamespaceIndex,
    /// What its client spoke.
    pub protocol: Option<Protocol>,
    /// What carried it.
    pub transport: Option<Transport>,
    /// Where its client was.
    pub address: Option<IpAddr>,
    /// When this stay began, in Unix milliseconds.
    pub since_ms: u64,
    /// Where in the log the session began, on the lines of its first rooms.
    pub began: Place,
    /// How it ended.
    pub end: End,
    /// Its rooms at the end.
    pub rooms: Vec<(Room, Provenance)>,
    /// How they had changed, if it could resume.
    pub changes: Option<Changes>,
    /// Whether its token may have brought rooms after it began.
    pub brought_later: bool,
    /// Volatile events that it did not get.
    pub skipped: Skipped,
}

impl Ended {
    fn size(&self, user: &str) -> usize {
        let rooms: usize = self.rooms.iter().map(|(room, _)| room.len() + 40).sum();
        size_of::<Self>() + user.len() + rooms + self.changes.as_ref().map_or(0, Changes::size)
    }
}

/// Volatile events that a session did not get because its connection could not take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub events: u64,
    /// When the last one was, in Unix milliseconds.
    pub last_ms: u64,
}

/// A client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnedAway {
    /// The error code that it got.
    pub code: &'static str,
    /// Whose client it is, is only what its refused token says.
    pub is_claimed: bool,
}

/// The log went on elsewhere, and clients that were connected may have missed events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Where the shard was, and when.
    pub at: Stamp,
    /// Where the log goes on.
    pub to: Offset,
}

/// See the module.
pub struct History {
    ended: Ring<(Box<str>, Ended)>,
    notes: Ring<SessionNote>,
    turned_away: Ring<(Box<str>, TurnedAway)>,
    /// Of each line that events were written of.
    turns: Vec<Turns>,
    skipped: HashMap<SessionKey, Skipped>,
    resets: VecDeque<Reset>,
    /// Ended sessions with events in the outbox of a connection that is still closing.
    closing: HashMap<ConnectionKey, Vec<u64>>,
    hasher: RandomState,
    is_on: bool,
    started_ms: u64,
    max_age_ms: u64,
}

impl History {
    /// For one of so many shards.
    pub fn new(config: &ExplainConfig, shards: usize, now_ms: u64) -> Self {
        // One half for ended sessions, one for what happened to sessions.
        let bytes = config.bytes / shards.max(1) / 2;
        let max_age_ms = whole_millis(config.window);
        Self {
            ended: Ring::new(bytes, max_age_ms, ENDED_PER_USER),
            notes: Ring::new(bytes, max_age_ms, NOTES_PER_SESSION),
            turned_away: Ring::new(bytes / TURNED_AWAY_PART, max_age_ms, TURNED_AWAY_PER_USER),
            turns: Vec::new(),
            skipped: HashMap::new(),
            resets: VecDeque::new(),
            closing: HashMap::new(),
            hasher: RandomState::new(),
            is_on: config.bytes > 0,
            started_ms: now_ms,
            max_age_ms,
        }
    }

    /// Whether ends are remembered.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Remembers what happened to a session. Its end is not among it ([`History::ended`]), and its beginning only where the
    /// log has partitions: the session knows only where it began on those of its first rooms.
    pub fn note(&mut self, session: Id, at: Stamp, note: SessionNote) {
        let is_known = match note {
            SessionNote::Began => !at.has_partitions(),
            SessionNote::Closed { .. } => true,
            _ => false,
        };
        if !self.is_on || is_known {
            return;
        }
        let room = match &note {
            SessionNote::Joined { room, .. } | SessionNote::Left { room, .. } => Some(room),
            SessionNote::Refused { room, .. } | SessionNote::Gap { room, .. } | SessionNote::Resumed { room, .. } => {
                room.as_ref()
            }
            SessionNote::Began | SessionNote::Closed { .. } => None,
        };
        let bytes = size_of::<SessionNote>() + room.map_or(0, |room| room.len() + 16);
        self.notes.push(self.hasher.hash_one(session), at, bytes, note);
    }

    /// Remembers the end of a user's session. `connection` may still be flushed.
    pub fn ended(&mut self, user: &str, ended: Ended, connection: ConnectionKey) {
        if !self.is_on {
            return;
        }
        let (owner, at, size) = (self.hasher.hash_one(user), ended.end.at.clone(), ended.size(user));
        let waits = !ended.end.unsent_from.is_empty();
        let number = self.ended.push(owner, at, size, (user.into(), ended));
        if waits {
            self.closing.entry(connection).or_default().push(number);
        }
    }

    /// Remembers that a client was not let in.
    pub fn turned_away(&mut self, user: &str, at: Stamp, turned_away: TurnedAway) {
        if self.is_on {
            self.turned_away.push(self.hasher.hash_one(user), at, user.len() + 32, (user.into(), turned_away));
        }
    }

    /// When a user was not let in, in Unix milliseconds, oldest first.
    pub fn turned_away_of(&self, user: &str) -> impl Iterator<Item = (u64, TurnedAway)> {
        let all = self.turned_away.of(self.hasher.hash_one(user));
        all.filter(move |(_, (of, _))| **of == *user).map(|(at, (_, turned_away))| (at.unix_ms, *turned_away))
    }

    /// Whether sessions of a connection have ended while events waited for it.
    pub fn is_closing(&self, connection: ConnectionKey) -> bool {
        self.closing.contains_key(&connection)
    }

    /// The rest of a closing connection's outbox, from this event of each line on, was dropped.
    pub fn lost(&mut self, connection: ConnectionKey, from: &[Offset]) {
        for number in self.closing.get(&connection).into_iter().flatten() {
            let Some((_, ended)) = self.ended.get_mut(*number) else { continue };
            for first in from {
                match ended.end.lost_from.iter_mut().find(|known| known.line == first.line) {
                    Some(known) => known.position = known.position.min(first.position),
                    None => ended.end.lost_from.push(*first),
                }
            }
        }
    }

    /// A connection is gone. What waited for it is lost by now, or written.
    pub fn closed(&mut self, connection: ConnectionKey) {
        for number in self.closing.remove(&connection).into_iter().flatten() {
            if let Some((_, ended)) = self.ended.get_mut(number) {
                ended.end.unsent_from = Vec::new();
            }
        }
    }

    /// Events of a line up to this offset are written, or wait because their clients are slow.
    pub fn wrote(&mut self, up_to: Offset, unix_ms: u64) {
        while self.turns.len() <= up_to.line.index() {
            // The number is at most that of a line.
            let line = Line::new(self.turns.len() as u8).unwrap_or_default();
            self.turns.push(Turns::new(line));
        }
        self.turns[up_to.line.index()].note(up_to.position, unix_ms);
    }

    /// A session did not get a volatile event.
    pub fn skipped(&mut self, key: SessionKey, now_ms: impl FnOnce() -> u64) {
        if self.skipped.len() >= MAX_SKIPPED && !self.skipped.contains_key(&key) {
            return;
        }
        let skipped = self.skipped.entry(key).or_default();
        skipped.events += 1;
        skipped.last_ms = now_ms();
    }

    /// The volatile events that a session did not get; they are forgotten with it.
    pub fn take_skipped(&mut self, key: SessionKey) -> Skipped {
        self.skipped.remove(&key).unwrap_or_default()
    }

    /// The same of a live session.
    pub fn skipped_of(&self, key: SessionKey) -> Skipped {
        self.skipped.get(&key).copied().unwrap_or_default()
    }

    /// A line of the log begins anew.
    pub fn reset(&mut self, at: Stamp, to: Offset) {
        self.turns.get_mut(to.line.index()).into_iter().for_each(Turns::clear);
        if at.on(to.line) == Position::default() {
            // The first time: there were no clients.
            return;
        }
        if self.resets.len() == MAX_RESETS {
            self.resets.pop_front();
        }
        self.resets.push_back(Reset { at, to });
    }

    /// The times at which the log began anew.
    pub fn resets(&self) -> impl Iterator<Item = &Reset> {
        self.resets.iter()
    }

    /// When the event at this offset was written to those who received it.
    pub fn written_at(&self, offset: Offset) -> Option<u64> {
        self.turns.get(offset.line.index())?.at(offset.position)
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now_ms: u64) {
        self.ended.expire(now_ms);
        self.notes.expire(now_ms);
        self.turned_away.expire(now_ms);
    }

    /// What happened to a session, oldest first, and from when on that is all.
    pub fn notes_of(&self, session: Id) -> (Vec<(Stamp, SessionNote)>, Stamp) {
        let owner = self.hasher.hash_one(session);
        if !self.is_on {
            return (Vec::new(), Stamp::never());
        }
        (self.notes.of(owner).map(|(at, note)| (at, note.clone())).collect(), self.notes.forgotten(owner))
    }

    /// The ended sessions of a user, oldest first.
    pub fn ended_of(&self, user: &str) -> impl Iterator<Item = &Ended> {
        let all = self.ended.of(self.hasher.hash_one(user));
        all.filter(move |(_, (of, _))| **of == *user).map(|(_, (_, ended))| ended)
    }

    /// Since when all ends of this user's sessions are known, in Unix milliseconds.
    pub fn sees_back_to(&self, user: &str, now_ms: u64) -> u64 {
        let forgotten = self.ended.forgotten(self.hasher.hash_one(user)).unix_ms;
        let known = if self.is_on { self.started_ms } else { now_ms };
        known.max(now_ms.saturating_sub(self.max_age_ms)).max(forgotten + 1)
    }
}
