//! What the backend answers. Sans-IO.

use crate::backend::BackendError;
use crate::model::args::Args;
use crate::model::draft::{Draft, DraftLimits, Source, check_room_name};
use crate::model::id::Id;
use crate::model::names::{Namespace, Room};
use crate::protocol::json_text::{Name, Text};
use crate::protocol::socketio_encode::check_draft;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::sync::Arc;

/// Things that one answer may ask for, of each kind.
const MOST: usize = 100;

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

#[derive(Default, Deserialize)]
#[serde(expecting = "an object")]
struct RawEvent<'a> {
    #[serde(borrow)]
    ack: Option<&'a RawValue>,
    error: Option<Text>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    reply: Vec<RawMessage<'a>>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    emit: Vec<RawEmit<'a>>,
    #[serde(default, deserialize_with = "or_null")]
    join: Vec<Name>,
    #[serde(default, deserialize_with = "or_null")]
    leave: Vec<Name>,
}

/// `null` is a list that was never made: how Go, Java and C# write one.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct RawMessage<'a> {
    event: Text,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The keys of a publish: what is written there is meant here too, and a key that were ignored might have kept an event
/// from somebody.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct RawEmit<'a> {
    room: Option<Name>,
    rooms: Option<Vec<Name>>,
    #[serde(default, deserialize_with = "or_null")]
    except: Vec<Name>,
    volatile: Option<bool>,
    event: Text,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawDecision {
    allow: bool,
    error: Option<Text>,
}

/// An error that says something: typed languages write an empty one for none.
fn said(error: Option<Text>) -> Option<String> {
    error.map(|Text(error)| error).filter(|error| !error.is_empty())
}

fn bad(why: impl std::fmt::Display) -> BackendError {
    BackendError::BadAnswer(why.to_string())
}

/// Reads the answer to a `join`.
///
/// # Errors
/// Its refusal, or that it is no decision.
pub fn read_decision(body: &[u8]) -> Result<(), BackendError> {
    match serde_json::from_slice(body).map_err(bad)? {
        RawDecision { allow: true, .. } => Ok(()),
        RawDecision { error, .. } => {
            let error = said(error).unwrap_or_else(|| "not allowed to join this room".into());
            Err(BackendError::Refused(error))
        }
    }
}

/// Reads the answer to an `event`; an empty body asks for nothing.
///
/// # Errors
/// Its error, or that it is not of the contract's form.
pub fn read_event(body: &[u8], namespace: &Namespace, limits: &DraftLimits) -> Result<EventAnswer, BackendError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(EventAnswer::default());
    }
    let raw: RawEvent<'_> = serde_json::from_slice(body).map_err(bad)?;
    if let Some(error) = said(raw.error) {
        return Err(BackendError::Refused(error));
    }
    if [raw.reply.len(), raw.emit.len(), raw.join.len(), raw.leave.len()].into_iter().any(|count| count > MOST) {
        return Err(bad(format!("more than {MOST} items in one list")));
    }
    let ack = raw.ack.map(|ack| Args::list(ack.get())).transpose().map_err(bad)?;
    let checked = |draft: Draft| check_draft(&draft, limits).map(|()| draft).map_err(bad);
    let reply = raw.reply.iter().map(|message| {
        let args = read_args(message.args, message.data)?;
        checked(Draft::new("r", &message.event.0, args, Source::Backend)).map(|draft| (draft.event, draft.args))
    });
    let emit = raw.emit.into_iter().map(|emit| checked(read_emit(emit, namespace)?));
    let rooms = |names: Vec<Name>| names.into_iter().map(Room::from).collect::<Vec<_>>();
    let (join, leave) = (rooms(raw.join), rooms(raw.leave));
    for room in join.iter().chain(&leave) {
        check_room_name(room, limits.room_name_bytes).map_err(bad)?;
        // A backend that passes on what a client sent must not let it hear another session.
        if Id::parse(room).is_some_and(|id| id.is_session()) {
            return Err(bad("`join` and `leave` take no session's own room"));
        }
    }
    Ok(EventAnswer { ack, reply: reply.collect::<Result<_, _>>()?, emit: emit.collect::<Result<_, _>>()?, join, leave })
}

fn read_args(args: Option<&RawValue>, data: Option<&RawValue>) -> Result<Args, BackendError> {
    match (args, data) {
        (Some(_), Some(_)) => Err(bad("`data` and `args` exclude each other")),
        (Some(args), None) => Args::list(args.get()).map_err(bad),
        (None, Some(data)) => Args::one(data.get()).map_err(bad),
        (None, None) => Ok(Args::none()),
    }
}

fn read_emit(emit: RawEmit<'_>, namespace: &Namespace) -> Result<Draft, BackendError> {
    let rooms = match (emit.room.filter(|room| !room.0.is_empty()), emit.rooms.filter(|rooms| !rooms.is_empty())) {
        (Some(_), Some(_)) => return Err(bad("`room` and `rooms` exclude each other")),
        (Some(room), None) => vec![room],
        (None, rooms) => rooms.ok_or_else(|| bad("an `emit` without `room`"))?,
    };
    Ok(Draft {
        namespace: namespace.clone(),
        rooms: rooms.into_iter().map(Room::from).collect(),
        except: emit.except.into_iter().map(Room::from).collect(),
        event: emit.event.0.into(),
        args: read_args(emit.args, emit.data)?,
        volatile: emit.volatile.unwrap_or(false),
        id: None,
        source: Source::Backend,
    })
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
        for garbage in ["", "{}", "true", "[]", "<html>", "{\"allow\":\"yes\"}", "{\"allow\":1}"] {
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
        let zeroed = r#"{"room":"","rooms":["a"],"except":null,"volatile":null,"event":"e","data":1,"args":null}"#;
        let zeroed = read(&format!("{{\"error\":\"\",\"emit\":[{zeroed}],\"join\":[42.0,7]}}")).unwrap();
        assert_eq!((&*zeroed.emit[0].rooms[0], zeroed.emit[0].args.as_array()), ("a", "[1]"));
        assert_eq!((&*zeroed.join[0], &*zeroed.join[1]), ("42", "7"));
        for garbage in [
            "[]",
            "{",
            "{\"ack\":1}",
            "{\"ack\":{}}",
            "{\"emit\":[{\"event\":\"b\"}]}",
            "{\"reply\":[{\"event\":\"disconnect\"}]}",
            "{\"emit\":[{\"room\":\"r\",\"event\":\"b\",\"args\":{}}]}",
            "{\"join\":[\"\"]}",
            "{\"emit\":[{\"room\":\"r\",\"event\":\"b\",\"excpet\":[]}]}",
            "{\"emit\":[{\"room\":\"r\",\"rooms\":[\"s\"],\"event\":\"b\"}]}",
            "{\"reply\":[{\"event\":\"b\",\"args\":[],\"data\":1}]}",
            "{\"join\":[\"far too long for a name\"]}",
            "{\"join\":\"a\"}",
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
