//! The fields of a stream entry, read and written. Sans-IO.
//!
//! | field | meaning |
//! |---|---|
//! | `room` or `rooms` | a name as plain text, or names as a JSON array |
//! | `event` | the event's name |
//! | `data` or `args` | one argument, or a JSON array of them; neither is no argument |
//! | `except` | room names as a JSON array |
//! | `namespace` | the default is `/` |
//! | `volatile` | `true` or `false`; nodes never store volatile events |
//! | `id` | idempotency id |
//! | `traceparent`, `tracestate` | the W3C trace context; one that is malformed or not sampled is ignored |
//! | `t` | nodes only: when a node accepted the event, Unix microseconds |
//! | `until` | nodes only: an entry whose id is later (Unix milliseconds) is void ([`deadline`]) |
//! | `src` | nodes only: the source's metric label where it is not `http` |
//! | `order` | nodes only, as first field: a [`SessionCommand`] as JSON |
//! | `probe` | nodes only, as first field: an [`Id`] that health waits for |
//! | `kind` | nodes only, as first field: an entry that this release does not know |
//! | `after` | nodes only: positions on other lines that come before it ([`After`]) |
//! | `v` | nodes only: the version of the entry's form; absent means 1 |
//!
//! Other publishers' unknown and repeated fields are errors: what they misspelled must not be ignored. An empty value,
//! and `null` where JSON is expected, means that the field is absent, except of `room`, `event` and a single `data`: typed
//! languages write every field.
//!
//! Nodes of two releases run side by side during a rolling upgrade, so entries of nodes (those with `t`, `order`, `probe`
//! or `kind`) are read tolerantly: unknown fields are ignored, and an unknown `kind` is skipped. Only a higher `v` makes an
//! entry unreadable. A release may write a new `v` or `kind` only if the release before it can read it.

mod known_fields;
mod skim;
mod write;

pub(super) use known_fields::{Field, source_of};
pub use write::entry_fields;
pub(super) use write::{encode, encode_after};

use crate::log::redis::deadline;
use crate::model::after::After;
use crate::model::command::{Action, MAX_ROOMS, SessionCommand};
use crate::model::draft::{Draft, DraftError, DraftLimits, Source, check_room_name};
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::offset::Position;
use crate::model::trace_context::TraceContext;
use crate::protocol::event_fields::EventFields;
use known_fields::{KnownFields, check_version};

/// A session command may have this much however small events must be.
const MIN_COMMAND_BYTES: usize = 1 << 20;

/// Names and values of an entry, in order.
pub(super) type RawFields = Vec<(Vec<u8>, Vec<u8>)>;

/// An entry where it arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// The entry's id.
    pub position: Position,
    pub fields: &'a [Field<'a>],
    /// Bytes that it really has, where only the beginning of it was read.
    pub cut: Option<usize>,
}

/// An entry of its own.
#[derive(Debug)]
pub(super) struct RawEntry {
    /// The entry's id.
    pub position: Position,
    pub fields: RawFields,
    /// As in [`Entry::cut`].
    pub cut: Option<usize>,
}

impl RawEntry {
    /// Its fields, for [`Self::entry`].
    pub(super) fn borrowed(&self) -> Vec<Field<'_>> {
        borrowed(&self.fields)
    }

    /// The entry as if it had just arrived, with its fields.
    pub(super) fn entry<'a>(&self, fields: &'a [Field<'a>]) -> Entry<'a> {
        Entry { position: self.position, fields, cut: self.cut }
    }

    /// See [`Entry::bytes`].
    pub(super) fn bytes(&self) -> usize {
        self.entry(&self.borrowed()).bytes()
    }
}

impl<'a> Entry<'a> {
    /// Bytes of all names and values.
    pub(super) fn bytes(&self) -> usize {
        self.cut.unwrap_or_else(|| self.fields.iter().map(|(name, value)| name.len() + value.len()).sum())
    }

    /// What comes before it on other lines.
    pub(super) fn after(&self) -> After {
        let after = self.fields.iter().find(|(name, _)| name == b"after");
        after.map(|(_, value)| After::parse(value)).unwrap_or_default()
    }

    /// What it means.
    pub(super) fn decode(&self, limits: &DraftLimits) -> Result<StreamEntry<'a>, DraftError> {
        self.decode_wanted(limits, |_, _, _| true)
    }

    /// What it means, but no more than [`StreamEntry::Unwanted`] of an event that is `wanted` for none of its rooms, by its
    /// source and the names of the namespace and the room.
    pub(super) fn decode_wanted(
        &self,
        limits: &DraftLimits,
        wanted: impl FnMut(Source, &str, &str) -> bool,
    ) -> Result<StreamEntry<'a>, DraftError> {
        match self.cut {
            Some(bytes) => Err(DraftError::TooBig { bytes, max: limits.max_event }),
            None if deadline::is_void_entry(self.position, self.fields) => Ok(StreamEntry::Void),
            None => decode(self.fields, limits, wanted),
        }
    }
}

fn borrowed(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<Field<'_>> {
    fields.iter().map(|(name, value)| (&name[..], &value[..])).collect()
}

/// A decoded entry.
#[derive(Debug)]
pub(super) enum StreamEntry<'a> {
    /// An event, and when a node accepted it (Unix microseconds) if one did.
    Event(Draft, Option<u64>),
    /// A well-formed event that is not wanted, with its idempotency id.
    Unwanted(Source, Option<&'a str>),
    SessionCommand(SessionCommand),
    /// The probe of some node.
    Probe(Id),
    /// An entry of a newer release, to be skipped.
    Unsupported,
    /// An entry that came after its deadline: its publisher knows that it is not in the log.
    Void,
}

