//! Server-Sent Events: blocks of a stream, and the query that opens one.

use crate::model::event::Event;
use crate::model::place;
use crate::model::place::Place;
use crate::protocol::engineio::MAX_TOKEN;
use crate::protocol::query;
use crate::protocol::raw_json::Quoted;
use crate::protocol::socketio_encode::OffsetText;
use bytes::Bytes;
use std::time::Duration;

/// Rooms of one stream. `limits.rooms_per_session` may allow fewer.
pub const MAX_ROOMS: usize = 1000;
/// Bytes of a room's name that are kept. Joining checks `limits.room_name_bytes`.
const MAX_ROOM: usize = 1024;
/// Bytes of an offset that are kept. A longer text is not an offset.
const MAX_OFFSET: usize = place::MAX_TEXT + 1;

/// An event: its offset as `id`, its name, and its argument as JSON. Several arguments are an array, none is `null`.
pub fn event_block(event: &Event) -> Bytes {
    event_block_at(event, OffsetText::default().write(&event.offset))
}

/// The same with the text of a place.
pub fn event_block_at(event: &Event, offset: &str) -> Bytes {
    let args = &event.draft.args;
    let data = if args.is_empty() { "null" } else { args.single().unwrap_or(args.as_array()) };
    // Another line costs "data: " and a newline, minus the line end that it replaces.
    let breaks = data.bytes().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    let size = offset.len() + event.draft.event.len() + data.len() + breaks * 6 + 22;
    let mut out = String::with_capacity(size);
    out.push_str("id: ");
    out.push_str(offset);
    out.push_str("\nevent: ");
    out.extend(event.draft.event.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
    out.push('\n');
    push_data(&mut out, data);
    out.push('\n');
    out.into()
}

/// `data:` for each line. JSON may have line ends between its tokens, and clients join the lines again.
fn push_data(out: &mut String, data: &str) {
    let mut rest = data;
    while let Some(end) = rest.find(['\n', '\r']) {
        push_line(out, &rest[..end]);
        rest = rest[end..].strip_prefix("\r\n").unwrap_or(&rest[end + 1..]);
    }
    push_line(out, rest);
}

fn push_line(out: &mut String, line: &str) {
    out.push_str("data: ");
    out.push_str(line);
    out.push('\n');
}

/// Tells that events may be missing: `event: gap` with `{"reason":…}`. It has no `id`.
pub fn gap_block(reason: &str) -> Bytes {
    format!("event: gap\ndata: {{\"reason\":{}}}\n\n", Quoted(reason)).into()
}

/// Like [`gap_block`], with an `id`, so that a reconnect resumes from here and does not report the same gap again.
pub fn gap_block_at(reason: &str, place: &Place) -> Bytes {
    format!("id: {place}\nevent: gap\ndata: {{\"reason\":{}}}\n\n", Quoted(reason)).into()
}

/// Sets the resume point without an event: browsers store an `id` alone and dispatch nothing.
pub fn id_block(place: &Place) -> Bytes {
    format!("id: {place}\n\n").into()
}

/// Shortest wait before a reconnect. A client keeps the last value for all later reconnects, so with a shorter one it
/// would retry in a tight loop while it is refused.
pub const MIN_RETRY: Duration = Duration::from_secs(1);

/// Sets how long the client waits before this and later reconnects; at least [`MIN_RETRY`].
pub fn retry_block(wait: Duration) -> Bytes {
    format!("retry: {}\n\n", wait.max(MIN_RETRY).as_millis()).into()
}

/// A comment, which keeps proxies from closing an idle stream.
pub fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// The query of `GET /sse?…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Each `room` once, in order. A name over 1024 bytes is cut, and is refused for its length.
    pub rooms: Vec<String>,
    /// The first `token`; `None`: missing or empty.
    pub token: Option<String>,
    /// `lastEventId`, `Last-Event-ID` or `last_event_id`, which polyfills write that cannot set the header.
    pub last_event_id: Option<String>,
}

/// Why a query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// More than [`MAX_ROOMS`].
    #[error("one stream takes at most {MAX_ROOMS} different `room` parameters")]
    TooManyRooms,
}

impl QueryError {
    /// The `code` of the error body.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooManyRooms => "too_many_rooms",
        }
    }
}

impl Query {
    /// Reads a query string, without its `?`.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let (mut rooms, mut token, mut last_event_id) = (Vec::new(), None, None);
        let mut seen = std::collections::HashSet::new();
        for (key, value) in query::pairs(query) {
            match key.as_ref() {
                "room" => {
                    let room = query::bounded(&value, MAX_ROOM);
                    if seen.insert(room.clone()) {
                        rooms.push(room);
                    }
                }
                "token" => drop(token.get_or_insert(value)),
                // A polyfill appends its own to what the page wrote, so the last one is the newest.
                key if is_last_event_id(key) => last_event_id = Some(query::bounded(&value, MAX_OFFSET)),
                _ => {}
            }
        }
        if rooms.len() > MAX_ROOMS {
            return Err(QueryError::TooManyRooms);
        }
        let token = token.filter(|token| !token.is_empty()).map(|token| query::bounded(&token, MAX_TOKEN));
        let last_event_id = last_event_id.filter(|id| !id.is_empty());
        Ok(Self { rooms, token, last_event_id })
    }
}

