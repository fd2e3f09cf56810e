//! The record of a session that other nodes can read: what [`Parked`] holds, as JSON. Sans-IO.

use crate::auth::claims::ClaimsDigest;
use crate::auth::grants::Grants;
use crate::auth::identity::{Identity, UserId};
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::{Offset, Position};
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
    /// Place, room, and whether it was joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<(String, Room, bool)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changes_after: Option<String>,
    start: String,
    last: String,
    at: String,
    #[serde(default)]
    moves: u32,
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
            changes: if with_rooms { self.changes.list().map(change_to_text).collect() } else { Vec::new() },
            changes_after: (floor != Position::default()).then(|| floor.to_string()),
            start: self.start.to_string(),
            last: self.last.to_string(),
            at: self.at.to_string(),
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
        // Nothing is known of the rooms in a record of an earlier release. The backend may have chosen them.
        let codes = written.by.chars().map(Provenance::from_code).chain(std::iter::repeat(Provenance::Answered));
        let provenances = written.rooms.iter().cloned().zip(codes).collect();
        let decided_on = written.claims.as_deref().and_then(ClaimsDigest::from_text);
        let floor = written.changes_after.map_or(Some(Position::default()), |text| Position::parse(&text))?;
        Some(Self {
            id: written.id,
            namespace,
            identity: Arc::new(Identity { user, claims: "{}".into(), expiry: None, grants }),
            rooms: written.rooms,
            provenances,
            decided_on,
            changes: Changes::known(floor, changes),
            start: Offset::parse(&written.start)?,
            last: Position::parse(&written.last)?,
            at: Position::parse(&written.at)?,
            moves: written.moves,
        })
    }
}

pub(super) fn change_to_text(change: &Change) -> (String, Room, bool) {
    (change.after.to_string(), change.room.clone(), change.joined)
}

fn change_from_text((after, room, joined): (String, Room, bool)) -> Option<Change> {
    Some(Change { after: Position::parse(&after)?, room, joined })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::offset::Epoch;
    use crate::model::partition::Line;
    use serde_json::json;

    #[test]
    fn read_back_as_written() {
        let at = |ms| Position { ms, seq: 1 };
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
                changes: Changes::known(at(1), [Change { after: at(2), room: "a".into(), joined: true }]),
                start: Offset { epoch: Epoch(7), position: at(1), line: Line::CONTROL },
                last: at(2),
                at: at(3),
                moves: 2,
            };
            let read = Parked::from_record(&parked.to_record(), parked.namespace).unwrap();
            assert_eq!((&read.identity, &read.changes), (&parked.identity, &parked.changes));
            assert!(read.memberships().eq(parked.memberships()));
            assert_eq!(read.deciding_claims(), parked.deciding_claims());
            assert_eq!((read.id, &read.rooms, read.start), (parked.id, &parked.rooms, parked.start));
            assert_eq!((read.last, read.at, read.moves), (parked.last, parked.at, parked.moves));
        }
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
