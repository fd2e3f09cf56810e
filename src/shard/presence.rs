//! What comes and goes on this shard, as presence sees it.

use crate::model::draft::{Draft, Source};
use crate::model::names::{Namespace, Room};
use crate::presence::{Fact, LeaveReason, Messages};
use crate::rules::Message;
use crate::session::Session;
use crate::session::caller::with_caller;
use crate::session::connection::SessionKey;
use crate::shard::state::Hub;
use std::fmt;

impl Hub {
    /// A user is there with one connection more, or less: one on which they are in several namespaces counts once.
    pub(super) fn note_user(&self, session: &Session, came: bool) {
        let Some(user) = &session.identity.user else { return };
        let siblings = self.connections.get(session.connection).into_iter().flat_map(|c| &c.sessions);
        let is_same = |other: &Session| {
            other.id != session.id && other.identity.user.as_ref().is_some_and(|other| other.as_str() == user.as_str())
        };
        if siblings.filter_map(|key| self.sessions.get(*key)).any(|other| is_same(other)) {
            return;
        }
        let fact = Fact::Online(user.as_str().into());
        match came {
            true => self.context.presence.enter(fact, || None),
            false => self.context.presence.exit(&fact, true),
        }
    }

    /// A session has come into a room.
    pub(super) fn note_entered(&self, key: SessionKey, room: &Room) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(fact) = self.fact(session, room) else { return };
        self.context.presence.enter(fact, || self.messages(session, room));
    }

    /// A session has gone out of a room.
    pub(super) fn note_gone(&self, key: SessionKey, room: &Room, going: LeaveReason) {
        if let Some(session) = self.sessions.get(key)
            && let Some(fact) = self.fact(session, room)
        {
            self.context.presence.exit(&fact, going == LeaveReason::Lost);
        }
    }

    fn namespace_of(&self, session: &Session) -> &Namespace {
        self.context.namespaces.name(session.namespace)
    }

    /// `None` where no presence is kept of the room.
    fn fact(&self, session: &Session, room: &Room) -> Option<Fact> {
        // Whoever is in the room counts, also where no rule announces them.
        if !self.context.rules.has_presence(room) {
            return None;
        }
        let user = session.identity.user.as_ref().map(|user| user.as_str().into());
        Some(Fact::Inside { namespace: self.namespace_of(session).clone(), room: room.clone(), user })
    }

    /// What the rule for this user says to the others.
    fn messages(&self, session: &Session, room: &Room) -> Option<Messages> {
        let user = session.identity.user.as_ref()?;
        let (rule, captures) = self.context.rules.presence(room, user.as_str())?;
        let namespace = self.namespace_of(session);
        let id = session.id.to_string();
        let filled =
            with_caller(session, namespace, |caller| [rule.joined(caller, &captures), rule.left(caller, &captures)]);
        let [joined, left] = filled.map(|filled| {
            let message = filled.map_err(|error| self.untold(room, error.code(), &error)).ok()??;
            let draft = draft(message, namespace, room, &id);
            draft.check(&self.context.draft_limits).map_err(|error| self.untold(room, error.code(), &error)).ok()?;
            Some(draft)
        });
        (joined.is_some() || left.is_some()).then_some(Messages { joined, left })
    }

    /// A join by a rule is refused for it; the backend and a token's own rooms are not asked.
    fn untold(&self, room: &Room, code: &'static str, error: &dyn fmt::Display) {
        self.context.metrics.refused(Source::Client, code);
        tracing::debug!(%error, %room, "the others in a room are not told who joined or left");
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
    }
}
