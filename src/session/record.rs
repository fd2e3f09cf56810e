//! The record of a session that other nodes can read: what [`Parked`] holds, as JSON. Sans-IO.

use crate::auth::claims::ClaimsDigest;
use crate::auth::grants::Grants;
use crate::auth::identity::{Identity, UserId};
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use crate::model::place::Place;
use crate::model::provenance::Provenance;
use crate::session::changes::{Change, Changes};
use crate::session::parked::Parked;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// The JSON of a record. One in parts has its rooms and changes elsewhere.
#[derive(Serialize, Deserialize)]
pub(super) struct Written<'a> {
    id: Id,
    /// The claim: a string or a number; null for an anonymous client.
    user: Value,
    #[serde(default, skip_serializing_if = "str::is_empty", borrow)]
    grants: Cow<'a, str>,
    #[serde(default)]
    pub(super) rooms: Vec<Room>,
    /// A code for each room: why the session is in it. Earlier releases write none.
    #[serde(default)]
    pub(super) by: String,
    /// Digest of the claims that decided, where that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claims: Option<String>,
    /// Position, with the offset in the room's partition behind it where there are several; room, and whether it was joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<(String, Room, bool)>,
    /// The same of rooms that are lost, up to their loss. Earlier releases do not read them, and know nothing of these rooms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<(String, Room, bool)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changes_after: Option<String>,
    start: String,
    last: String,
    /// The number of its line.
    #[serde(default, skip_serializing_if = "is_zero")]
    last_line: u8,
    at: String,
    /// The whole place, where the log has partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(default)]
    moves: u32,
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl Parked {
    /// The whole record. Claims stay behind: the client brings its token along.
    pub fn to_record(&self) -> String {
        serde_json::to_string(&self.written(true)).expect("names, numbers and texts are always JSON")
    }

    /// What is written, with or without the rooms and their changes.
    pub(super) fn written(&self, with_rooms: bool) -> Written<'_> {
        let user = self.identity.user.as_ref().map(UserId::as_json);
        let floor = self.changes.floor();
        Written {
            id: self.id,
            user: user.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or(Value::Null),
            grants: self.identity.grants.as_text().into(),
            rooms: if with_rooms { self.rooms.clone() } else { Vec::new() },
            by: if with_rooms { self.memberships().map(|(_, by)| by.code()).collect() } else { String::new() },
            claims: self.claims_matter().then(|| self.deciding_claims().to_text()),
            changes: if with_rooms { self.changes.of_kept().map(change_to_text).collect() } else { Vec::new() },
            lost: self.changes.of_lost().map(change_to_text).collect(),
            changes_after: (floor != Place::default()).then(|| match floor.lines().is_empty() {
                true => floor.control().position.to_string(),
                false => floor.to_string(),
            }),
            start: self.start.to_string(),
            last: self.last.to_string(),
            last_line: self.last_line.number(),
            at: self.at.control().position.to_string(),
            place: (!self.at.lines().is_empty()).then(|| self.at.to_string()),
            moves: self.moves,
        }
    }

    /// Whether a resume has to know whether the claims have changed: the backend decided on some of them, or the session has
    /// left rooms whose events it may not have got yet.
    fn claims_matter(&self) -> bool {
        self.memberships().any(|(_, by)| matches!(by, Provenance::Asked | Provenance::Answered))
            || self.changes.list().any(|change| !self.rooms.contains(&change.room))
    }

    /// Reads it back as a session in this namespace.
    pub(super) fn from_written(written: Written<'_>, namespace: NamespaceIndex) -> Option<Self> {
        let user = match written.user {
            Value::Null => None,
            claim => Some(UserId::from_claim(Some(&claim)).ok()?),
        };
        let grants = Grants::from_text(&written.grants);
        let changes: Vec<_> = written.changes.into_iter().map(change_from_text).collect::<Option<_>>()?;
        let of_lost: Vec<_> = written.lost.into_iter().map(change_from_text).collect::<Option<_>>()?;
        // Nothing is known of the rooms in a record of an earlier release. The backend may have chosen them.
        let codes = written.by.chars().map(Provenance::from_code).chain(std::iter::repeat(Provenance::Answered));
        let provenances = written.rooms.iter().cloned().zip(codes).collect();
        let decided_on = written.claims.as_deref().and_then(ClaimsDigest::from_text);
        let floor = written.changes_after.map_or_else(|| Some(Place::default()), |text| floor_from_text(&text))?;
        let start = Place::parse(&written.start)?;
        let at = match written.place {
            Some(place) => Place::parse(&place)?,
            None => Place::from(Offset { position: Position::parse(&written.at)?, ..start.control() }),
        };
        Some(Self {
            id: written.id,
            namespace,
            identity: Arc::new(Identity { user, claims: "{}".into(), expiry: None, grants }),
            rooms: written.rooms,
            provenances,
            decided_on,
            changes: Changes::known(floor, changes).with_lost(of_lost),
            start,
            last: Position::parse(&written.last)?,
            last_line: Line::new(written.last_line)?,
            at,
            moves: written.moves,
        })
    }
}

pub(super) fn change_to_text(change: &Change) -> (String, Room, bool) {
    let position = change.after;
    let text = match change.partition {
        None => position.to_string(),
        Some(offset) => format!("{position}/{}/{}", offset.line, Offset { line: Line::CONTROL, ..offset }),
    };
    (text, change.room.clone(), change.joined)
}

