//! What the sessions of this shard mean for presence.

use crate::model::draft::{Draft, Source};
use crate::model::names::{Namespace, Room};
use crate::presence::local::Reservation;
use crate::presence::{Fact, LeaveReason, Messages, Ticket};
use crate::rules::Message;
use crate::session::Session;
use crate::session::caller::with_caller;
use crate::session::connection::SessionKey;
use crate::shard::hub::Hub;
use std::fmt;

impl Hub {
    /// A user has one connection more. It may be counted already, by what is `reserved`.
    pub(super) fn note_user_came(&mut self, session: &Session, reserved: &mut Reservation) {
        let Some(user) = self.counted_user(session) else { return };
        let ticket = reserved
            .take(|fact| fact.is_online(user))
            .unwrap_or_else(|| self.context.presence.enter(Fact::Online(user.into()), || None));
        self.noted = self.noted.max(ticket);
    }

    /// A user has one connection less.
    pub(super) fn note_user_gone(&mut self, session: &Session) {
        let Some(fact) = self.online(session) else { return };
        let ticket = self.context.presence.exit(&fact, LeaveReason::Lost);
        self.noted = self.noted.max(ticket);
    }

    /// A session has joined a room. It may be counted already, by what is `reserved`.
    pub(super) fn note_entered(&mut self, key: SessionKey, room: &Room, reserved: &mut Reservation) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(fact) = self.fact(session, room) else { return };
        let namespace = session.namespace;
        let ticket = reserved
            .take(|reserved| *reserved == fact)
            .unwrap_or_else(|| self.context.presence.enter(fact, || self.messages(session, room)));
        self.rooms.count(key, namespace, room);
        self.note_announced(key, ticket);
    }

    /// Counts a session in those of its rooms that have presence only by the rules of now. The others there had it before, so
    /// it is not announced to them.
    pub(super) fn count_quietly(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        let uncounted = self.rooms.counted(key).filter(|(_, is_counted)| !is_counted);
        let facts: Vec<_> = uncounted.filter_map(|(room, _)| Some((room.clone(), self.fact(session, room)?))).collect();
        let namespace = session.namespace;
        for (room, fact) in facts {
            let ticket = self.context.presence.enter(fact, || None);
            self.rooms.count(key, namespace, &room);
            self.note_announced(key, ticket);
        }
    }

    /// A session has left a room in which it is counted, or its connection is lost. The rules may say by now that no presence
    /// is kept of it.
    pub(super) fn note_gone(&mut self, key: SessionKey, room: &Room, reason: LeaveReason) {
        if let Some(session) = self.sessions.get(key) {
            let ticket = self.context.presence.exit(&self.inside(session, room), reason);
            self.note_announced(key, ticket);
        }
    }

    fn note_announced(&mut self, key: SessionKey, ticket: Ticket) {
        self.noted = self.noted.max(ticket);
        if let Some(session) = self.sessions.get_mut(key) {
            session.announced = session.announced.max(ticket);
        }
    }

    /// Counts a session that is not on the shard yet, with its rooms.
    pub(super) fn reserve(&self, session: &Session, rooms: &[Room]) -> Reservation {
        let mut reserved = Reservation::new(&self.context.presence);
        if let Some(fact) = self.online(session) {
            reserved.enter(fact, || None);
        }
        self.reserve_each(session, rooms.iter(), &mut reserved);
        reserved
    }

    /// Counts a session in rooms that it is about to join.
    pub(super) fn reserve_rooms(&self, key: SessionKey, rooms: &[Room]) -> Reservation {
        let mut reserved = Reservation::new(&self.context.presence);
        if let Some(session) = self.sessions.get(key) {
            let new = rooms.iter().filter(|room| !self.rooms.contains(key, session.namespace, room));
            self.reserve_each(session, new, &mut reserved);
        }
        reserved
    }

    fn reserve_each<'a>(&self, session: &Session, rooms: impl Iterator<Item = &'a Room>, reserved: &mut Reservation) {
        for room in rooms {
            // Before anybody hears of it: what is published to the room from then on must not be passed over.
            self.context.window.interest().touch(session.namespace, room);
            if let Some(fact) = self.fact(session, room) {
                reserved.enter(fact, || self.messages(session, room));
            }
        }
    }

    /// The fact that a session's user is connected; `None` if another session makes it true.
    fn online(&self, session: &Session) -> Option<Fact> {
        self.counted_user(session).map(|user| Fact::Online(user.into()))
    }

    /// The user whom a session counts for. A connection counts once, also if the user is in several namespaces on it: `None`
    /// for the other sessions of the connection.
    fn counted_user<'a>(&self, session: &'a Session) -> Option<&'a str> {
        let user = session.identity.user.as_ref()?;
        let siblings = self.connections.get(session.connection).into_iter().flat_map(|c| c.sessions.iter());
        let is_same = |other: &Session| {
            other.id != session.id && other.identity.user.as_ref().is_some_and(|other| other.as_str() == user.as_str())
        };
        let counted = siblings.filter_map(|key| self.sessions.get(*key)).any(is_same);
        (!counted).then(|| user.as_str())
    }

    fn namespace_of(&self, session: &Session) -> &Namespace {
        self.context.namespaces.name(session.namespace)
    }

    /// `None` if no presence is kept of the room.
    fn fact(&self, session: &Session, room: &Room) -> Option<Fact> {
        // Every session in the room counts, also one that no rule announces.
        if !self.context.settings().rules.has_presence(room) {
            return None;
        }
        Some(self.inside(session, room))
    }

    fn inside(&self, session: &Session, room: &Room) -> Fact {
        let user = session.identity.user.as_ref().map(|user| user.as_str().into());
        Fact::inside(self.namespace_of(session).clone(), room.clone(), user)
    }

    /// The events for the others in the room, by the rule for this user.
    fn messages(&self, session: &Session, room: &Room) -> Option<Messages> {
        let user = session.identity.user.as_ref()?;
        let settings = self.context.settings();
        let (rule, captures) = settings.rules.presence(room, user.as_str())?;
        let namespace = self.namespace_of(session);
        let id = session.id.to_string();
        let filled =
            with_caller(session, namespace, |caller| [rule.joined(caller, &captures), rule.left(caller, &captures)]);
        let [joined, left] = filled.map(|filled| {
            let message = filled.map_err(|error| self.not_announced(room, error.code(), &error)).ok()??;
            let draft = draft(message, namespace, room, &id);
            draft
                .check(&self.context.draft_limits)
                .map_err(|error| self.not_announced(room, error.code(), &error))
                .ok()?;
            Some(draft)
        });
        (joined.is_some() || left.is_some()).then_some(Messages { joined, left })
    }

    /// A join by a rule is refused for it; the backend and a token's own rooms are not asked.
    fn not_announced(&self, room: &Room, code: &'static str, error: &dyn fmt::Display) {
        self.context.metrics.events.refused(Source::Client, code);
        tracing::debug!(%error, %room, "a join or leave is not announced to the room");
    }
}

/// For the others in the room.
fn draft(message: Message, namespace: &Namespace, room: &Room, session: &str) -> Draft {
    Draft {
        namespace: namespace.clone(),
        rooms: vec![room.clone()],
        except: vec![session.into()],
        event: message.event,
        args: message.args,
        volatile: false,
        id: None,
        source: Source::Client,
        trace: None,
    }
}
