//! The fields of a stream entry, read and written. Sans-IO.
//!
//! | field | meaning |
//! |---|---|
//! | `room` or `rooms` | a name as plain text, or names as a JSON array |
//! | `event` | the event's name |
//! | `data` or `args` | one argument, or a JSON array of them; neither is no argument |
//! | `except` | room names as a JSON array |
//! | `namespace` | the default is `/` |
//! | `volatile` | `true` or `false`; ours never get into the stream |
//! | `id` | idempotency id |
//! | `t` | ours alone: when a node accepted it, Unix microseconds |
//! | `src` | ours alone: the source's metric label where it is not `http` |
//! | `order` | ours alone, and then the only field: an [`SessionCommand`] as JSON |
//! | `probe` | ours alone, and then the only field: an [`Id`] that health waits for |
//!
//! Unknown and repeated fields are errors: what a publisher misspelled must not be lost in silence. An empty value means that
//! the field is absent, but for `room` and `event`: typed languages write every field.

use crate::model::args::{Args, ArgsError};
use crate::model::command::{Action, MAX_ROOMS, SessionCommand};
use crate::model::draft::{Draft, DraftError, DraftLimits, Source, check_room_name};
use crate::model::id::Id;
use crate::model::names::{MAIN_NAMESPACE, Room};
use crate::model::offset::Position;
use crate::protocol::json_text::Name;
use crate::protocol::socketio_encode::check_draft;
use redis::{Arg, Cmd};

