//! A large record in parts. A session in hundreds of rooms has a record of tens of kilobytes, of which a join changes a
//! hundred bytes. So its rooms are written once, as the base, and each change of them as a part of its own behind that; a
//! small head is replaced with every write. From time to time a new base replaces all parts. Sans-IO.

use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::provenance::Provenance;
use crate::session::changes::Change;
use crate::session::parked::Parked;
use crate::session::record::{Written, change_to_text};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;

/// A record with more bytes of rooms is written in parts. Smaller ones are read by earlier releases too.
const LARGE: usize = 2_000;
/// Writes after which a new base is written.
const MAX_PARTS: u8 = 64;

/// What begins the text of a record in parts. An earlier release does not read such a text, and its client gets a new
/// session.
const MARK: char = '+';

/// What is to be written of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordText {
    /// The whole record, or its head.
    pub text: String,
    /// A part and its number; the base has number 0.
    pub part: Option<(u8, String)>,
    /// Whether this replaces all that was written before.
    pub starts_over: bool,
}

/// What was written of a session with a large record.
#[derive(Debug)]
pub struct WrittenParts {
    /// Names the base. A part of another base is not used.
    base: u32,
    base_bytes: usize,
    /// The number of the last part, how many writes there were since the base, and how many bytes.
    last: u8,
    writes: u8,
    bytes: usize,
    rooms: Vec<(Room, Provenance)>,
    changes: Vec<Change>,
}

#[derive(Serialize, Deserialize)]
struct Base<'a> {
    base: u32,
    rooms: Vec<Room>,
    /// A code for each room.
    #[serde(borrow)]
    by: Cow<'a, str>,
    changes: Vec<(String, Room, bool)>,
}

#[derive(Serialize, Deserialize)]
struct Part<'a> {
    base: u32,
    /// Rooms that the session is in since, or for another reason, and the codes of the reasons.
    #[serde(default, rename = "in", skip_serializing_if = "Vec::is_empty")]
    joined: Vec<Room>,
    #[serde(default, skip_serializing_if = "str::is_empty", borrow)]
    by: Cow<'a, str>,
    #[serde(default, rename = "out", skip_serializing_if = "Vec::is_empty")]
    left: Vec<Room>,
    /// Of the changes before, those from the first number on are kept, as many as the second.
    keep: (usize, usize),
    /// The changes behind those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changes: Vec<(String, Room, bool)>,
}

impl Parked {
    /// Reads a record of a session in this namespace, whole or in parts; `None` where it is none.
    pub fn from_record(record: &str, namespace: NamespaceIndex) -> Option<Self> {
        Self::from_written(assemble(record)?, namespace)
    }

    /// What is to be written of this session, after what was written of it before. `base` names a new base.
    pub fn next_text(&self, written: &mut Option<WrittenParts>, base: impl FnOnce() -> u32) -> RecordText {
        let size = self.rooms.iter().map(|room| room.len() + 4).sum::<usize>() + self.changes.size();
        if size < LARGE {
            *written = None;
            return RecordText { text: self.to_record(), part: None, starts_over: true };
        }
        match written {
            Some(parts) if parts.writes < MAX_PARTS && parts.bytes <= parts.base_bytes => {
                let part = parts.next(self);
                RecordText { text: parts.head(self), part, starts_over: false }
            }
            _ => {
                let (parts, part) = WrittenParts::begin(self, base());
                let text = parts.head(self);
                *written = Some(parts);
                RecordText { text, part: Some((0, part)), starts_over: true }
            }
        }
    }
}

impl WrittenParts {
    fn begin(parked: &Parked, base: u32) -> (Self, String) {
        let rooms: Vec<_> = parked.memberships().map(|(room, by)| (room.clone(), by)).collect();
        let changes: Vec<_> = parked.changes.of_kept().cloned().collect();
        let text = json(&Base {
            base,
            rooms: rooms.iter().map(|(room, _)| room.clone()).collect(),
            by: rooms.iter().map(|(_, by)| by.code()).collect(),
            changes: changes.iter().map(change_to_text).collect(),
        });
        (Self { base, base_bytes: text.len(), last: 0, writes: 0, bytes: 0, rooms, changes }, text)
    }

    /// The head, with the number of the last part.
    fn head(&self, parked: &Parked) -> String {
        format!("{MARK}{} {}\n{}", self.last, self.base, json(&parked.written(false)))
    }

