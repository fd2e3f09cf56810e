//! What a client that comes back has missed, or why that cannot be proven. Sans-IO: the shards carry it
//! out, and `tests/simulation.rs` runs it through thousands of seeds.

use crate::log::backfill::Needs;
use crate::log::window::{Gap, Pulled, RecentLog, Slice};
use crate::model::command::{SessionCommand, Subject};
use crate::model::names::EVERYBODY;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::model::partition::{Line, Partitions};
use crate::model::place::Place;
use crate::session::changes;
use crate::session::changes::Change;
use crate::session::parked::Parked;
use crate::session::replay::{Missing, Replay};
use std::cell::RefCell;
use std::collections::BTreeMap;
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

/// The cursor with which a session gets what it missed in (`after`, `here`] of each of its lines, each event by the rooms that
/// the session was in just then: those it joined and left itself, and those that the backend changed while no node had the
/// session. `after` names the lines of `parked.at`, and where the client is on others, to which a command may bring the session.
/// Afterwards `parked` is the session as of `here`.
///
/// # Errors
/// When it cannot be proven that the window has all of that.
pub fn take_up(
    parked: &mut Parked,
    window: &impl RecentLog,
    here: &Place,
    namespace: &str,
    after: &Place,
) -> Result<Replay, Lost> {
    let own = [parked.id.to_string().into(), EVERYBODY.into()];
    let mut lines = Vec::new();
    for after in after.offsets().filter(|after| parked.at.on(after.line).is_some()) {
        let here = here.on(after.line).ok_or(Gap::ForeignEpoch)?;
        provable_on(window, here, after, namespace, &own)?;
        if parked.at.on(after.line).is_some_and(|at| at.position > here.position) {
            // Its rooms are those of a later position than this shard has reached.
            return Err(Gap::Future.into());
        }
        lines.push(missed_on(parked, window, namespace, after)?);
    }
    apply_commands(parked, window, (after, here), namespace, &mut lines)?;
    parked.at = here.only(lines.iter().map(|line| line.after.line).collect());
    let mut replay = Replay::new(&parked.id, lines, here);
    for lost in parked.changes.lost() {
        let mut at = Place::from(Offset { position: lost.after, ..Offset::default() });
        lost.partition.iter().for_each(|partition| at.set(*partition));
        replay.forget(&lost.room, &at);
    }
    Ok(replay)
}

/// Where a session continues on a line that it came to at `begun`: its client may have received more there already, over a node
/// that died before it wrote that the session was there.
fn received_on(begun: Offset, here: &Place, named: Option<Offset>) -> Result<Offset, Gap> {
    match named {
        None => Ok(begun),
        Some(named) if named.epoch != begun.epoch => Err(Gap::ForeignEpoch),
        Some(named) if here.on(named.line).is_none_or(|here| named.position > here.position) => Err(Gap::Future),
        Some(named) => Ok(Offset { position: begun.position.max(named.position), ..begun }),
    }
}

/// What the session missed of one line, by its own changes of rooms.
fn missed_on(parked: &Parked, window: &impl RecentLog, namespace: &str, after: Offset) -> Result<Missing, Lost> {
    let rooms = parked.changes.rooms_at(after, &parked.rooms, window.partitions()).ok_or(Lost::Rooms)?;
    let is_lost = |room: &Room| parked.changes.is_lost(room, after);
    let wanted: Vec<Room> = rooms.iter().filter(|room| !is_lost(room)).cloned().collect();
    window.covers(after, namespace, &wanted)?;
    let changes: Vec<Change> = parked.changes.after(after).cloned().collect();
    let wanted = changes.iter().filter(|change| !is_lost(&change.room) || parked.rooms.contains(&change.room));
    wanted.into_iter().try_for_each(|change| covered(window, namespace, change, after))?;
    Ok(Missing { after, rooms, changes })
}

/// Whether the window has what a room had on a line since it was joined.
fn covered(window: &impl RecentLog, namespace: &str, change: &Change, line: Offset) -> Result<(), Gap> {
    match change.on(line.line).filter(|_| change.joined) {
        Some(position) => {
            let since = Offset { position: position.max(line.position), ..line };
            window.covers(since, namespace, std::slice::from_ref(&change.room))
        }
        None => Ok(()),
    }
}

