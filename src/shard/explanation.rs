//! What a shard knows of a user's sessions, to explain why they did or did not get an event. Looked through in slices, so
//! that clients do not wait for it.

use crate::cluster::{ExplainedSession, TurnedAwayView};
use crate::explain::decide::{EventFacts, Facts, Outcome};
use crate::explain::history::{End, Ended, Reset, TurnedAway};
use crate::explain::stamp::Stamp;
use crate::explain::words;
use crate::model::clock::unix_ms;
use crate::model::close::CloseReason;
use crate::model::millis::whole_millis;
use crate::model::names::{EVERYBODY, Room};
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::{Offset, Position};
use crate::model::partition::{Line, Partitions};
use crate::model::place::Place;
use crate::model::provenance::Provenance;
use crate::model::session_note::SessionNote;
use crate::model::transport::Protocol;
use crate::session::Session;
use crate::session::caller::with_caller;
use crate::session::changes::{Change, Changes};
use crate::session::connection::{ConnectionKey, SessionKey};
use crate::shard::face::Shard;
use crate::shard::hub;
use crate::shard::hub::Hub;
use std::collections::BTreeMap;

/// Sessions explained before others get their turn: some 10 µs each.
const SESSIONS_AT_ONCE: usize = 32;
/// Sessions in an answer. Those that got the event are left out first.
pub const MAX_SESSIONS: usize = 50;

/// What is asked of a shard.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whose sessions.
    pub user: String,
    /// In which room.
    pub room: Room,
    /// Of which namespace.
    pub namespace: NamespaceIndex,
    /// The event, if one is asked about and known.
    pub event: Option<AskedEvent>,
}

impl Question {
    /// The line of the event. Where none is asked about, all lines answer the same.
    fn line(&self) -> Line {
        self.event.as_ref().map_or(Line::CONTROL, |event| event.offset.line)
    }
}

/// An event of the log.
#[derive(Clone, Debug)]
pub struct AskedEvent {
    /// Its offset.
    pub offset: Offset,
    /// The rooms that it went to.
    pub rooms: Vec<Room>,
    /// The rooms whose members did not get it.
    pub except: Vec<Room>,
}

/// What a shard answers.
#[derive(Debug, Default)]
pub struct ShardExplanation {
    /// Those of most interest, if there are very many.
    pub sessions: Vec<ExplainedSession>,
    /// How many sessions had which outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Since when all ends of the user's sessions are known, in Unix milliseconds.
    pub sees_back_to_ms: u64,
    /// Other namespaces in which the user has live sessions.
    pub elsewhere: Vec<String>,
    /// When the user was not let in.
    pub turned_away: Vec<TurnedAwayView>,
}

impl ShardExplanation {
    fn add(&mut self, session: ExplainedSession) {
        *self.outcomes.entry(session.outcome.clone()).or_default() += 1;
        self.sessions.push(session);
        if self.sessions.len() >= 2 * MAX_SESSIONS {
            keep_interesting(&mut self.sessions);
        }
    }
}

/// Live sessions before ended ones, those that did not get the event before those that did, and newer ones before older ones.
pub fn keep_interesting(sessions: &mut Vec<ExplainedSession>) {
    sessions.sort_by_key(|session| {
        (session.ended_ms.is_some(), session.outcome == "delivered", std::cmp::Reverse(session.since_ms))
    });
    sessions.truncate(MAX_SESSIONS);
}

impl Shard {
    /// Remembers that a client was not let in. `is_claimed`: its user is only what its refused token says.
    pub fn note_turned_away(&self, user: &str, code: &'static str, is_claimed: bool) {
        let mut hub = self.hub.borrow_mut();
        let at = hub.stamp();
        hub.history.turned_away(user, at, TurnedAway { code, is_claimed });
    }

    /// What the shard knows of a user's sessions.
    pub async fn explain(&self, question: &Question) -> ShardExplanation {
        let mut answer = ShardExplanation::default();
        let keys = self.hub.borrow().sessions.of_user(&question.user);
        for keys in keys.chunks(SESSIONS_AT_ONCE) {
            self.add_live(keys, question, &mut answer);
            tokio::task::yield_now().await;
        }
        let mut hub = self.hub.borrow_mut();
        let now_ms = unix_ms();
        hub.history.expire(now_ms);
        let ended = hub.history.ended_of(&question.user).filter(|ended| ended.namespace == question.namespace);
        for session in ended {
            answer.add(hub.explain_ended(session, question));
        }
        answer.sees_back_to_ms = hub.history.sees_back_to(&question.user, now_ms);
        let turned_away = hub.history.turned_away_of(&question.user);
        answer.turned_away = turned_away
            .map(|(at_ms, TurnedAway { code, is_claimed })| TurnedAwayView {
                at_ms,
                code: code.to_owned(),
                claimed: is_claimed,
            })
            .collect();
        keep_interesting(&mut answer.sessions);
        answer
    }
}