    /// The next part; `None` where nothing in it would be new.
    fn next(&mut self, parked: &Parked) -> Option<(u8, String)> {
        self.writes += 1;
        let part = self.difference(parked)?;
        self.last += 1;
        let text = json(&part);
        self.bytes += text.len();
        Some((self.last, text))
    }

    /// What changed since the last write, which counts as written from now on.
    fn difference(&mut self, parked: &Parked) -> Option<Part<'static>> {
        let before: HashMap<&Room, Provenance> = self.rooms.iter().map(|(room, by)| (room, *by)).collect();
        let rooms: Vec<_> = parked.memberships().map(|(room, by)| (room.clone(), by)).collect();
        let mut left = before.clone();
        let mut joined = Vec::new();
        for (room, by) in &rooms {
            left.remove(room);
            if before.get(room) != Some(by) {
                joined.push((room.clone(), *by));
            }
        }
        let left = left.into_keys().cloned().collect();
        let changes: Vec<_> = parked.changes.of_kept().cloned().collect();
        // Old changes are forgotten from the front, and one that is undone at once disappears from the back.
        let from = changes.first().and_then(|first| self.changes.iter().position(|old| old == first));
        let kept = from
            .map_or(0, |from| self.changes[from..].iter().zip(&changes).take_while(|(old, new)| old == new).count());
        let keep = (from.unwrap_or(0), kept);
        let part = Part {
            base: self.base,
            by: joined.iter().map(|(_, by): &(Room, Provenance)| by.code()).collect(),
            joined: joined.into_iter().map(|(room, _)| room).collect(),
            left,
            keep,
            changes: changes[kept..].iter().map(change_to_text).collect(),
        };
        let is_new = !part.joined.is_empty() || !part.left.is_empty() || changes != self.changes;
        (self.rooms, self.changes) = (rooms, changes);
        is_new.then_some(part)
    }
}

