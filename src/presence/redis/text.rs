//! Facts, announcements and the script's answers as text (sans-IO).

use crate::log::redis::{entry_fields, read_event};
use crate::model::draft::{Draft, DraftLimits};
use crate::model::names::{Namespace, Room};
use crate::model::offset::Position;
use crate::presence::{Fact, Inside, Transition, TransitionKind};

/// Announcements were checked when their templates were filled.
const ANY_DRAFT: DraftLimits = DraftLimits { max_event: 1 << 30, room_name_bytes: 1 << 20, rooms: 1 << 10 };

/// A draft as a JSON list of the fields of an entry, with `after` where something on another line of the log comes before
/// it.
pub(super) fn fields(draft: &Draft, after: Option<String>) -> String {
    let mut fields = entry_fields(draft);
    fields.extend(after.into_iter().flat_map(|after| ["after".to_owned(), after]));
    serde_json::to_string(&fields).expect("texts are always JSON")
}

pub(super) fn fact_text(fact: &Fact) -> String {
    match fact {
        Fact::Online(user) => format!("u\n{user}"),
        Fact::Inside(inside) => {
            let Inside { namespace, room, user } = &**inside;
            let user = user.as_ref().map_or_else(String::new, |user| format!("={user}"));
            format!("r\n{namespace}\n{room}\n{user}")
        }
    }
}

/// The key that holds a fact.
pub(super) fn place_key(fact: &Fact) -> String {
    match fact {
        Fact::Online(user) => format!("user:{user}"),
        Fact::Inside(inside) => format!("room:{}\n{}", inside.namespace, inside.room),
    }
}

pub(super) fn read_fact(text: &str) -> Option<Fact> {
    let mut parts = text.split('\n');
    match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
        ("u", user, None, None) => Some(Fact::Online(user.into())),
        ("r", namespace, Some(room), Some(user)) => {
            let user = user.strip_prefix('=').map(Into::into);
            Some(Fact::inside(namespace.into(), room.into(), user))
        }
        _ => None,
    }
}

/// The answer to a step.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reply {
    pub(super) transitions: Vec<Transition>,
    pub(super) events: u64,
    pub(super) more: bool,
    pub(super) at_ms: u64,
    /// Of the last of the events.
    pub(super) newest: Option<Position>,
    /// Announcements that the stream did not take.
    pub(super) unannounced: Vec<Draft>,
    /// Contents of keys that were removed because no node can have written them.
    pub(super) repaired: u64,
    /// Announcements that were left out because the room is too large.
    pub(super) silent: u64,
}

/// `<events> <1 if more> <now> <position of the last of the events>`, then a line for each transition and for what else is
/// to be said, its parts with tabs between.
pub(super) fn read_reply(text: &str) -> Option<Reply> {
    let mut lines = text.lines();
    let mut head = lines.next()?.split(' ');
    let mut reply = Reply { events: head.next()?.parse().ok()?, ..Reply::default() };
    reply.more = head.next()? == "1";
    reply.at_ms = head.next()?.parse().ok()?;
    reply.newest = head.next().and_then(Position::parse);
    for line in lines {
        match line.split_once('\t')? {
            ("unannounced", json) => reply.unannounced.extend(read_fields(json)),
            ("repaired", count) => reply.repaired = count.parse().ok()?,
            ("silent", count) => reply.silent = count.parse().ok()?,
            _ => reply.transitions.push(Transition { kind: read_transition(line)?, at_ms: reply.at_ms }),
        }
    }
    Some(reply)
}

/// The draft in a JSON list of the fields of an entry; `None` where it is not one that a node has written.
fn read_fields(json: &str) -> Option<Draft> {
    let texts: Vec<String> = serde_json::from_str(json).ok()?;
    let fields: Vec<_> = texts.chunks_exact(2).map(|pair| (pair[0].clone().into(), pair[1].clone().into())).collect();
    read_event(&fields, &ANY_DRAFT).ok()?
}

fn read_transition(line: &str) -> Option<TransitionKind> {
    let parts: Vec<&str> = line.split('\t').collect();
    let place = |namespace: &str, room: &str| (Namespace::from(namespace), Room::from(room));
    match parts[..] {
        ["online", user] => Some(TransitionKind::Online(user.to_owned())),
        ["offline", user, seen] => Some(TransitionKind::Offline(user.to_owned(), seen.parse().ok()?)),
        ["occupied", namespace, room] => {
            let (namespace, room) = place(namespace, room);
            Some(TransitionKind::Occupied(namespace, room))
        }
        ["vacated", namespace, room] => {
            let (namespace, room) = place(namespace, room);
            Some(TransitionKind::Vacated(namespace, room))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_they_were_written() {
        let inside = |user: Option<&str>| Fact::inside("/chat".into(), "a:b = c".into(), user.map(Into::into));
        for fact in [Fact::Online("7".into()), Fact::Online("=".into()), inside(None), inside(Some("=x"))] {
            assert_eq!(read_fact(&fact_text(&fact)), Some(fact));
        }
        assert_eq!(read_fact("r\n/"), None);
    }

    #[test]
    fn replies_are_read() {
        let read = read_reply(
            "2 1 1700 1699-1\nonline\t7\noffline\t8\t1600\noccupied\t/\ta:b\nrepaired\t3\nvacated\t/c\tx y\nsilent\t4",
        );
        let kinds = [
            TransitionKind::Online("7".into()),
            TransitionKind::Offline("8".into(), 1600),
            TransitionKind::Occupied("/".into(), "a:b".into()),
            TransitionKind::Vacated("/c".into(), "x y".into()),
        ];
        let transitions = kinds.map(|kind| Transition { kind, at_ms: 1700 }).to_vec();
        let newest = Position::parse("1699-1");
        let reply = Reply {
            transitions,
            events: 2,
            more: true,
            at_ms: 1700,
            newest,
            repaired: 3,
            silent: 4,
            ..Reply::default()
        };
        assert_eq!(read, Some(reply));
        assert_eq!(read_reply("0 0 1"), Some(Reply { at_ms: 1, ..Reply::default() }));
        let unannounced = read_reply(
            "0 0 1\nunannounced\t[\"room\",\"a\",\"event\",\"e\",\"args\",\"[]\",\"t\",\"5\"]\nunannounced\tx",
        );
        assert_eq!(&*unannounced.unwrap().unannounced[0].event, "e");
        assert_eq!(read_reply("0 0 1\nonline"), None);
    }
}