impl Shard {
    fn add_live(&self, keys: &[SessionKey], question: &Question, answer: &mut ShardExplanation) {
        let hub = self.hub.borrow();
        for (key, session) in keys.iter().filter_map(|key| Some((*key, hub.sessions.get(*key)?))) {
            if session.namespace == question.namespace {
                answer.add(hub.explain_live(key, session, question));
            } else if answer.elsewhere.len() < MAX_SESSIONS {
                answer.elsewhere.push(self.context.namespaces.name(session.namespace).to_string());
            }
        }
    }
}

/// How the rooms of a session changed.
fn changes_in(notes: &[(Stamp, SessionNote)], partitions: Partitions) -> Vec<Change> {
    let change = |(at, note): &(Stamp, SessionNote)| {
        let (room, joined) = match note {
            SessionNote::Joined { room, .. } => (room.clone(), true),
            SessionNote::Left { room, .. } => (room.clone(), false),
            _ => return None,
        };
        let line = Some(partitions.of(&room)).filter(|line| *line != Line::CONTROL);
        let partition = line.map(|line| Offset { line, position: at.on(line), ..Offset::default() });
        Some(Change { after: at.on(Line::CONTROL), partition, room, joined })
    };
    notes.iter().filter_map(change).collect()
}

/// Where a session began on a line. `start` names those of its first rooms.
fn began_on(line: Line, start: &Place, notes: &[(Stamp, SessionNote)], is_lasting: bool) -> Position {
    if let Some(start) = start.on(line) {
        return start.position;
    }
    // One that is continued has begun before.
    let is_continued = |note: &SessionNote| is_lasting && matches!(note, SessionNote::Resumed { room: None, .. });
    match notes {
        [(_, SessionNote::Began), (_, next), ..] if is_continued(next) => Position::default(),
        [(at, SessionNote::Began), ..] => at.on(line),
        _ => Position::default(),
    }
}

/// After this position of a line all changes of rooms are known.
fn floor_on(line: Line, changes: &Changes) -> Position {
    changes.floor().on(line).unwrap_or_default().position
}

/// The last time that a session was refused this room.
fn refusal(notes: &[(Stamp, SessionNote)], room: &Room) -> Option<(u64, String)> {
    notes.iter().rev().find_map(|(at, note)| match note {
        SessionNote::Refused { code, room: Some(refused) } if refused == room => Some((at.unix_ms, (*code).to_owned())),
        _ => None,
    })
}

/// The last time that a session joined this room after its start.
fn joined_at(notes: &[(Stamp, SessionNote)], room: &Room) -> Option<u64> {
    notes.iter().rev().find_map(|(at, note)| match note {
        SessionNote::Joined { room: joined, .. } if joined == room => Some(at.unix_ms),
        _ => None,
    })
}

/// Whether such a room is a session's from its start on, unless it is left. The rooms of a stream do not change.
fn is_of_start(by: Provenance, brought_later: bool, protocol: Option<Protocol>) -> bool {
    match protocol {
        Some(Protocol::Sse) => by != Provenance::Command,
        _ => by.is_of_token() && !brought_later,
    }
}

