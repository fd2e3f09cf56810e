//! The keys of an event, the same in bodies of `POST /publish`, stream entries and answers of the backend. One decoder,
//! so that the same mistake gets the same message everywhere. Sans-IO.

use crate::model::args::{Args, ArgsError};
use crate::model::draft::{Draft, DraftError, DraftLimits, Source};
use crate::model::names::{Namespace, Room, main_namespace};
use crate::protocol::json_object;
use crate::protocol::json_text::{SharedText, Text};
use crate::protocol::socketio_encode::check_draft;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::sync::Arc;

/// The keys and their values. Typed languages write every key, so an empty text or list and `null` mean that the key is
/// absent; only a single `"data":null` is an argument.
#[derive(Default)]
pub(crate) struct EventFields<'a> {
    pub room: Option<Room>,
    pub rooms: Option<Vec<Room>>,
    pub except: Option<Vec<Room>>,
    pub event: Option<Arc<str>>,
    /// One argument as JSON text.
    pub data: Option<&'a str>,
    /// All arguments as the text of a JSON array.
    pub args: Option<&'a str>,
    pub namespace: Option<Namespace>,
    pub volatile: Option<bool>,
    pub id: Option<String>,
    /// The events of a batch, which only `POST /publish` takes.
    pub events: Option<Vec<&'a RawValue>>,
    /// Whether `data` and `args` are parts of a JSON text that was parsed, and not too deep.
    pub is_parsed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct JsonFields<'a> {
    room: Option<Room>,
    rooms: Option<Vec<Room>>,
    except: Option<Vec<Room>>,
    event: Option<SharedText>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    namespace: Option<SharedText>,
    volatile: Option<bool>,
    id: Option<Text>,
    #[serde(borrow)]
    events: Option<Vec<&'a RawValue>>,
}

/// `"data":null` is one argument, which is null.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads an object with an error that names the key.
fn with_path(json: &str) -> Result<JsonFields<'_>, DraftError> {
    let mut json = serde_json::Deserializer::from_str(json);
    let fields = serde_path_to_error::deserialize(&mut json).map_err(|error| match error.inner().is_data() {
        true if error.path().iter().next().is_none() => DraftError::Field(error.inner().to_string()),
        true => DraftError::Field(format!("`{}`: {}", error.path(), error.inner())),
        false => DraftError::Json(error.inner().to_string()),
    })?;
    json.end().map_err(|error| DraftError::Json(error.to_string()))?;
    Ok(fields)
}

impl<'a> EventFields<'a> {
    /// Reads a JSON object. An unknown key is an error: if it were ignored, the event could reach sessions that the
    /// misspelled key excludes. The caller has checked the depth.
    ///
    /// # Errors
    /// [`DraftError::Json`] if it is not JSON, else [`DraftError::Field`] with the path of the key.
    pub(crate) fn from_json(json: &'a str) -> Result<Self, DraftError> {
        if let Some(problem) = json_object::problem(json.as_bytes()) {
            return Err(match json.trim_start() {
                "" => DraftError::Json(problem.into()),
                _ => DraftError::Field(problem.into()),
            });
        }
        // Only an error needs its path, which takes longer to find.
        let fields: JsonFields<'_> = serde_json::from_str(json).or_else(|_| with_path(json))?;
        Ok(Self {
            room: fields.room,
            rooms: fields.rooms,
            except: fields.except,
            event: fields.event.map(|SharedText(event)| event),
            data: fields.data.map(RawValue::get),
            args: fields.args.map(RawValue::get),
            namespace: fields.namespace.map(|SharedText(namespace)| namespace),
            volatile: fields.volatile,
            id: fields.id.map(|Text(id)| id),
            events: fields.events,
            is_parsed: true,
        })
    }

    /// The events of a batch; `None` for a single event. An empty list beside an event's name is a zero value.
    ///
    /// # Errors
    /// When there are both events and a key of a single event.
    pub(crate) fn take_batch(&mut self) -> Result<Option<Vec<&'a RawValue>>, DraftError> {
        let has_name = self.event.as_ref().is_some_and(|event| !event.is_empty());
        let Some(events) = self.events.take().filter(|events| !(events.is_empty() && has_name)) else {
            return Ok(None);
        };
        if has_name {
            return Err(not_both("events", "event"));
        }
        if self.data.is_some_and(|data| data != "null") {
            return Err(not_both("events", "data"));
        }
        if self.args.is_some_and(|args| args != "null" && !is_empty_list(args)) {
            return Err(not_both("events", "args"));
        }
        self.check_keys(&[])?;
        Ok(Some(events))
    }

    /// Refuses keys that have no meaning here, unless they have the zero value of a typed language.
    ///
    /// # Errors
    /// The first key that is present and not `allowed`.
    pub(crate) fn check_keys(&self, allowed: &[&str]) -> Result<(), DraftError> {
        let present = [
            ("room", self.room.as_ref().is_some_and(|room| !room.is_empty())),
            ("rooms", self.rooms.as_ref().is_some_and(|rooms| !rooms.is_empty())),
            ("except", self.except.as_ref().is_some_and(|rooms| !rooms.is_empty())),
            ("namespace", self.namespace.as_ref().is_some_and(|name| !name.is_empty())),
            ("volatile", self.volatile == Some(true)),
            ("id", self.id.as_ref().is_some_and(|id| !id.is_empty())),
            ("events", self.events.as_ref().is_some_and(|events| !events.is_empty())),
        ];
        match present.into_iter().find(|(key, is_present)| *is_present && !allowed.contains(key)) {
            Some((key, _)) => Err(DraftError::Field(format!("unknown field `{key}`"))),
            None => Ok(()),
        }
    }

    /// The draft that the keys describe, checked against the limits.
    ///
    /// # Errors
    /// What is missing, contradictory or over a limit.
    pub(crate) fn into_draft(self, source: Source, limits: &DraftLimits) -> Result<Draft, DraftError> {
        if self.events.is_some_and(|events| !events.is_empty()) {
            return Err(DraftError::Field("unknown field `events`".into()));
        }
        let rooms = self.rooms.filter(|rooms| !rooms.is_empty());
        let room = self.room.filter(|room| rooms.is_none() || !room.is_empty());
        let rooms = match (room, rooms) {
            (Some(_), Some(_)) => return Err(not_both("room", "rooms")),
            (Some(room), None) => vec![room],
            // No rooms at all are refused by `check_draft`.
            (None, rooms) => rooms.unwrap_or_default(),
        };
        let draft = Draft {
            namespace: self.namespace.filter(|name| !name.is_empty()).unwrap_or_else(main_namespace),
            rooms,
            except: self.except.unwrap_or_default(),
            event: self.event.ok_or_else(|| DraftError::Field("`event` is missing".into()))?,
            args: arguments(self.data, self.args, self.is_parsed)?,
            volatile: self.volatile.unwrap_or(false),
            id: self.id.filter(|id| !id.is_empty()),
            source,
            trace: None,
        };
        check_draft(&draft, limits)?;
        Ok(draft)
    }
}

