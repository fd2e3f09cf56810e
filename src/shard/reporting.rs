//! What happens on a shard, reported to the node's feed, and who it happened to. While nobody follows the feed, each of these costs
//! one atomic load.

use crate::feed::{Subject, shown_rooms};
use crate::model::event::Event;
use crate::model::happening::{Happening, Kind};
use crate::model::id::Id;
use crate::model::names::{EVERYBODY, Room};
use crate::model::namespaces::NamespaceIndex;
use crate::model::session_note::SessionNote;
use crate::model::transport::Protocol;
use crate::refusals::Who;
use crate::session::connection::{Connection, ConnectionKey, SessionKey};
use crate::shard::face::Shard;
use crate::shard::flush::GATHER_BYTES;
use crate::shard::hub::Hub;
use std::slice;

/// Bytes of an event's arguments that are shown.
const MAX_ARGS: usize = 16 << 10;

/// What became of an event for one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the outbox.
    Queued,
    /// It is in the outbox, from the window: the session was behind the log.
    Replayed,
    /// The session is in a room of `except`.
    Excepted,
    /// The session is behind the log, and comes to it.
    Behind,
    /// A volatile event, and the client could not take it.
    Dropped,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Replayed => "replayed",
            Self::Excepted => "excepted",
            Self::Behind => "behind",
            Self::Dropped => "dropped",
        }
    }
}

/// Sessions that somebody follows, and what becomes of an event for each that it is for.
pub(super) struct Followed(Vec<(SessionKey, Outcome)>);

impl Shard {
    /// Whose connection it is, for a refusal.
    pub fn who(&self, key: ConnectionKey) -> Who {
        self.hub.borrow().who(key)
    }

    /// Whose session it is, for a refusal.
    pub fn who_of(&self, key: SessionKey) -> Who {
        self.hub.borrow().who_of(key)
    }

    /// Reports whoever follows this session what happened to it.
    pub fn report(&self, kind: Kind, key: SessionKey, fill: impl FnOnce(&mut Happening)) {
        if self.context.feed.is_open() {
            self.hub.borrow().report(kind, key, &[], fill);
        }
    }
}

impl Hub {
    pub(super) fn who(&self, key: ConnectionKey) -> Who {
        let Some(connection) = self.connections.get(key) else { return Who::default() };
        match connection.sessions.first() {
            Some(session) => self.who_of(*session),
            None => Who::at(connection.permit.peer()).about(match connection.protocol {
                Protocol::SocketIo => "a Socket.IO client",
                Protocol::PlainWs => "a /ws client",
                Protocol::Sse => "an SSE client",
            }),
        }
    }

    pub(super) fn who_of(&self, key: SessionKey) -> Who {
        let Some(session) = self.sessions.get(key) else { return Who::default() };
        let address = self.connections.get(session.connection).map(|connection| connection.permit.peer());
        Who::at(address).session(session.id, session.user())
    }

    /// A session, as far as it is filtered by `rooms`.
    pub(super) fn subject<'a>(&'a self, key: SessionKey, rooms: &'a [Room]) -> Option<Subject<'a>> {
        let session = self.sessions.get(key)?;
        let connection = self.connections.get(session.connection);
        Some(Subject {
            user: session.user(),
            session: Some(session.id),
            namespace: Some(self.context.namespaces.name(session.namespace)),
            address: connection.map(|connection| connection.permit.peer()),
            transport: connection.map(|connection| connection.link.transport()),
            protocol: connection.map(|connection| connection.protocol),
            rooms,
        })
    }

    pub(super) fn report(&self, kind: Kind, key: SessionKey, rooms: &[Room], fill: impl FnOnce(&mut Happening)) {
        if self.context.feed.is_open()
            && let Some(subject) = self.subject(key, rooms)
        {
            self.context.feed.report(kind, &subject, fill);
        }
    }