/// Decodes an entry's fields.
fn decode<'a>(
    fields: &'a [Field<'a>],
    limits: &DraftLimits,
    wanted: impl FnMut(Source, &str, &str) -> bool,
) -> Result<StreamEntry<'a>, DraftError> {
    let Some((name, value)) = fields.first() else { return Err(DraftError::NoRoom) };
    match *name {
        b"probe" => {
            check_version(fields)?;
            let id = std::str::from_utf8(value).ok().and_then(Id::parse);
            id.map(StreamEntry::Probe).ok_or_else(|| DraftError::Field("`probe` is not an id".into()))
        }
        b"order" => {
            check_version(fields)?;
            decode_command(value, limits).map(StreamEntry::SessionCommand)
        }
        b"kind" => Ok(StreamEntry::Unsupported),
        _ => decode_event(fields, limits, wanted),
    }
}

fn decode_event<'a>(
    raw: &'a [Field<'a>],
    limits: &DraftLimits,
    wanted: impl FnMut(Source, &str, &str) -> bool,
) -> Result<StreamEntry<'a>, DraftError> {
    let fields = KnownFields::of(raw)?;
    let trace = if fields.is_traced { context(raw) } else { None };
    // Of an event whose trace is recorded every node tells how many got it.
    if trace.is_none()
        && let Some((source, id)) = skim::unwanted(&fields, limits, wanted)
    {
        return Ok(StreamEntry::Unwanted(source, id));
    }
    let accepted_us = fields.accepted_us()?;
    let source = fields.source()?;
    let names = |key, json: Option<&str>| {
        json.filter(|json| json.trim() != "null").map(|json| room_names(key, json, limits)).transpose()
    };
    let event = EventFields {
        room: fields.room.map(Room::from),
        rooms: names("rooms", fields.rooms)?,
        except: names("except", fields.except)?,
        event: fields.event.map(Into::into),
        data: fields.data,
        args: fields.args,
        namespace: fields.namespace.map(Into::into),
        volatile: fields.volatile()?,
        id: fields.id.map(str::to_owned),
        events: None,
        is_parsed: false,
    };
    // Before they are parsed.
    if let Some(bytes) =
        [fields.data, fields.args].into_iter().flatten().map(str::len).find(|len| *len > limits.max_event)
    {
        return Err(DraftError::TooBig { bytes, max: limits.max_event });
    }
    Ok(StreamEntry::Event(Draft { trace, ..event.into_draft(source, limits)? }, accepted_us))
}

/// The event in an entry's fields; `None` for any other kind of entry. For the fuzzer and benches.
///
/// # Errors
/// See [`DraftError`].
pub fn read_event(fields: &[(Vec<u8>, Vec<u8>)], limits: &DraftLimits) -> Result<Option<Draft>, DraftError> {
    read_wanted(fields, limits, |_, _| true)
}

/// The same; also `None` for a well-formed event that is `wanted` for none of its rooms.
///
/// # Errors
/// See [`DraftError`].
pub fn read_wanted(
    fields: &[(Vec<u8>, Vec<u8>)],
    limits: &DraftLimits,
    mut wanted: impl FnMut(&str, &str) -> bool,
) -> Result<Option<Draft>, DraftError> {
    match decode(&borrowed(fields), limits, |_, namespace, room| wanted(namespace, room))? {
        StreamEntry::Event(draft, _) => Ok(Some(draft)),
        _ => Ok(None),
    }
}

fn decode_command(value: &[u8], limits: &DraftLimits) -> Result<SessionCommand, DraftError> {
    let max = limits.max_event.max(MIN_COMMAND_BYTES);
    if value.len() > max {
        return Err(DraftError::TooBig { bytes: value.len(), max });
    }
    let command: SessionCommand =
        serde_json::from_slice(value).map_err(|error| DraftError::Json(format!("`order`: {error}")))?;
    if let Action::Join(rooms) | Action::Leave(rooms) = &command.action {
        if rooms.len() > MAX_ROOMS {
            return Err(DraftError::TooManyRooms { max: MAX_ROOMS });
        }
        rooms.iter().try_for_each(|room| check_room_name(room, limits.room_name_bytes))?;
    }
    Ok(command)
}

/// The trace that an entry belongs to, if it is recorded.
fn context(fields: &[Field<'_>]) -> Option<Box<TraceContext>> {
    let value = |wanted: &[u8]| fields.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    trace_of(value(b"traceparent")?, value(b"tracestate"))
}

/// A trace context, if its trace is recorded.
pub(super) fn trace_of(traceparent: &[u8], tracestate: Option<&[u8]>) -> Option<Box<TraceContext>> {
    TraceContext::parse(traceparent, tracestate).filter(|context| context.sampled).map(Box::new)
}

fn room_names(key: &str, json: &str, limits: &DraftLimits) -> Result<Vec<Room>, DraftError> {
    // A byte of a name has at most six of JSON (`\u0041`); quotes, comma and spaces are generously covered.
    if json.len() > limits.rooms.saturating_mul(limits.room_name_bytes * 6 + 16) {
        return Err(DraftError::TooManyRooms { max: limits.rooms });
    }
    serde_json::from_str(json)
        .map_err(|error| DraftError::Field(format!("`{key}` must be a JSON array of room names: {error}")))
}

#[cfg(test)]
mod tests;
