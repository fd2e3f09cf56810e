//! Answers of the backend (docs/backend.md, "Requests and answers"). Sans-IO.

use crate::backend::BackendError;
use crate::model::args::{Args, MAX_JSON_DEPTH, is_too_deep};
use crate::model::draft::{Draft, DraftError, DraftLimits, Source, check_room_name};
use crate::model::id::Id;
use crate::model::names::{Namespace, Room};
use crate::protocol::event_fields::EventFields;
use crate::protocol::json_object;
use crate::protocol::json_text::Text;
use crate::protocol::socketio_encode::check_args;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// Items in each list of one answer.
const MAX_ITEMS: usize = 100;

/// The answer to an event, checked.
#[derive(Debug, Default)]
pub struct EventAnswer {
    /// The acknowledgement's arguments.
    pub ack: Option<Args>,
    /// Events for the caller alone: name and arguments.
    pub reply: Vec<(Arc<str>, Args)>,
    /// Events for rooms.
    pub emit: Vec<Draft>,
    /// Rooms that the session joins, whatever the rules say.
    pub join: Vec<Room>,
    /// Rooms that it leaves.
    pub leave: Vec<Room>,
}

/// A list may be `null`: Go, Java and C# write an empty list like that.
#[derive(Default, Deserialize)]
#[serde(expecting = "an object")]
struct RawEvent<'a> {
    #[serde(borrow)]
    ack: Option<&'a RawValue>,
    error: Option<Text>,
    #[serde(borrow)]
    reply: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    emit: Option<Vec<&'a RawValue>>,
    join: Option<Vec<Room>>,
    leave: Option<Vec<Room>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawDecision {
    allow: bool,
    error: Option<Text>,
}

fn bad(reason: impl std::fmt::Display) -> BackendError {
    BackendError::BadAnswer(reason.to_string())
}

/// The backend's own words, where there are any: typed languages write an empty text for none.
fn error_text(error: Option<Text>) -> Option<String> {
    error.map(|Text(error)| error).filter(|error| !error.is_empty())
}

/// Reads the answer to a `join`.
///
/// # Errors
/// The refusal, or what is wrong with the answer.
pub fn read_decision(body: &[u8]) -> Result<(), BackendError> {
    match json_object::read(body).map_err(bad)? {
        RawDecision { allow: true, .. } => Ok(()),
        RawDecision { error, .. } => {
            Err(BackendError::Refused(error_text(error).unwrap_or_else(|| "not allowed to join this room".into())))
        }
    }
}

/// Reads the answer to an `event`. An empty body asks for nothing.
///
/// # Errors
/// The answer's `error`, or what is wrong with the answer.
pub fn read_event(body: &[u8], namespace: &Namespace, limits: &DraftLimits) -> Result<EventAnswer, BackendError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(EventAnswer::default());
    }
    let body = std::str::from_utf8(body).map_err(bad)?;
    if is_too_deep(body) {
        return Err(bad(format!("nested deeper than {MAX_JSON_DEPTH} levels")));
    }
    let raw: RawEvent<'_> = json_object::read(body.as_bytes()).map_err(bad)?;
    if let Some(error) = error_text(raw.error) {
        return Err(BackendError::Refused(error));
    }
    let (reply, emit) = (raw.reply.unwrap_or_default(), raw.emit.unwrap_or_default());
    let (join, leave) = (raw.join.unwrap_or_default(), raw.leave.unwrap_or_default());
    if [reply.len(), emit.len(), join.len(), leave.len()].into_iter().any(|count| count > MAX_ITEMS) {
        return Err(bad(format!("more than {MAX_ITEMS} items in one list")));
    }
    for room in join.iter().chain(&leave) {
        check_room_name(room, limits.room_name_bytes).map_err(bad)?;
        // A backend that passes on what a client sent must not let it listen to another session.
        if Id::parse(room).is_some_and(|id| id.is_session()) {
            return Err(bad("`join` and `leave` must not name a session's own room"));
        }
    }
    let ack = raw.ack.map(|ack| Args::list(ack.get())).transpose().map_err(|error| bad(format!("`ack`: {error}")))?;
    ack.as_ref().map(check_args).transpose().map_err(|error| bad(format!("`ack`: {error}")))?;
    Ok(EventAnswer {
        ack,
        reply: read_items("reply", &reply, |fields| read_reply(fields, limits))?,
        emit: read_items("emit", &emit, |fields| read_emit(fields, namespace, limits))?,
        join,
        leave,
    })
}

