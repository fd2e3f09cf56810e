//! What a client that comes back has missed, or why that cannot be proven. Sans-IO: the shards carry it
//! out, and `tests/simulation.rs` runs it through thousands of seeds.

use crate::log::window::{Gap, Window};
use crate::model::command::{SessionCommand, Subject};
use crate::model::event::Event;
use crate::model::id::Id;
use crate::model::names::EVERYBODY;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::session::changes;
use crate::session::parked::Parked;
use std::sync::Arc;

/// Why a session cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// What it missed cannot be proven.
    Missed(Gap),
    /// Its rooms changed so often that it is not known where it was when the client lost it.
    Rooms,
    /// The backend ended it meanwhile.
    Disconnected,
}

impl Lost {
    /// A metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missed(gap) => gap.code(),
            Self::Rooms => "rooms_unknown",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Why a client that comes back does not get what it missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecovered {
    /// The client names an offset that is none.
    #[error("the offset cannot be read")]
    BadOffset,
    /// No node has a session with this pid, for this user in this namespace.
    #[error("the session is not known (any more)")]
    UnknownSession,
    /// Another node may have the session, and the nodes cannot reach each other.
    #[error("other nodes cannot be reached")]
    Unreachable,
    /// The client has not taken yet what an earlier join replays.
    #[error("an earlier replay is not over")]
    StillReplaying,
    /// The session has ended meanwhile.
    #[error("the session has ended")]
    Ended,
    /// The client's token has changed, and whether it still gives the session its rooms cannot be decided.
    #[error("the token has changed, and the rooms cannot be decided again")]
    Undecided,
    /// What it missed, or its rooms, cannot be proven, or it was ended.
    #[error("what was missed cannot be proven: {}", .0.code())]
    Lost(Lost),
}

impl NotRecovered {
    /// A metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadOffset => "bad_offset",
            Self::UnknownSession => "unknown_session",
            Self::Unreachable => "unreachable",
            Self::StillReplaying => "still_replaying",
            Self::Ended => "gone",
            Self::Undecided => "undecided",
            Self::Lost(lost) => lost.code(),
        }
    }
}

impl From<Lost> for NotRecovered {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl From<Gap> for NotRecovered {
    fn from(gap: Gap) -> Self {
        Self::Lost(gap.into())
    }
}

/// What a resume reads: the recent log.
pub trait RecentLog {
    /// See [`Window::replay`].
    ///
    /// # Errors
    /// When it cannot be proven that these are all.
    fn replay(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room]) -> Result<Vec<Arc<Event>>, Gap>;

    /// See [`Window::commands`].
    ///
    /// # Errors
    /// When it cannot be proven that these are all.
    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap>;
}

impl RecentLog for Window {
    fn replay(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room]) -> Result<Vec<Arc<Event>>, Gap> {
        self.replay(after, up_to, namespace, rooms)
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        self.commands(after).map(|commands| commands.map(|(at, command)| (at, command.clone())).collect())
    }
}

impl From<Gap> for Lost {
    fn from(gap: Gap) -> Self {
        Self::Missed(gap)
    }
}

/// What a session missed in (`after`, `here`], each event by the rooms that the session was in just then: those it
/// joined and left itself, and those that the backend changed while no node had the session. Afterwards `parked` is the
/// session as of `here`.
///
/// # Errors
/// When that cannot be proven.
pub fn take_up(
    parked: &mut Parked,
    window: &impl RecentLog,
    here: Offset,
    namespace: &str,
    after: Offset,
) -> Result<Vec<Arc<Event>>, Lost> {
    if after.epoch != here.epoch {
        return Err(Gap::ForeignEpoch.into());
    }
    if parked.at > here.position {
        // Its rooms are those of a later position than this shard has reached.
        return Err(Gap::Future.into());
    }
    let (id, identity) = (parked.id, parked.identity.clone());
    let mut rooms = parked.changes.rooms_at(after.position, &parked.rooms).ok_or(Lost::Rooms)?;
    let (mut missed, mut from) = (Vec::new(), after);
    let mut replay = |rooms: &[Room], up_to: Position| -> Result<(), Lost> {
        let place = Receiver { here, namespace, rooms, own: &id };
        missed.extend(place.missed(window, from, Some(up_to))?);
        from.position = from.position.max(up_to);
        Ok(())
    };
    for change in parked.changes.after(after.position) {
        replay(&rooms, change.after)?;
        changes::set(&mut rooms, &change.room, change.joined);
    }
    let user = identity.user.as_ref().map(|user| user.as_str());
    let subject = Subject { session: &id, namespace, user };
    let orders = window.commands(Offset { epoch: parked.start.epoch, position: parked.at })?;
    for (position, order) in orders.into_iter().take_while(|(position, _)| *position <= here.position) {
        replay(&rooms, position)?;
        let before = rooms.clone();
        if !order.apply(subject, &mut rooms) {
            return Err(Lost::Disconnected);
        }
        parked.changes.note_difference(position, &before, &rooms);
    }
    replay(&rooms, here.position)?;
    parked.rooms = rooms;
    parked.at = here.position;
    Ok(missed)
}

/// For whom something may be missing, and up to where.
#[derive(Clone, Copy, Debug)]
pub struct Receiver<'a> {
    /// What the session has delivered up to: everything later comes to it live.
    pub here: Offset,
    /// Its namespace's name.
    pub namespace: &'a str,
    /// Its rooms.
    pub rooms: &'a [Room],
    /// Its own id: a room with that one member. It is in [`EVERYBODY`], too.
    pub own: &'a Id,
}

impl Receiver<'_> {
    /// The events in (`after`, `up_to`], each once, in order; without `up_to`, to where the session is.
    ///
    /// # Errors
    /// When it cannot be proven that the window has them all.
    pub fn missed(
        &self,
        window: &impl RecentLog,
        after: Offset,
        up_to: Option<Position>,
    ) -> Result<Vec<Arc<Event>>, Gap> {
        if after.epoch != self.here.epoch {
            // Also while the window was reset and this shard was not yet.
            return Err(Gap::ForeignEpoch);
        }
        if after.position > self.here.position {
            // What is delivered next would come a second time.
            return Err(Gap::Future);
        }
        let mut names = self.rooms.to_vec();
        names.extend([self.own.to_string().into(), EVERYBODY.into()]);
        window.replay(after, up_to.unwrap_or(self.here.position), self.namespace, &names)
    }
}