impl Hub {
    /// Now, by the clock and in the log.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp::new(unix_ms(), &self.position)
    }

    /// Remembers a session that is about to end.
    pub(super) fn remember_end(&mut self, key: SessionKey, reason: CloseReason) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(user) = session.identity.user.as_ref().filter(|_| self.history.is_on()) else { return };
        let user: Box<str> = user.as_str().into();
        let (at, connection_key) = (self.stamp(), session.connection);
        let connection = self.connections.get(connection_key);
        let resumable = session.pid.is_some() && hub::recoverable(reason) && self.context.recovery_on();
        let window = whole_millis(self.context.recovery.window);
        let lines = self.context.window.partitions().lines().len();
        // A connection that goes on writes what waits, also for a session that has left it.
        let closes = connection.filter(|connection| {
            let is_last = connection.sessions.len() == 1;
            connection.closing.is_some()
                || is_last && matches!(reason, CloseReason::Disconnected | CloseReason::Revoked)
        });
        let ended = Ended {
            id: session.id,
            namespace: session.namespace,
            protocol: connection.map(|connection| connection.protocol),
            transport: connection.map(|connection| connection.link.transport()),
            address: connection.map(|connection| connection.permit.peer()),
            since_ms: session.since_ms,
            began: session.start(),
            end: End {
                resumable_until_ms: resumable.then(|| at.unix_ms + window),
                at,
                reason,
                behind: self.cursor(key).map(|cursor| Box::new(cursor.place(&self.position))),
                unsent_from: closes.map(|connection| connection.outbox.first_events(0, lines)).unwrap_or_default(),
                lost_from: Vec::new(),
            },
            rooms: self.rooms.memberships(key).map(|(room, by)| (room.clone(), by)).collect(),
            changes: session.pid.map(|_| session.changes.clone()),
            brought_later: session.brought_later,
            skipped: self.history.skipped_of(key),
        };
        self.history.ended(&user, ended, connection_key);
    }

    /// A closing connection's outbox is about to be dropped, but for its first frames.
    pub(super) fn note_lost(&mut self, key: ConnectionKey, kept: usize) {
        if !self.history.is_closing(key) {
            return;
        }
        let connection = self.connections.get(key);
        let lines = self.context.window.partitions().lines().len();
        if let Some(lost) = connection.map(|connection| connection.outbox.first_events(kept, lines)) {
            self.history.lost(key, &lost);
        }
    }

    fn explain_live(&self, key: SessionKey, session: &Session, question: &Question) -> ExplainedSession {
        let line = question.line();
        let (notes, forgotten) = self.history.notes_of(session.id);
        let connection = self.connections.get(session.connection);
        let protocol = connection.map(|connection| connection.protocol);
        let provenance = |room: &str| self.rooms.memberships(key).find(|(own, _)| ***own == *room).map(|(_, by)| by);
        let id = session.id.to_string();
        let is_in = |room: &str| self.rooms.contains(key, session.namespace, room) || room == id || room == EVERYBODY;
        let by = provenance(&question.room);
        let (changes, known_from) = match session.pid {
            Some(_) => (session.changes.list().cloned().collect(), floor_on(line, &session.changes)),
            None => (changes_in(&notes, self.context.window.partitions()), forgotten.on(line)),
        };
        let offset = question.event.as_ref().map(|event| &event.offset);
        let facts = Facts {
            began: began_on(line, &session.start(), &notes, session.pid.is_some()),
            since_ms: session.since_ms,
            is_lasting: session.pid.is_some(),
            here: self.position.on(line).unwrap_or_default().position,
            end: None,
            behind: self.cursor(key).and_then(|cursor| cursor.position_on(line)),
            is_queued: offset.zip(connection).is_some_and(|(offset, connection)| connection.outbox.has_event(offset)),
            written_ms: offset.and_then(|offset| self.history.written_at(*offset)),
            is_in: &is_in,
            is_since_start: &|room| {
                let steady = |by| is_of_start(by, session.brought_later, protocol);
                let always = room == id || room == EVERYBODY;
                always || session.pid.is_none() && provenance(room).is_some_and(steady)
            },
            changes: &changes,
            known_from,
            notes: &notes,
            resets: &self.resets(),
        };
        let namespace = self.context.namespaces.name(session.namespace);
        let listing = session.identity.grants.listing(&question.room);
        let settings = self.context.settings();
        let decided_by = with_caller(session, namespace, |caller| {
            let verdict = settings.rules.room(&question.room, caller);
            match by {
                Some(by) => words::inside(by, &verdict, listing),
                None if *question.room == *id => "a session is always in the room of its own id".into(),
                None => words::outside(&verdict, listing),
            }
        });
        let skipped = self.history.skipped_of(key);
        let since_start = by.is_some() && !changes.iter().any(|change| change.room == question.room);
        let explained = ExplainedSession {
            session: id.clone(),
            transport: connection.map(|connection| connection.link.transport().label().to_owned()),
            protocol: protocol.map(|protocol| protocol.label().to_owned()),
            address: connection.map(|connection| connection.permit.peer().to_string()),
            since_ms: session.since_ms,
            in_room: is_in(&question.room),
            in_room_since_ms: by.and_then(|_| {
                let known = since_start && known_from == Position::default();
                joined_at(&notes, &question.room).or_else(|| known.then_some(session.since_ms))
            }),
            by: by.map(|by| by.label().to_owned()),
            decided_by,
            refused: refusal(&notes, &question.room),
            outbox_bytes: connection.map_or(0, |connection| connection.outbox.bytes() as u64),
            volatile_skipped: (skipped.events > 0).then_some((skipped.events, skipped.last_ms)),
            ..ExplainedSession::default()
        };
        concluded(explained, question, &facts)
    }

    fn explain_ended(&self, session: &Ended, question: &Question) -> ExplainedSession {
        let line = question.line();
        let (notes, forgotten) = self.history.notes_of(session.id);
        let provenance = |room: &str| session.rooms.iter().find(|(own, _)| **own == *room).map(|(_, by)| *by);
        let id = session.id.to_string();
        let by = provenance(&question.room);
        let is_in = |room: &str| provenance(room).is_some() || room == id || room == EVERYBODY;
        let (changes, known_from) = match &session.changes {
            Some(changes) => (changes.list().cloned().collect(), floor_on(line, changes)),
            None => (changes_in(&notes, self.context.window.partitions()), forgotten.on(line)),
        };
        let facts = Facts {
            began: began_on(line, &session.began, &notes, session.changes.is_some()),
            since_ms: session.since_ms,
            is_lasting: session.changes.is_some(),
            here: session.end.at.on(line),
            end: Some(&session.end),
            behind: session.end.behind.as_ref().and_then(|behind| behind.on(line)).map(|behind| behind.position),
            is_queued: false,
            written_ms: question.event.as_ref().and_then(|event| self.history.written_at(event.offset)),
            is_in: &is_in,
            is_since_start: &|room| {
                let steady = |by| is_of_start(by, session.brought_later, session.protocol);
                let always = room == id || room == EVERYBODY;
                always || session.changes.is_none() && provenance(room).is_some_and(steady)
            },
            changes: &changes,
            known_from,
            notes: &notes,
            resets: &self.resets(),
        };
        let explained = ExplainedSession {
            session: id.clone(),
            transport: session.transport.map(|transport| transport.label().to_owned()),
            protocol: session.protocol.map(|protocol| protocol.label().to_owned()),
            address: session.address.map(|address| address.to_string()),
            since_ms: session.since_ms,
            ended_ms: Some(session.end.at.unix_ms),
            end_reason: Some(session.end.reason.label().to_owned()),
            resumable_until_ms: session.end.resumable_until_ms,
            in_room: is_in(&question.room),
            in_room_since_ms: by.and_then(|_| joined_at(&notes, &question.room)),
            by: by.map(|by| by.label().to_owned()),
            decided_by: words::rule(self.context.settings().rules.deciding(&question.room, &question.user)),
            refused: refusal(&notes, &question.room),
            volatile_skipped: (session.skipped.events > 0).then_some((session.skipped.events, session.skipped.last_ms)),
            ..ExplainedSession::default()
        };
        concluded(explained, question, &facts)
    }

    fn resets(&self) -> Vec<Reset> {
        self.history.resets().cloned().collect()
    }
}

