//! What a client that comes back has missed, or why that cannot be proven. Sans-IO: the shards carry it
//! out, and `tests/simulation.rs` runs it through thousands of seeds.

use crate::log::backfill::Needs;
use crate::log::window::{Gap, Pulled, RecentLog, Slice};
use crate::model::command::{SessionCommand, Subject};
use crate::model::names::EVERYBODY;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::session::changes;
use crate::session::changes::Change;
use crate::session::parked::Parked;
use crate::session::replay::Replay;
use std::cell::RefCell;
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

impl From<Gap> for Lost {
    fn from(gap: Gap) -> Self {
        Self::Missed(gap)
    }
}

/// The cursor with which a session gets what it missed in (`after`, `here`], each event by the rooms that the session was in
/// just then: those it joined and left itself, and those that the backend changed while no node had the session. Afterwards
/// `parked` is the session as of `here`.
///
/// # Errors
/// When it cannot be proven that the window has all of that.
pub fn take_up(
    parked: &mut Parked,
    window: &impl RecentLog,
    here: Offset,
    namespace: &str,
    after: Offset,
) -> Result<Replay, Lost> {
    provable(window, here, after, namespace, &[parked.id.to_string().into(), EVERYBODY.into()])?;
    if parked.at > here.position {
        // Its rooms are those of a later position than this shard has reached.
        return Err(Gap::Future.into());
    }
    let (id, identity) = (parked.id, parked.identity.clone());
    let first = parked.changes.rooms_at(after.position, &parked.rooms).ok_or(Lost::Rooms)?;
    let covered = |from: Position, rooms: &[Room]| window.covers(Offset { position: from, ..after }, namespace, rooms);
    covered(after.position, &first)?;
    let mut rooms = first.clone();
    let mut changes: Vec<Change> = parked.changes.after(after.position).cloned().collect();
    for change in &changes {
        changes::set(&mut rooms, &change.room, change.joined);
        if change.joined {
            covered(change.after, std::slice::from_ref(&change.room))?;
        }
    }
    let user = identity.user.as_ref().map(|user| user.as_str());
    let subject = Subject { session: &id, namespace, user };
    let orders = window.commands(Offset { epoch: parked.start.epoch, position: parked.at, line: parked.start.line })?;
    for (position, order) in orders.into_iter().take_while(|(position, _)| *position <= here.position) {
        let before = rooms.clone();
        if !order.apply(subject, &mut rooms) {
            return Err(Lost::Disconnected);
        }
        for change in changes::difference(position, &before, &rooms) {
            if change.joined {
                covered(change.after, std::slice::from_ref(&change.room))?;
            }
            parked.changes.note(change.clone(), u64::MAX);
            changes.push(change);
        }
    }
    parked.rooms = rooms;
    parked.at = here.position;
    Ok(Replay::new(&id, first, after, changes, here.position))
}

/// Whether a session that is `here` can get what these rooms had after `after`, with everything later coming to it live.
///
/// # Errors
/// When it cannot be proven that the window has all of that.
pub fn provable(
    window: &impl RecentLog,
    here: Offset,
    after: Offset,
    namespace: &str,
    rooms: &[Room],
) -> Result<(), Gap> {
    if after.epoch != here.epoch {
        // Also while the window was reset and this shard was not yet.
        return Err(Gap::ForeignEpoch);
    }
    if after.position > here.position {
        // What is delivered next would come a second time.
        return Err(Gap::Future);
    }
    if here.position < window.filled_up_to() {
        // What was read again after `here` would not come live.
        return Err(Gap::Future);
    }
    window.covers(after, namespace, rooms)
}

/// What a session asks of the window, and what of it this node did not keep, so that the log has to be read again.
#[derive(Debug, Default)]
pub struct Asked {
    /// All rooms.
    pub rooms: Vec<Room>,
    /// What the log has to be read for.
    pub missing: Needs,
}

impl Asked {
    /// Of a session that is to be taken up.
    pub fn to_take_up(parked: &Parked, window: &impl RecentLog, here: Offset, namespace: &str, after: Offset) -> Self {
        let recorder = Recorder { window, asked: RefCell::default() };
        // The answer does not matter: where it is no, nothing has to be read, or it is found in the next round.
        let _ = take_up(&mut parked.clone(), &recorder, here, namespace, after);
        recorder.asked.into_inner()
    }

    /// Of a session that begins in these rooms.
    pub fn to_join(window: &impl RecentLog, here: Offset, namespace: &str, after: Offset, rooms: &[Room]) -> Self {
        let recorder = Recorder { window, asked: RefCell::default() };
        let _ = provable(&recorder, here, after, namespace, rooms);
        recorder.asked.into_inner()
    }
}

/// A window that has everything, and remembers what it did not have.
struct Recorder<'a, L> {
    window: &'a L,
    asked: RefCell<Asked>,
}

impl<L: RecentLog> RecentLog for Recorder<'_, L> {
    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        let mut asked = self.asked.borrow_mut();
        asked.rooms.extend(rooms.iter().cloned());
        match self.window.covers(after, namespace, rooms) {
            Err(Gap::NotKept) => {
                let is_missing = |room: &&Room| {
                    self.window.covers(after, namespace, std::slice::from_ref(room)) == Err(Gap::NotKept)
                };
                rooms.iter().filter(is_missing).for_each(|room| asked.missing.add(room, after.position));
                Ok(())
            }
            covered => covered,
        }
    }

    fn pull(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room], max: Slice) -> Result<Pulled, Gap> {
        self.window.pull(after, up_to, namespace, rooms, max)
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        match self.window.commands(after) {
            Err(Gap::NotKept) => {
                self.asked.borrow_mut().missing.add_commands(after.position);
                Ok(Vec::new())
            }
            commands => commands,
        }
    }

    fn filled_up_to(&self) -> Position {
        // It is waited for afterwards.
        Position::default()
    }
}