/// `lastEventId`, `Last-Event-ID`, `last_event_id`, and `evs_last_event_id` of old polyfills.
fn is_last_event_id(key: &str) -> bool {
    let letters = key.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    letters.clone().eq(*b"lasteventid") || letters.eq(*b"evslasteventid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::args::Args;
    use crate::model::draft::{Draft, Source};
    use crate::model::offset::{Epoch, Offset, Position};
    use crate::model::partition::Line;

    fn block(name: &str, args: Args) -> String {
        let offset = Offset { epoch: Epoch(1), position: Position { ms: 2, seq: 3 }, line: Line::CONTROL };
        let event = Event { offset, draft: Draft::new("r", name, args, Source::Http), accepted_us: 0, after: None };
        String::from_utf8(event_block(&event).to_vec()).unwrap()
    }

    #[test]
    fn blocks_hold_offset_name_and_json() {
        let list = |json| block("e", Args::list(json).unwrap());
        assert_eq!(block("chat", Args::one("{\"a\":1}").unwrap()), "id: 1-2-3\nevent: chat\ndata: {\"a\":1}\n\n");
        assert_eq!(list("[1, \"é\"]"), "id: 1-2-3\nevent: e\ndata: [1, \"é\"]\n\n");
        assert_eq!(list("[]"), "id: 1-2-3\nevent: e\ndata: null\n\n");
        assert_eq!(list("[ [1,2] ]"), "id: 1-2-3\nevent: e\ndata: [1,2]\n\n");
    }

    #[test]
    fn line_ends_in_json_cannot_forge_fields() {
        let json = "{\r\n\"a\":\n1,\r\"b\":2}";
        assert_eq!(
            block("e", Args::one(json).unwrap()),
            "id: 1-2-3\nevent: e\ndata: {\ndata: \"a\":\ndata: 1,\ndata: \"b\":2}\n\n"
        );
        assert_eq!(block("e\ndata: x\r", Args::none()), "id: 1-2-3\nevent: e data: x \ndata: null\n\n");
    }

    #[test]
    fn other_blocks() {
        let offset = Offset { epoch: Epoch(1), position: Position { ms: 2, seq: 3 }, line: Line::CONTROL };
        assert_eq!(gap_block("too \"old\""), "event: gap\ndata: {\"reason\":\"too \\\"old\\\"\"}\n\n");
        assert_eq!(gap_block_at("lost", &offset.into()), "id: 1-2-3\nevent: gap\ndata: {\"reason\":\"lost\"}\n\n");
        assert_eq!(id_block(&offset.into()), "id: 1-2-3\n\n");
        assert_eq!(retry_block(Duration::from_millis(1_500)), "retry: 1500\n\n");
        assert_eq!(retry_block(Duration::ZERO), "retry: 1000\n\n");
        assert_eq!(comment(), ":\n\n");
    }

    #[test]
    fn polyfills_write_the_last_event_id_into_the_query() {
        let last = |query: &str| Query::parse(query).unwrap().last_event_id;
        for key in ["lastEventId", "Last-Event-ID", "last_event_id", "last-event-id", "evs_last_event_id"] {
            assert_eq!(last(&format!("room=a&{key}=1-2-3")).as_deref(), Some("1-2-3"), "{key}");
        }
        assert_eq!(last("lastEventId=1-2-3&lastEventId=1-2-4").as_deref(), Some("1-2-4"));
        for none in ["room=a", "lastEventId=", "eventId=1-2-3"] {
            assert_eq!(last(none), None, "{none}");
        }
    }

    #[test]
    fn queries_name_rooms_and_a_token() {
        let query = Query::parse("room=user%3A7&token=a.b.c&room=a+b&room=user:7&token=evil&x=1").unwrap();
        let rooms = vec!["user:7".into(), "a b".into()];
        assert_eq!(query, Query { rooms, token: Some("a.b.c".into()), last_event_id: None });
        assert_eq!(Query::parse("token=").unwrap(), Query::default());
        let many: String = (0..=MAX_ROOMS).map(|n| format!("room={n}&")).collect();
        assert_eq!(Query::parse(&many), Err(QueryError::TooManyRooms));
        assert_eq!(Query::parse(&format!("room={}", "x".repeat(1 << 20))).unwrap().rooms[0].len(), MAX_ROOM);
    }
}