fn change_from_text((text, room, joined): (String, Room, bool)) -> Option<Change> {
    let Some((after, partition)) = text.split_once('/') else {
        return Some(Change { after: Position::parse(&text)?, partition: None, room, joined });
    };
    let (line, offset) = partition.split_once('/')?;
    let partition = Some(Offset { line: Line::new(line.parse().ok()?)?, ..Offset::parse(offset)? });
    Some(Change { after: Position::parse(after)?, partition, room, joined })
}

/// A position, or a place.
fn floor_from_text(text: &str) -> Option<Place> {
    let position = Position::parse(text).map(|position| Offset { position, ..Offset::default() }.into());
    position.or_else(|| Place::parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::offset::Epoch;
    use crate::model::partition::Partitions;
    use serde_json::json;

    #[test]
    fn read_back_as_written() {
        let at = |ms| Position { ms, seq: 1 };
        let offset = |line, ms| Offset { epoch: Epoch(7), position: at(ms), line: Line::new(line).unwrap() };
        for user in [None, Some(json!(7)), Some(json!("7\"é"))] {
            let user = user.map(|claim| UserId::from_claim(Some(&claim)).unwrap());
            let grants = Grants::from_claim(Some(&json!(["a", "b:*"]))).unwrap();
            let identity = Identity { user, claims: "{}".into(), expiry: None, grants };
            let parked = Parked {
                id: Id::random_session(),
                namespace: NamespaceIndex::new(3),
                identity: Arc::new(identity),
                rooms: vec!["a".into(), "b:\"1".into(), "c".into()],
                provenances: vec![("a".into(), Provenance::Auto), ("b:\"1".into(), Provenance::Asked)],
                decided_on: None,
                changes: Changes::known(
                    Offset { position: at(1), ..Offset::default() }.into(),
                    [Change { after: at(2), partition: None, room: "a".into(), joined: true }],
                ),
                start: offset(0, 1).into(),
                last: at(2),
                last_line: Line::CONTROL,
                at: offset(0, 3).into(),
                moves: 2,
            };
            assert!(!parked.to_record().contains("line") && !parked.to_record().contains("place"));
            let mut over_lines = parked.clone();
            over_lines.start.set(offset(4, 5));
            over_lines.at.set(offset(5, 6));
            over_lines.last_line = offset(4, 5).line;
            let mut floor = over_lines.changes.floor();
            floor.set(offset(9, 1));
            let change = Change { after: at(2), partition: Some(offset(5, 4)), room: "c".into(), joined: true };
            over_lines.changes = Changes::known(floor, [change]);
            let read = Parked::from_record(&over_lines.to_record(), parked.namespace).unwrap();
            assert_eq!(
                (&read.start, read.last_line, &read.at),
                (&over_lines.start, over_lines.last_line, &over_lines.at)
            );
            assert_eq!(read.changes, over_lines.changes);
            let read = Parked::from_record(&parked.to_record(), parked.namespace).unwrap();
            assert_eq!((&read.identity, &read.changes), (&parked.identity, &parked.changes));
            assert!(read.memberships().eq(parked.memberships()));
            assert_eq!(read.deciding_claims(), parked.deciding_claims());
            assert_eq!((read.id, &read.rooms, read.start), (parked.id, &parked.rooms, parked.start));
            assert_eq!((read.last, read.at, read.moves), (parked.last, parked.at, parked.moves));
        }
    }

    #[test]
    fn rooms_that_are_lost_are_read_back() {
        let change = |ms, room: &str, joined| Change {
            after: Position { ms, seq: 0 },
            partition: None,
            room: room.into(),
            joined,
        };
        let record = format!(
            r#"{{"id":"{}","user":7,"rooms":["a","b"],"start":"7-1-0","last":"1-0","at":"9-0"}}"#,
            Id::random_session()
        );
        let mut parked = Parked::from_record(&record, NamespaceIndex::default()).unwrap();
        let list = [change(2, "a", true), change(3, "x", false), change(4, "b", true)];
        parked.changes = Changes::known(Place::default(), list);
        parked.keep_rooms(vec![("b".into(), Provenance::Rule)], Partitions::ONE, |_| false);
        let kept: Vec<_> = parked.changes.of_kept().cloned().collect();
        assert_eq!(kept, [change(4, "b", true)], "all that an earlier release knows");
        let read = Parked::from_record(&parked.to_record(), NamespaceIndex::default()).unwrap();
        assert_eq!(read.changes, parked.changes);
        assert_eq!(read.changes.lost().count(), 2);
    }

    #[test]
    fn a_record_of_an_earlier_release_has_rooms_that_nobody_vouches_for() {
        let record = r#"{"id":"AAAAAAAAAAAAAAAAAAAA","user":7,"rooms":["a","b"],"start":"","last":"","at":""}"#;
        let id = Id::random_session().to_string();
        let at = Position { ms: 5, seq: 1 };
        let start = Offset { epoch: Epoch(7), position: at, line: Line::CONTROL };
        let record = record
            .replace("AAAAAAAAAAAAAAAAAAAA", &id)
            .replace(r#""start":"""#, &format!(r#""start":"{start}""#))
            .replace(r#""last":"","at":"""#, &format!(r#""last":"{at}","at":"{at}""#));
        let read = Parked::from_record(&record, NamespaceIndex::default()).unwrap();
        let by: Vec<_> = read.memberships().map(|(_, by)| by).collect();
        assert_eq!((by, read.decided_on), (vec![Provenance::Answered; 2], None));
    }

    #[test]
    fn garbage_is_no_session() {
        for bad in ["", "{}", "[]", "{\"id\":\"x\",\"user\":1,\"rooms\":[],\"start\":\"\",\"last\":\"\",\"at\":\"\"}"] {
            assert!(Parked::from_record(bad, NamespaceIndex::default()).is_none(), "{bad}");
        }
    }
}