/// An entry as Redis gives it.
#[derive(Debug)]
pub(super) struct RawEntry {
    /// Its id.
    pub position: Position,
    /// Its fields in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl RawEntry {
    /// Bytes of all names and values.
    pub(super) fn bytes(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// What an entry means.
#[derive(Debug)]
pub(super) enum Entry {
    /// An event, and when a node accepted it (Unix microseconds), if one did.
    Event(Draft, Option<u64>),
    /// An order to sessions.
    SessionCommand(SessionCommand),
    /// A probe of some node.
    Probe(Id),
}

/// Reads an entry's fields.
pub(super) fn decode(fields: &[(Vec<u8>, Vec<u8>)], limits: &DraftLimits) -> Result<Entry, DraftError> {
    if let [(name, value)] = fields
        && name == b"probe"
    {
        let id = std::str::from_utf8(value).ok().and_then(Id::parse);
        return id.map(Entry::Probe).ok_or_else(|| DraftError::Field("`probe` is not an id".into()));
    }
    if let [(name, value)] = fields
        && name == b"order"
    {
        return read_order(value, limits).map(Entry::SessionCommand);
    }
    let fields = Fields::sort(fields)?;
    let accepted_us = fields.accepted_us()?;
    let draft = Draft {
        namespace: fields.namespace.unwrap_or(MAIN_NAMESPACE).into(),
        rooms: fields.rooms(limits)?,
        except: fields.except.map_or(Ok(Vec::new()), |names| room_list("except", names, limits))?,
        event: fields.event.ok_or_else(|| DraftError::Field("field `event` is missing".into()))?.into(),
        args: fields.args(limits)?,
        volatile: fields.volatile()?,
        id: fields.id.map(str::to_owned),
        source: fields.source()?,
    };
    check_draft(&draft, limits)?;
    Ok(Entry::Event(draft, accepted_us))
}

/// The event in an entry's fields; `None` for a command or a probe.
///
/// # Errors
/// See [`DraftError`].
pub fn read_event(fields: &[(Vec<u8>, Vec<u8>)], limits: &DraftLimits) -> Result<Option<Draft>, DraftError> {
    match decode(fields, limits)? {
        Entry::Event(draft, _) => Ok(Some(draft)),
        Entry::SessionCommand(_) | Entry::Probe(_) => Ok(None),
    }
}

fn read_order(value: &[u8], limits: &DraftLimits) -> Result<SessionCommand, DraftError> {
    let order: SessionCommand =
        serde_json::from_slice(value).map_err(|error| DraftError::Json(format!("field `order`: {error}")))?;
    if let Action::Join(rooms) | Action::Leave(rooms) = &order.action {
        if rooms.len() > MAX_ROOMS {
            return Err(DraftError::TooManyRooms { max: MAX_ROOMS });
        }
        rooms.iter().try_for_each(|room| check_room_name(room, limits.room_name_bytes))?;
    }
    Ok(order)
}

/// Appends the fields of a draft to a command.
pub(super) fn encode(draft: &Draft, accepted_us: u64, command: &mut Cmd) {
    encode_timeless(draft, command);
    command.arg("t").arg(accepted_us);
}

/// The fields of a draft but for `t`, which whoever appends it adds: names and values in turn.
pub fn entry_fields(draft: &Draft) -> Vec<String> {
    let mut command = Cmd::new();
    encode_timeless(draft, &mut command);
    let text = |arg| match arg {
        Arg::Simple(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    command.args_iter().filter_map(text).collect()
}

fn encode_timeless(draft: &Draft, command: &mut Cmd) {
    match &draft.rooms[..] {
        [room] => command.arg("room").arg(&**room),
        rooms => command.arg("rooms").arg(json_list(rooms)),
    };
    command.arg("event").arg(&*draft.event);
    match draft.args.single() {
        Some(data) => command.arg("data").arg(data),
        None => command.arg("args").arg(draft.args.as_array()),
    };
    if !draft.except.is_empty() {
        command.arg("except").arg(json_list(&draft.except));
    }
    if &*draft.namespace != MAIN_NAMESPACE {
        command.arg("namespace").arg(&*draft.namespace);
    }
    if let Some(id) = &draft.id {
        command.arg("id").arg(id);
    }
    if draft.source != Source::Http {
        command.arg("src").arg(draft.source.label());
    }
}

fn json_list(rooms: &[Room]) -> String {
    serde_json::to_string(rooms).expect("strings are always JSON")
}

/// The metric label's source.
pub(super) fn source_of(label: &str) -> Option<Source> {
    Source::ALL.into_iter().find(|source| source.label() == label)
}

/// The known fields, each at most once and in UTF-8.
#[derive(Default)]
struct Fields<'a> {
    room: Option<&'a str>,
    rooms: Option<&'a str>,
    event: Option<&'a str>,
    data: Option<&'a str>,
    args: Option<&'a str>,
    except: Option<&'a str>,
    namespace: Option<&'a str>,
    volatile: Option<&'a str>,
    id: Option<&'a str>,
    t: Option<&'a str>,
    src: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn sort(raw: &'a [(Vec<u8>, Vec<u8>)]) -> Result<Self, DraftError> {
        let mut fields = Self::default();
        for (name, value) in raw {
            let slot = match &name[..] {
                b"room" => &mut fields.room,
                b"rooms" => &mut fields.rooms,
                b"event" => &mut fields.event,
                b"data" => &mut fields.data,
                b"args" => &mut fields.args,
                b"except" => &mut fields.except,
                b"namespace" => &mut fields.namespace,
                b"volatile" => &mut fields.volatile,
                b"id" => &mut fields.id,
                b"t" => &mut fields.t,
                b"src" => &mut fields.src,
                _ => return Err(DraftError::Field(format!("unknown field `{}`", shown(name)))),
            };
            let value = std::str::from_utf8(value)
                .map_err(|_| DraftError::Field(format!("field `{}` is not UTF-8", shown(name))))?;
            if value.is_empty() && !matches!(&name[..], b"room" | b"event") {
                continue;
            }
            if slot.replace(value).is_some() {
                return Err(DraftError::Field(format!("field `{}` is there twice", shown(name))));
            }
        }
        Ok(fields)
    }

    fn rooms(&self, limits: &DraftLimits) -> Result<Vec<Room>, DraftError> {
        match (self.room, self.rooms) {
            (Some(room), Some(_)) if !room.is_empty() => {
                Err(DraftError::Field("`room` and `rooms` exclude each other".into()))
            }
            (_, Some(rooms)) => room_list("rooms", rooms, limits),
            (Some(room), None) => Ok(vec![room.into()]),
            (None, None) => Err(DraftError::NoRoom),
        }
    }

    fn args(&self, limits: &DraftLimits) -> Result<Args, DraftError> {
        let (name, text, parsed): (_, _, fn(&str) -> _) = match (self.data, self.args) {
            (Some(_), Some(_)) => return Err(DraftError::Field("`data` and `args` exclude each other".into())),
            (Some(data), None) => ("data", data, Args::one),
            (None, Some(args)) => ("args", args, Args::list),
            (None, None) => return Ok(Args::none()),
        };
        if text.len() > limits.max_event {
            return Err(DraftError::TooBig { bytes: text.len(), max: limits.max_event });
        }
        parsed(text).map_err(|error: ArgsError| DraftError::Json(format!("field `{name}`: {error}")))
    }

    fn volatile(&self) -> Result<bool, DraftError> {
        match self.volatile {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(DraftError::Field("`volatile` must be `true` or `false`".into())),
        }
    }

    fn accepted_us(&self) -> Result<Option<u64>, DraftError> {
        let wrong = || DraftError::Field("`t` must be Unix microseconds".into());
        self.t.map(|t| t.parse().map_err(|_| wrong())).transpose()
    }

    /// Ours have `t`; entries of others have just the fields of the contract.
    fn source(&self) -> Result<Source, DraftError> {
        match (self.src, self.t) {
            (Some(label), _) => source_of(label).ok_or_else(|| DraftError::Field("`src` is not a known source".into())),
            (None, Some(_)) => Ok(Source::Http),
            (None, None) => Ok(Source::Stream),
        }
    }
}

fn room_list(name: &str, json: &str, limits: &DraftLimits) -> Result<Vec<Room>, DraftError> {
    // A byte of a name has at most six of JSON (`\u0041`); quotes, comma and spaces are generously covered.
    if json.len() > limits.rooms.saturating_mul(limits.room_name_bytes * 6 + 16) {
        return Err(DraftError::TooManyRooms { max: limits.rooms });
    }
    let names: Vec<Name> = serde_json::from_str(json)
        .map_err(|error| DraftError::Field(format!("`{name}` must be a JSON array of room names: {error}")))?;
    Ok(names.into_iter().map(Room::from).collect())
}

/// The start of an untrusted name, for an error message.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(40)]).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DraftLimits = DraftLimits { max_event: 1000, room_name_bytes: 50, rooms: 3 };

    fn fields(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    fn read(pairs: &[(&str, &str)]) -> (Draft, Option<u64>) {
        match decode(&fields(pairs), &LIMITS) {
            Ok(Entry::Event(draft, accepted)) => (draft, accepted),
            other => panic!("{other:?}"),
        }
    }

    fn written(draft: &Draft) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut command = redis::cmd("XADD");
        encode(draft, 42, &mut command);
        let args: Vec<Vec<u8>> = command
            .args_iter()
            .skip(1)
            .map(|arg| match arg {
                Arg::Simple(bytes) => bytes.to_vec(),
                _ => panic!("no cursor"),
            })
            .collect();
        args.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    }

    #[test]
    fn what_others_add_is_read() {
        let (draft, accepted) = read(&[("room", "conversation:42"), ("event", "new_message"), ("data", "{\"id\":9}")]);
        let args = Args::one("{\"id\":9}").unwrap();
        assert_eq!(draft, Draft::new("conversation:42", "new_message", args, Source::Stream));
        assert_eq!(accepted, None);
        let (draft, _) = read(&[
            ("event", "e"),
            ("rooms", "[\"a\", \"b\"]"),
            ("args", "[1, \"x\"]"),
            ("except", "[\"c\"]"),
            ("namespace", "/chat"),
            ("volatile", "true"),
            ("id", "i"),
        ]);
        assert_eq!((draft.rooms.len(), draft.args.count(), &*draft.except[0], draft.volatile), (2, 2, "c", true));
        assert_eq!((&*draft.namespace, draft.id.as_deref()), ("/chat", Some("i")));
        assert_eq!(read(&[("room", "a"), ("event", "e")]).0.args, Args::none());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut draft = Draft::new("r", "e", Args::one("{\"n\":9007199254740993 }").unwrap(), Source::Http);
        for _ in 0..2 {
            let Ok(Entry::Event(back, accepted)) = decode(&written(&draft), &LIMITS) else { panic!() };
            assert_eq!((back, accepted), (draft.clone(), Some(42)));
            draft.rooms = vec!["a\"b".into(), "ö".into()];
            draft.except = vec!["c".into()];
            draft.args = Args::list("[ 1 ,[2]]").unwrap();
            draft.namespace = "/chat".into();
            draft.id = Some("x".into());
            draft.source = Source::Client;
        }
        let id = Id::random();
        let probe = decode(&fields(&[("probe", &id.to_string())]), &LIMITS);
        assert!(matches!(probe, Ok(Entry::Probe(back)) if back == id));
    }

    #[test]
    fn each_mistake_is_named() {
        let long = format!("\"{}\"", "x".repeat(2000));
        let many = format!("[{}]", ["{ \"$binary\" : \"AA==\"}"; 11].join(","));
        let names = format!("[{}]", ["\"r\""; 2000].join(","));
        for (code, pairs) in [
            ("no_room", &[("event", "e")][..]),
            ("no_room", &[("event", "e"), ("rooms", "[]")]),
            ("bad_field", &[("room", "r")]),
            ("bad_field", &[("room", "r"), ("event", "e"), ("dat", "1")]),
            ("bad_field", &[("room", "r"), ("event", "e"), ("event", "e")]),
            ("bad_field", &[("room", "r"), ("rooms", "[\"s\"]"), ("event", "e")]),
            ("bad_field", &[("room", "r"), ("event", "e"), ("data", "1"), ("args", "[]")]),
            ("bad_field", &[("rooms", "a,b"), ("event", "e")]),
            ("bad_field", &[("rooms", "[true]"), ("event", "e")]),
            ("bad_field", &[("room", "r"), ("event", "e"), ("volatile", "yes")]),
            ("bad_field", &[("room", "r"), ("event", "e"), ("t", "-1")]),
            ("bad_field", &[("room", "r"), ("event", "e"), ("src", "mars")]),
            ("bad_field", &[("probe", "x")]),
            ("bad_field", &[("probe", "x"), ("room", "r")]),
            ("bad_json", &[("room", "r"), ("event", "e"), ("data", "{oops")]),
            ("bad_json", &[("room", "r"), ("event", "e"), ("args", "1")]),
            ("reserved_event", &[("room", "r"), ("event", "disconnect")]),
            ("bad_room", &[("room", ""), ("event", "e")]),
            ("event_too_big", &[("room", "r"), ("event", "e"), ("data", &long)]),
            ("too_many_attachments", &[("room", "r"), ("event", "e"), ("args", &many)]),
            ("too_many_rooms", &[("rooms", &names), ("event", "e")]),
        ] {
            let error = decode(&fields(pairs), &LIMITS).expect_err(code);
            assert_eq!(error.code(), code, "{error}");
        }
        let zeroed = [
            ("room", ""),
            ("rooms", "[42.0]"),
            ("event", "e"),
            ("data", "1"),
            ("args", ""),
            ("except", ""),
            ("id", ""),
        ];
        let Ok(Entry::Event(draft, _)) = decode(&fields(&zeroed), &LIMITS) else {
            panic!("typed languages write all fields")
        };
        assert_eq!((&*draft.rooms[0], draft.args.as_array(), draft.id), ("42", "[1]", None));
        let mut raw = fields(&[("room", "r"), ("event", "e")]);
        raw.push((b"data".to_vec(), vec![b'"', 0xff, b'"']));
        assert_eq!(decode(&raw, &LIMITS).unwrap_err().to_string(), "field `data` is not UTF-8");
        raw[2].0 = vec![0xff; 100];
        assert_eq!(decode(&raw, &LIMITS).unwrap_err().code(), "bad_field");
        assert_eq!(decode(&[], &LIMITS).unwrap_err().code(), "no_room");
    }
}