/// With what became of the event, or else whether it is in the room.
fn concluded(session: ExplainedSession, question: &Question, facts: &Facts<'_>) -> ExplainedSession {
    let Some(event) = &question.event else {
        let (outcome, message) = match (facts.end, session.in_room) {
            (Some(end), _) => {
                let message =
                    format!("it has ended, or lost its connection: {}. {}", end.reason.label(), end.reason.meaning());
                return ExplainedSession {
                    outcome: "ended".into(),
                    outcome_ms: Some(end.at.unix_ms),
                    message,
                    ..session
                };
            }
            (None, true) => ("in_room", format!("in the room: {}", session.decided_by)),
            (None, false) => ("not_in_room", not_in_room(&session)),
        };
        let outcome_ms = if session.in_room { session.in_room_since_ms } else { session.refused.as_ref().map(|r| r.0) };
        return ExplainedSession { outcome: outcome.into(), outcome_ms, message, ..session };
    };
    let Offset { line, position, .. } = event.offset;
    let outcome = facts.outcome(&EventFacts { line, position, rooms: &event.rooms, except: &event.except });
    let outcome_ms = match &outcome {
        Outcome::Delivered(at) | Outcome::JoinedLater(at) => *at,
        Outcome::Replayed(at) | Outcome::HadIt(at) => Some(*at),
        Outcome::Dropped(_, at) | Outcome::Gap(_, at) | Outcome::LeftBefore(at, _) | Outcome::EndedBefore(_, at) => {
            Some(*at)
        }
        Outcome::ConnectedLater => Some(facts.since_ms),
        Outcome::NotInRoom => session.refused.as_ref().map(|(at, _)| *at),
        Outcome::Waiting(_) | Outcome::Excepted(_) | Outcome::Unknown => None,
    };
    let message = match &outcome {
        Outcome::NotInRoom => not_in_room(&session),
        outcome => words::outcome(outcome),
    };
    ExplainedSession { outcome: outcome.label().into(), outcome_ms, message, ..session }
}

fn not_in_room(session: &ExplainedSession) -> String {
    match &session.refused {
        Some((_, code)) => format!("not in the room: its join was refused, {code}. {}", session.decided_by),
        None => format!("not in the room: {}", session.decided_by),
    }
}
