//! Commands of the backend to sessions: join, leave, disconnect. They go through the log like events, so that every
//! node applies them at the same position among the events. A session that a command joins to a room gets what is
//! published after the command.

use crate::model::id::{Id, NodeId};
use crate::model::names::{Namespace, Room};
use crate::model::offset::Position;
use crate::model::partition::Line;
use serde::{Deserialize, Serialize};

/// Rooms that one command may name.
pub const MAX_ROOMS: usize = 256;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCommand {
    /// Nodes report under this id how many sessions they applied it to.
    pub id: Id,
    /// The node that they report to.
    pub from: NodeId,
    /// The sessions it applies to.
    #[serde(rename = "for")]
    pub selector: Selector,
    /// Their namespace; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// What it does to them.
    #[serde(rename = "do")]
    pub action: Action,
    /// Where the node that issued it was in the partitions of the rooms that it names: in the log's order it comes behind what
    /// these had until then. A node that carries it out is there; one that takes a session over counts from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<(Line, Position)>,
}

/// The sessions that a command applies to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// Every session of a user.
    User(String),
    /// One session.
    Session(String),
    /// Every session in a room.
    In(String),
    /// Every session whose token has this `jti`. Of a session that waits to be resumed it is not known.
    Token(String),
    /// Every session in any of these rooms, as Socket.IO emitters select. The id of a session is a room with that one
    /// member; no rooms mean the whole namespace.
    #[serde(rename = "among")]
    RoomsExcept {
        /// In any of these.
        rooms: Vec<Room>,
        /// And in none of these.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        except: Vec<Room>,
    },
}

/// What a command does to a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Join these rooms.
    Join(Vec<Room>),
    /// Leave these rooms.
    Leave(Vec<Room>),
    /// End the session. Socket.IO clients get the packet `41` and do not reconnect by themselves.
    Disconnect,
    /// End the session, and refuse its token until it ends.
    Revoke {
        /// Tokens that were issued before this, in Unix milliseconds.
        before: u64,
        /// They are refused until then, in Unix milliseconds.
        until: u64,
    },
}

/// What a command needs to know about a session.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its id.
    pub session: &'a Id,
    /// Its namespace's name.
    pub namespace: &'a str,
    /// The user's text.
    pub user: Option<&'a str>,
}

impl Action {
    /// The rooms that it names.
    pub fn rooms(&self) -> &[Room] {
        match self {
            Self::Join(rooms) | Self::Leave(rooms) => rooms,
            Self::Disconnect | Self::Revoke { .. } => &[],
        }
    }
}

impl SessionCommand {
    /// Approximate bytes in memory, for limits.
    pub fn size(&self) -> usize {
        let rooms: usize = self.action.rooms().iter().map(|room| room.len() + 16).sum();
        let selector = match &self.selector {
            Selector::User(name) | Selector::Session(name) | Selector::In(name) | Selector::Token(name) => name.len(),
            Selector::RoomsExcept { rooms, except } => rooms.iter().chain(except).map(|room| room.len() + 16).sum(),
        };
        200 + rooms + selector
    }

    /// Where it was issued in a partition, if it names a room of that.
    pub fn position_on(&self, line: Line) -> Option<Position> {
        self.at.iter().find(|(known, _)| *known == line).map(|(_, position)| *position)
    }

    /// Applies the command to a session that waits to be resumed: changes its rooms. `false`: the session has ended.
    pub fn apply(&self, subject: Subject<'_>, rooms: &mut Vec<Room>) -> bool {
        let applies = self.namespace.as_deref().is_none_or(|namespace| namespace == subject.namespace)
            && match &self.selector {
                Selector::User(user) => subject.user == Some(user),
                Selector::Session(session) => *session == subject.session.to_string(),
                // The token that its client comes with is checked.
                Selector::Token(_) => false,
                Selector::In(room) => rooms.iter().any(|inside| **inside == **room),
                Selector::RoomsExcept { rooms: of, except } => {
                    let own = subject.session.to_string();
                    let inside = |room: &Room| **room == *own || rooms.contains(room);
                    (of.is_empty() || of.iter().any(inside)) && !except.iter().any(inside)
                }
            };
        match &self.action {
            _ if !applies => {}
            Action::Join(new) => {
                for room in new {
                    if !rooms.contains(room) {
                        rooms.push(room.clone());
                    }
                }
            }
            Action::Leave(old) => rooms.retain(|room| !old.contains(room)),
            Action::Disconnect | Action::Revoke { .. } => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(selector: Selector, act: Action) -> SessionCommand {
        SessionCommand {
            id: Id::random(),
            from: NodeId::random(),
            selector,
            namespace: Some("/".into()),
            action: act,
            at: Vec::new(),
        }
    }

    #[test]
    fn read_back_as_written() {
        let revoke = Action::Revoke { before: 1, until: 2 };
        for act in [Action::Join(vec!["a".into()]), Action::Leave(vec![]), Action::Disconnect, revoke] {
            let order = order(Selector::In("r\"".into()), act);
            let text = serde_json::to_string(&order).unwrap();
            assert_eq!(serde_json::from_str::<SessionCommand>(&text).unwrap(), order, "{text}");
        }
    }

    #[test]
    fn applied_to_those_it_is_for() {
        let session = Id::random_session();
        let subject = Subject { session: &session, namespace: "/", user: Some("7") };
        let mut rooms: Vec<Room> = vec!["a".into()];
        let join = |selector| order(selector, Action::Join(vec!["b".into(), "a".into()]));
        for other in [Selector::User("8".into()), Selector::Session("x".into()), Selector::In("c".into())] {
            assert!(join(other).apply(subject, &mut rooms));
            assert_eq!(rooms.len(), 1);
        }
        let elsewhere = Subject { namespace: "/chat", ..subject };
        assert!(join(Selector::User("7".into())).apply(elsewhere, &mut rooms));
        assert_eq!(rooms.len(), 1);
        assert!(join(Selector::In("a".into())).apply(subject, &mut rooms));
        assert_eq!(rooms, ["a".into(), "b".into()] as [Room; 2]);
        let among = |of: &[&str], except: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
            let selector = Selector::RoomsExcept { rooms: names(of), except: names(except) };
            !order(selector, Action::Disconnect).apply(subject, &mut rooms.clone())
        };
        let own = session.to_string();
        assert!(among(&[], &[]) && among(&["x", "b"], &["y"]) && among(&[&own], &[]));
        assert!(!among(&["x"], &[]) && !among(&["a"], &["b"]) && !among(&[], &[&own]));
        let leave = order(Selector::Session(session.to_string()), Action::Leave(vec!["a".into()]));
        assert!(leave.apply(subject, &mut rooms));
        assert_eq!(rooms, ["b".into()] as [Room; 1]);
        assert!(!order(Selector::User("7".into()), Action::Disconnect).apply(subject, &mut rooms));
        let revoke =
            |selector| order(selector, Action::Revoke { before: 1, until: 2 }).apply(subject, &mut rooms.clone());
        assert!(!revoke(Selector::User("7".into())));
        assert!(revoke(Selector::User("8".into())) && revoke(Selector::Token("7".into())));
    }
}
