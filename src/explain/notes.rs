//! What the notes of a session say of its rooms.

use crate::explain::stamp::Stamp;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::model::partition::{Line, Partitions};
use crate::model::place::Place;
use crate::model::provenance::Provenance;
use crate::model::session_note::SessionNote;
use crate::model::transport::Protocol;
use crate::session::changes::{Change, Changes};

/// How the rooms of a session changed.
pub fn changes_in(notes: &[(Stamp, SessionNote)], partitions: Partitions) -> Vec<Change> {
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
pub fn began_on(line: Line, start: &Place, notes: &[(Stamp, SessionNote)], is_lasting: bool) -> Position {
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
pub fn floor_on(line: Line, changes: &Changes) -> Position {
    changes.floor().on(line).unwrap_or_default().position
}

/// The last time that a session was refused this room.
pub fn refusal(notes: &[(Stamp, SessionNote)], room: &Room) -> Option<(u64, String)> {
    notes.iter().rev().find_map(|(at, note)| match note {
        SessionNote::Refused { code, room: Some(refused) } if refused == room => Some((at.unix_ms, (*code).to_owned())),
        _ => None,
    })
}

/// The last time that a session joined this room after its start.
pub fn joined_at(notes: &[(Stamp, SessionNote)], room: &Room) -> Option<u64> {
    notes.iter().rev().find_map(|(at, note)| match note {
        SessionNote::Joined { room: joined, .. } if joined == room => Some(at.unix_ms),
        _ => None,
    })
}

/// Whether such a room is a session's from its start on, unless it is left. The rooms of a stream do not change.
pub fn is_of_start(by: Provenance, brought_later: bool, protocol: Option<Protocol>) -> bool {
    match protocol {
        Some(Protocol::Sse) => by != Provenance::Command,
        _ => by.is_of_token() && !brought_later,
    }
}