/// Applies the commands of the meantime, up to where the shard is on the control line.
fn apply_commands(
    parked: &mut Parked,
    window: &impl RecentLog,
    (after, here): (&Place, &Place),
    namespace: &str,
    lines: &mut Vec<Missing>,
) -> Result<(), Lost> {
    let (id, identity) = (parked.id, parked.identity.clone());
    let subject = Subject { session: &id, namespace, user: identity.user.as_ref().map(|user| user.as_str()) };
    let commands = window.commands(parked.at.control())?;
    // The last change in each partition: the changes of a session are in the same order on all lines.
    let mut noted = parked.at.clone();
    for (position, command) in commands.into_iter().take_while(|(position, _)| *position <= here.control().position) {
        let before = parked.rooms.clone();
        if !command.apply(subject, &mut parked.rooms) {
            return Err(Lost::Disconnected);
        }
        for (room, joined) in changes::difference(&before, &parked.rooms) {
            let partition = match window.partitions().of(room) {
                Line::CONTROL => None,
                line => Some(where_issued(&command, window.filled_up_to(line), &noted, here.on(line))?),
            };
            let change = Change { after: position, partition, room: room.clone(), joined };
            if let Some(partition) = partition {
                noted.set(partition);
                if lines.iter().all(|known| known.after.line != partition.line) {
                    let after = received_on(partition, here, after.on(partition.line))?;
                    lines.push(Missing { after, rooms: Vec::new(), changes: Vec::new() });
                }
            }
            for known in lines.iter_mut().filter(|known| change.on(known.after.line).is_some()) {
                covered(window, namespace, &change, known.after)?;
                known.changes.push(change.clone());
            }
            parked.changes.note(change, u64::MAX);
        }
    }
    Ok(())
}

/// Where a command counts from in a partition. All that was published there until then was published before the command was
/// in force.
fn where_issued(
    command: &SessionCommand,
    filled_up_to: Position,
    noted: &Place,
    here: Option<Offset>,
) -> Result<Offset, Lost> {
    let here = here.ok_or(Gap::ForeignEpoch)?;
    if here.position < filled_up_to {
        // What was read again after `here` would not come live.
        return Err(Gap::Future.into());
    }
    let issued = command.position_on(here.line).ok_or(Lost::Rooms)?;
    let last = noted.on(here.line).map_or_else(Position::default, |noted| noted.position);
    Ok(Offset { position: issued.max(last).min(here.position), ..here })
}

/// Whether a session that is `here` can get what these rooms had after `after`, with everything later coming to it live.
///
/// # Errors
/// When it cannot be proven that the window has all of that, on the control line and in each partition of the rooms.
pub fn provable(
    window: &impl RecentLog,
    here: &Place,
    after: &Place,
    namespace: &str,
    rooms: &[Room],
) -> Result<(), Gap> {
    let partitions = window.partitions();
    for line in partitions.of_all(rooms) {
        let of_line: Vec<Room> = rooms.iter().filter(|room| partitions.may_bring(line, room)).cloned().collect();
        // An offset without it is of another log, or of another room.
        let (here, after) = here.on(line).zip(after.on(line)).ok_or(Gap::ForeignEpoch)?;
        provable_on(window, here, after, namespace, &of_line)?;
    }
    Ok(())
}

/// The same for one line.
fn provable_on(
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
    if here.position < window.filled_up_to(here.line) {
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
    /// What each line of the log has to be read for.
    pub missing: BTreeMap<Line, Needs>,
}

impl Asked {
    /// Of a session that is to be taken up.
    pub fn to_take_up(parked: &Parked, window: &impl RecentLog, here: &Place, namespace: &str, after: &Place) -> Self {
        let recorder = Recorder { window, asked: RefCell::default() };
        // The answer does not matter: where it is no, nothing has to be read, or it is found in the next round.
        let _ = take_up(&mut parked.clone(), &recorder, here, namespace, after);
        recorder.asked.into_inner()
    }

    /// Of a session that begins in these rooms.
    pub fn to_join(window: &impl RecentLog, here: &Place, namespace: &str, after: &Place, rooms: &[Room]) -> Self {
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
    fn partitions(&self) -> Partitions {
        self.window.partitions()
    }

    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        let mut asked = self.asked.borrow_mut();
        asked.rooms.extend(rooms.iter().cloned());
        match self.window.covers(after, namespace, rooms) {
            Err(Gap::NotKept) => {
                let is_missing = |room: &&Room| {
                    self.window.covers(after, namespace, std::slice::from_ref(room)) == Err(Gap::NotKept)
                };
                for room in rooms.iter().filter(is_missing) {
                    asked.missing.entry(after.line).or_default().add(room, after.position);
                }
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
                let mut asked = self.asked.borrow_mut();
                asked.missing.entry(Line::CONTROL).or_default().add_commands(after.position);
                Ok(Vec::new())
            }
            commands => commands,
        }
    }

    fn filled_up_to(&self, _line: Line) -> Position {
        // It is waited for afterwards.
        Position::default()
    }
}