/// Puts a record in parts together; one that is whole stays as it is. `None` where a part is missing or cannot be read.
fn assemble(record: &str) -> Option<Written<'_>> {
    let Some(parts) = record.strip_prefix(MARK) else { return serde_json::from_str(record).ok() };
    let mut lines = parts.split('\n');
    let (last, base) = lines.next()?.split_once(' ')?;
    let (last, base): (u8, u32) = (last.parse().ok()?, base.parse().ok()?);
    let mut written: Written<'_> = serde_json::from_str(lines.next()?).ok()?;
    let first: Base<'_> = serde_json::from_str(lines.next()?).ok()?;
    let (mut rooms, mut changes) = (first.rooms.into_iter().zip(first.by.chars()).collect::<Vec<_>>(), first.changes);
    let mut known = first.base == base;
    let mut count = 0;
    for line in lines {
        let part: Part<'_> = serde_json::from_str(line).ok()?;
        let (from, kept) = part.keep;
        changes = changes.get(from..from.checked_add(kept)?)?.to_vec();
        changes.extend(part.changes);
        rooms.retain(|(room, _)| !part.left.contains(room) && !part.joined.contains(room));
        rooms.extend(part.joined.into_iter().zip(part.by.chars()));
        known &= part.base == base;
        count += 1;
    }
    if !known || count != last {
        return None;
    }
    written.by = rooms.iter().map(|(_, by)| by).collect();
    written.rooms = rooms.into_iter().map(|(room, _)| room).collect();
    written.changes = changes;
    Some(written)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names, numbers and texts are always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Identity;
    use crate::model::id::Id;
    use crate::model::namespaces::NamespaceIndex;
    use crate::model::offset::{Epoch, Offset, Position};
    use crate::model::partition::Line;
    use crate::session::changes::Changes;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn at(ms: u64) -> Position {
        Position { ms, seq: 0 }
    }

    fn offset(ms: u64) -> Offset {
        Offset { epoch: Epoch(7), position: at(ms), line: Line::CONTROL }
    }

    fn parked(rooms: usize) -> Parked {
        let rooms: Vec<Room> = (0..rooms).map(name).collect();
        Parked {
            id: Id::random_session(),
            namespace: NamespaceIndex::default(),
            identity: Arc::new(Identity::anonymous()),
            provenances: rooms.iter().map(|room| (room.clone(), Provenance::Rule)).collect(),
            rooms,
            decided_on: None,
            changes: Changes::default(),
            start: offset(1).into(),
            last: at(1),
            last_line: Line::CONTROL,
            at: offset(1).into(),
            moves: 0,
        }
    }

    fn name(n: usize) -> Room {
        format!("room:{n}:{}", "long".repeat(30)).into()
    }

    fn set(parked: &mut Parked, n: usize, by: Option<Provenance>, ms: u64) {
        let (room, was_in) = (name(n), parked.rooms.contains(&name(n)));
        parked.provenances.retain(|(known, _)| *known != room);
        parked.rooms.retain(|known| *known != room);
        if let Some(by) = by {
            parked.rooms.push(room.clone());
            parked.provenances.push((room.clone(), by));
        }
        if was_in != by.is_some() {
            parked.changes.note(Change { after: at(ms), partition: None, room, joined: by.is_some() }, 50);
        }
        parked.at = offset(ms).into();
    }

    /// The fields of a node's hash that belong to one session.
    #[derive(Default)]
    struct Stored {
        text: String,
        parts: HashMap<u8, String>,
    }

    impl Stored {
        fn write(&mut self, text: RecordText) -> usize {
            let bytes = text.text.len() + text.part.as_ref().map_or(0, |(_, part)| part.len());
            self.text = text.text;
            self.parts.extend(text.part);
            bytes
        }

        /// As the script that takes a record reads it.
        fn read(&self) -> String {
            let Some(rest) = self.text.strip_prefix(MARK) else { return self.text.clone() };
            let last: u8 = rest.split_once(' ').unwrap().0.parse().unwrap();
            (0..=last).fold(self.text.clone(), |text, n| format!("{text}\n{}", self.parts[&n]))
        }
    }

    fn assert_same(read: &Parked, parked: &Parked) {
        let sorted = |parked: &Parked| {
            let mut rooms: Vec<_> = parked.memberships().map(|(room, by)| (room.to_string(), by.code())).collect();
            rooms.sort_unstable();
            rooms
        };
        assert_eq!(sorted(read), sorted(parked));
        assert_eq!((&read.changes, &read.at, read.id), (&parked.changes, &parked.at, parked.id));
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_session_was(steps in prop::collection::vec((0..60_usize, 0..4_u8, 0..30_u64), 1..200)) {
            let (mut parked, mut written, mut stored, mut ms) = (parked(40), None, Stored::default(), 1);
            for (n, (room, by, after)) in steps.into_iter().enumerate() {
                let by = [None, Some(Provenance::Rule), Some(Provenance::Asked), Some(Provenance::Command)][usize::from(by)];
                ms += after;
                set(&mut parked, room, by, ms);
                stored.write(parked.next_text(&mut written, || n as u32));
                assert_same(&Parked::from_record(&stored.read(), parked.namespace).unwrap(), &parked);
            }
        }
    }

    #[test]
    fn a_change_of_a_large_record_writes_little_also_on_average() {
        let (mut parked, mut written, mut stored) = (parked(250), None, Stored::default());
        let whole = parked.to_record().len();
        assert!(stored.write(parked.next_text(&mut written, || 1)) > whole);
        let bytes: usize = (0..1_000)
            .map(|n| {
                set(&mut parked, 7, (n % 2 == 1).then_some(Provenance::Rule), 100 + n);
                stored.write(parked.next_text(&mut written, || n as u32))
            })
            .sum();
        assert!(bytes / 1_000 < whole / 15, "{} bytes a change, {whole} the record", bytes / 1_000);
        let same = parked.next_text(&mut written, || 0);
        assert_eq!((same.part, same.text.len() < 500), (None, true), "nothing has changed");
    }

    #[test]
    fn small_records_are_whole_and_a_missing_or_foreign_part_is_noticed() {
        let (mut small, mut written) = (parked(3), None);
        assert_eq!(small.next_text(&mut written, || 1).text, small.to_record());
        let mut stored = Stored::default();
        small = parked(100);
        stored.write(small.next_text(&mut written, || 1));
        set(&mut small, 1, None, 9);
        stored.write(small.next_text(&mut written, || 2));
        let read = |text: &str| Parked::from_record(text, small.namespace).is_some();
        let text = stored.read();
        assert!(read(&text) && !read(text.rsplit_once('\n').unwrap().0) && !read(&stored.text));
        assert!(!read(&format!("{}\n", text.rsplit_once('\n').unwrap().0)));
        stored.parts.insert(0, stored.parts[&0].replacen("\"base\":1", "\"base\":5", 1));
        assert!(!read(&stored.read()));
    }
}