fn read_items<T>(
    list: &str,
    items: &[&RawValue],
    read: impl Fn(EventFields<'_>) -> Result<T, DraftError>,
) -> Result<Vec<T>, BackendError> {
    let read_one = |(index, item): (usize, &&RawValue)| {
        let fields = EventFields::from_json(item.get()).map(|fields| EventFields {
            // A field that was never set, not an argument.
            data: fields.data.filter(|data| *data != "null"),
            ..fields
        });
        fields.and_then(&read).map_err(|error| bad(format!("{list}[{index}]: {error}")))
    };
    items.iter().enumerate().map(read_one).collect()
}

fn read_reply(fields: EventFields<'_>, limits: &DraftLimits) -> Result<(Arc<str>, Args), DraftError> {
    fields.check_keys(&[])?;
    // It goes to the caller alone; the room only completes the draft.
    let draft = EventFields { room: Some("r".into()), ..fields }.into_draft(Source::Backend, limits)?;
    Ok((draft.event, draft.args))
}

fn read_emit(fields: EventFields<'_>, namespace: &Namespace, limits: &DraftLimits) -> Result<Draft, DraftError> {
    fields.check_keys(&["room", "rooms", "except", "volatile"])?;
    EventFields { namespace: Some(namespace.clone()), ..fields }.into_draft(Source::Backend, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DraftLimits = DraftLimits { max_event: 100, room_name_bytes: 20, rooms: 5 };

    #[test]
    fn decisions() {
        assert_eq!(read_decision(b"{\"allow\":true}"), Ok(()));
        assert_eq!(
            read_decision(b"{\"allow\":false,\"error\":\"banned\"}"),
            Err(BackendError::Refused("banned".into()))
        );
        for garbage in ["", "{}", "true", "[]", "[true,null]", "<html>", "{\"allow\":\"yes\"}", "{\"allow\":1}"] {
            assert!(matches!(read_decision(garbage.as_bytes()), Err(BackendError::BadAnswer(_))), "{garbage}");
        }
    }

    #[test]
    fn answers_to_events() {
        let read = |body: &str| read_event(body.as_bytes(), &"/chat".into(), &LIMITS);
        assert!(read(" ").unwrap().ack.is_none());
        let whole = read(
            r#"{"ack":[{"ok":1.50}],"reply":[{"event":"a","args":[1]}],"emit":[{"room":"r:1","event":"b"}],"join":["x"],"leave":["y"]}"#,
        )
        .unwrap();
        assert_eq!(whole.ack.unwrap().as_array(), "[{\"ok\":1.50}]");
        assert_eq!((&*whole.reply[0].0, whole.reply[0].1.as_array()), ("a", "[1]"));
        assert_eq!((&*whole.emit[0].rooms[0], &*whole.emit[0].namespace), ("r:1", "/chat"));
        assert_eq!((&*whole.join[0], &*whole.leave[0]), ("x", "y"));
        let emit = r#"{"rooms":["a","b"],"except":["c"],"volatile":true,"event":"e","data":{"n":1.0}}"#;
        let emit = read(&format!("{{\"emit\":[{emit}]}}")).unwrap().emit.remove(0);
        assert_eq!((emit.rooms.len(), emit.except.len(), emit.volatile), (2, 1, true));
        assert_eq!(emit.args.as_array(), "[{\"n\":1.0}]");
        let nothing = read(r#"{"ack":null,"error":null,"reply":null,"emit":null,"join":null,"leave":null}"#).unwrap();
        assert!(
            nothing.ack.is_none() && nothing.reply.is_empty() && nothing.emit.is_empty() && nothing.join.is_empty()
        );
        assert_eq!(read("null").unwrap_err(), bad("invalid type: null, expected an object at line 1 column 4"));
        assert_eq!(read("{\"error\":\"no\"}").unwrap_err(), BackendError::Refused("no".into()));
        let error = read(r#"{"emit":[{"room":"r","event":"e"},{"room":"r"}]}"#).unwrap_err().to_string();
        assert!(error.ends_with("emit[1]: `event` is missing"), "{error}");
        let zeroed = r#"{"room":"","rooms":["a"],"except":null,"volatile":null,"event":"e","data":1,"args":null}"#;
        let zeroed = read(&format!("{{\"error\":\"\",\"emit\":[{zeroed}],\"join\":[\"42\"]}}")).unwrap();
        assert_eq!((&*zeroed.emit[0].rooms[0], zeroed.emit[0].args.as_array()), ("a", "[1]"));
        assert_eq!(&*zeroed.join[0], "42");
        for garbage in [
            "[]",
            "[null,null,null,null,null,null]",
            "{",
            "{\"ack\":1}",
            "{\"ack\":{}}",
            "{\"ack\":[{\"$binary\":\"?\"}]}",
            "{\"reply\":[{\"event\":\"b\",\"data\":{\"$binary\":\"?\"}}]}",
            "{\"emit\":[{\"event\":\"b\"}]}",
            "{\"reply\":[{\"event\":\"disconnect\"}]}",
            "{\"emit\":[{\"room\":\"r\",\"event\":\"b\",\"args\":{}}]}",
            "{\"join\":[\"\"]}",
            "{\"emit\":[{\"room\":\"r\",\"event\":\"b\",\"excpet\":[]}]}",
            "{\"emit\":[{\"room\":\"r\",\"event\":\"b\",\"namespace\":\"/\"}]}",
            "{\"reply\":[{\"room\":\"r\",\"event\":\"b\"}]}",
            "{\"emit\":[{\"room\":\"r\",\"rooms\":[\"s\"],\"event\":\"b\"}]}",
            "{\"reply\":[{\"event\":\"b\",\"args\":[2],\"data\":1}]}",
            "{\"join\":[\"far too long for a name\"]}",
            "{\"join\":\"a\"}",
            "{\"join\":[7]}",
            "{\"emit\":[{\"room\":7,\"event\":\"b\"}]}",
        ] {
            assert!(matches!(read(garbage), Err(BackendError::BadAnswer(_))), "{garbage}");
        }
        for list in ["join", "leave"] {
            let session = format!("{{\"{list}\":[\"{}\"]}}", Id::random_session());
            assert!(matches!(read(&session), Err(BackendError::BadAnswer(_))), "a session's own room");
        }
        let many = format!("{{\"join\":[{}\"a\"]}}", "\"a\",".repeat(100));
        assert!(matches!(read(&many), Err(BackendError::BadAnswer(_))));
    }
}