    /// Reports what a session takes note of.
    pub(super) fn report_note(&self, key: SessionKey, note: &SessionNote) {
        if !self.context.feed.is_open() {
            return;
        }
        let reason = |reason: &'static str| move |happening: &mut Happening| happening.reason = Some(reason.to_owned());
        match note {
            SessionNote::Began => {
                let is_resumed = self.sessions.get(key).is_some_and(|session| session.moves > 0);
                let kind = if is_resumed { Kind::Resumed } else { Kind::Connected };
                self.report(kind, key, &self.rooms_of(key), |_| {});
            }
            SessionNote::Joined { room, by } => {
                let by = |happening: &mut Happening| happening.by = Some(by.label().to_owned());
                self.report(Kind::Joined, key, slice::from_ref(room), by);
            }
            SessionNote::Left { room, by } => {
                let by = |happening: &mut Happening| happening.by = Some(by.label().to_owned());
                self.report(Kind::Left, key, slice::from_ref(room), by);
            }
            SessionNote::Refused { code, room } => self.report(Kind::Error, key, room.as_slice(), reason(code)),
            // Said when it began.
            SessionNote::Resumed { .. } => {}
            SessionNote::Gap { code, room, .. } => self.report(Kind::Gap, key, room.as_slice(), reason(code)),
            SessionNote::Closed { reason: why } => {
                self.report(Kind::Disconnected, key, &self.rooms_of(key), reason(why.label()));
            }
        }
    }

    fn rooms_of(&self, key: SessionKey) -> Vec<Room> {
        self.rooms.of(key).cloned().collect()
    }

    /// The sessions that somebody follows, before an event is delivered.
    pub(super) fn follow(&self, namespace: NamespaceIndex, event: &Event) -> Followed {
        let mut keys = Vec::new();
        for filter in self.context.feed.filters() {
            match (filter.session, filter.user) {
                (Some(id), _) => keys.extend(self.sessions.by_id(id)),
                (None, Some(user)) => keys.extend(self.sessions.of_user(&user)),
                (None, None) => {}
            }
        }
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.sessions.get(*key).is_some_and(|session| session.namespace == namespace));
        Followed(keys.into_iter().map(|key| (key, self.outcome(key, namespace, event))).collect())
    }

    /// What becomes of an event for a session, if it is for it.
    fn outcome(&self, key: SessionKey, namespace: NamespaceIndex, event: &Event) -> Outcome {
        let connection = self.sessions.get(key).and_then(|session| self.connections.get(session.connection));
        match connection {
            _ if self.is_in_any(key, namespace, &event.draft.except) => Outcome::Excepted,
            Some(connection) if connection.is_replaying(key) && !event.draft.volatile => Outcome::Behind,
            Some(connection) if event.draft.volatile && !takes_volatile(connection, key) => Outcome::Dropped,
            _ => Outcome::Queued,
        }
    }

    /// Whether a session is in one of these rooms, its own and the one of everybody among them.
    fn is_in_any(&self, key: SessionKey, namespace: NamespaceIndex, rooms: &[Room]) -> bool {
        let own = self.sessions.get(key).map(|session| session.id);
        let is_in = |room: &Room| {
            **room == *EVERYBODY || self.rooms.contains(key, namespace, room) || own.is_some() && Id::parse(room) == own
        };
        rooms.iter().any(is_in)
    }

    /// Reports what became of an event that was delivered to so many sessions.
    pub(super) fn report_delivered(&self, event: &Event, followed: &Followed, receivers: usize) {
        for (key, outcome) in &followed.0 {
            if self.sessions.get(*key).is_some_and(|session| {
                // Those of `except` are marked whether it is for them or not.
                session.mark == self.mark && self.is_in_any(*key, session.namespace, &event.draft.rooms)
            }) {
                self.report_out(*key, event, *outcome);
            }
        }
        let subject =
            Subject { namespace: Some(&event.draft.namespace), rooms: &event.draft.rooms, ..Subject::default() };
        self.context.feed.report_event(&subject, self.index, self.context.shards, |happening, has_args| {
            describe(event, happening);
            happening.receivers = Some(receivers as u64);
            happening.args = has_args.then(|| cut(event.draft.args.as_array()));
        });
    }

    /// Reports of an event for one session.
    pub(super) fn report_out(&self, key: SessionKey, event: &Event, outcome: Outcome) {
        self.report(Kind::EventOut, key, &[], |happening| {
            describe(event, happening);
            happening.rooms = shown_rooms(&event.draft.rooms);
            happening.outcome = Some(outcome.label().to_owned());
        });
    }
}

/// As [`Hub::deliver`] decides.
fn takes_volatile(connection: &Connection, session: SessionKey) -> bool {
    !connection.is_replaying(session) && !connection.blocked && connection.outbox.bytes() <= GATHER_BYTES
}

fn describe(event: &Event, happening: &mut Happening) {
    let draft = &event.draft;
    happening.event = Some(draft.event.to_string());
    happening.bytes = Some(draft.args.len() as u64);
    happening.volatile = draft.volatile;
    happening.offset = (!draft.volatile).then(|| event.offset.to_string());
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_ARGS)].to_owned()
}
