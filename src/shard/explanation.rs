//! What a shard knows of a user's sessions, to explain why they did or did not get an event. Looked through in slices, so
//! that clients do not wait for it.

use crate::cluster::{ExplainedSession, TurnedAwayView};
use crate::explain::conclusion::concluded;
use crate::explain::decide::{EventFacts, Facts};
use crate::explain::history::{Ended, Reset, TurnedAway};
use crate::explain::notes::{began_on, changes_in, floor_on, is_of_start, joined_at, refusal};
use crate::explain::words;
use crate::model::clock::unix_ms;
use crate::model::names::{EVERYBODY, Room};
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use crate::model::provenance::Provenance;
use crate::session::Session;
use crate::session::caller::with_caller;
use crate::session::connection::SessionKey;
use crate::shard::face::Shard;
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
    /// What the event is, if one is asked about.
    fn event_facts(&self) -> Option<EventFacts<'_>> {
        let AskedEvent { offset, rooms, except } = self.event.as_ref()?;
        Some(EventFacts { line: offset.line, position: offset.position, rooms, except })
    }

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

impl Hub {
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
            decided_by: self.decided_by(session, question, by),
            refused: refusal(&notes, &question.room),
            outbox_bytes: connection.map_or(0, |connection| connection.outbox.bytes() as u64),
            volatile_skipped: (skipped.events > 0).then_some((skipped.events, skipped.last_ms)),
            ..ExplainedSession::default()
        };
        concluded(explained, question.event_facts().as_ref(), &facts)
    }

    /// Why a live session is in the room, or is not.
    fn decided_by(&self, session: &Session, question: &Question, by: Option<Provenance>) -> String {
        let namespace = self.context.namespaces.name(session.namespace);
        let listing = session.identity.grants.listing(&question.room);
        let settings = self.context.settings();
        with_caller(session, namespace, |caller| {
            let verdict = settings.rules.room(&question.room, caller);
            match by {
                Some(by) => words::inside(by, &verdict, listing),
                None if *question.room == *session.id.to_string() => {
                    "a session is always in the room of its own id".into()
                }
                None => words::outside(&verdict, listing),
            }
        })
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
        concluded(explained, question.event_facts().as_ref(), &facts)
    }

    fn resets(&self) -> Vec<Reset> {
        self.history.resets().cloned().collect()
    }
}