/// The arguments in `data` or `args`; neither means none. Of two zero values, `args` is the one that says "none".
fn arguments(data: Option<&str>, args: Option<&str>, is_parsed: bool) -> Result<Args, DraftError> {
    match (data, args.filter(|args| *args != "null")) {
        (None | Some("null"), Some(args)) => list_of_arguments(args),
        (Some(_), Some(args)) if !is_empty_list(args) => Err(not_both("data", "args")),
        (Some(data), _) if is_parsed => Ok(Args::parsed(data)),
        (Some(data), _) => Args::one(data).map_err(|error| DraftError::Json(format!("`data`: {error}"))),
        (None, None) => Ok(Args::none()),
    }
}

fn list_of_arguments(args: &str) -> Result<Args, DraftError> {
    Args::list(args).map_err(|error: ArgsError| match args.trim_start().starts_with('[') {
        true => DraftError::Json(format!("`args`: {error}")),
        false => DraftError::Field("`args` must be a list of arguments".into()),
    })
}

/// Whether a JSON text is `[]`, perhaps with white space.
pub(crate) fn is_empty_list(json: &str) -> bool {
    let inside = json.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|inside| inside.trim().is_empty())
}

fn not_both(one: &str, other: &str) -> DraftError {
    DraftError::Field(format!("give `{one}` or `{other}`, not both"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DraftLimits = DraftLimits { max_event: 1_000, room_name_bytes: 200, rooms: 100 };

    fn draft(json: &str) -> Result<Draft, DraftError> {
        EventFields::from_json(json)?.into_draft(Source::Http, &LIMITS)
    }

    #[test]
    fn null_means_absent_except_as_the_one_argument() {
        let args = |json: &str| draft(json).map(|draft| draft.args.as_array().to_owned());
        assert_eq!(args(r#"{"room":"r","event":"e","data":null}"#).unwrap(), "[null]");
        assert_eq!(args(r#"{"room":"r","event":"e","data":null,"args":[1]}"#).unwrap(), "[1]");
        assert_eq!(args(r#"{"room":"r","event":"e","data":1,"args":null}"#).unwrap(), "[1]");
        assert_eq!(args(r#"{"room":"r","event":"e","data":1,"args":[ ]}"#).unwrap(), "[1]");
        assert_eq!(args(r#"{"room":"r","event":"e","data":null,"args":[]}"#).unwrap(), "[]");
        assert_eq!(args(r#"{"room":"r","event":"e","events":null}"#).unwrap(), "[]");
        let nulls = r#"{"room":"r","rooms":null,"except":null,"event":"e","namespace":null,"volatile":null,"id":null}"#;
        assert_eq!(draft(nulls).unwrap(), Draft::new("r", "e", Args::none(), Source::Http));
    }

    #[test]
    fn messages_name_the_key() {
        for (message, json) in [
            ("give `room` or `rooms`, not both", r#"{"room":"r","rooms":["s"],"event":"e"}"#),
            ("give `data` or `args`, not both", r#"{"room":"r","event":"e","data":1,"args":[2]}"#),
            ("`args` must be a list of arguments", r#"{"room":"r","event":"e","args":{}}"#),
            ("`event` is missing", r#"{"room":"r"}"#),
            ("give `room` or `rooms`, not both", r#"{"room":"r","rooms":["s"],"event":"e"}"#),
        ] {
            assert_eq!(draft(json).unwrap_err().to_string(), message);
        }
        assert_eq!(draft(r#"{"room":"r","event":"e","colour":1}"#).unwrap_err().code(), "bad_field");
        let fields = EventFields::from_json(r#"{"event":"e","id":"x"}"#).unwrap();
        assert_eq!(fields.check_keys(&["room"]).unwrap_err().to_string(), "unknown field `id`");
        let events = r#"{"room":"r","event":"e","events":[1]}"#;
        assert_eq!(draft(events).unwrap_err().to_string(), "unknown field `events`");
    }
}
