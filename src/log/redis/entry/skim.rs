//! A first look at an event: whether anybody here wants it, before it is decoded. Most events of a large cluster are for
//! rooms that a node has nobody in.
//!
//! What is not wanted is still checked, so that every node finds the same entries malformed. Of an entry that a node wrote
//! the arguments are not looked at again: that node has read them.

use crate::log::redis::entry::known_fields::KnownFields;
use crate::model::args::is_json;
use crate::model::draft::{DraftLimits, Source, check_event_name, check_room_name};
use crate::model::names::{EVERYBODY, MAIN_NAMESPACE};
use serde::Deserialize;
use std::borrow::Cow;

/// The source and the idempotency id of an entry that is well-formed and `wanted` for none of its rooms. `None` where it
/// must be decoded, also because that is what says what is wrong with it.
pub(super) fn unwanted<'a>(
    fields: &KnownFields<'a>,
    limits: &DraftLimits,
    mut wanted: impl FnMut(Source, &str, &str) -> bool,
) -> Option<(Source, Option<&'a str>)> {
    let max = limits.room_name_bytes;
    let source = fields.source().ok()?;
    fields.accepted_us().ok()?;
    fields.volatile().ok()?;
    check_event_name(fields.event?, max).ok()?;
    let namespace = fields.namespace.unwrap_or(MAIN_NAMESPACE);
    let names = [fields.namespace, fields.id];
    if !namespace.starts_with('/') || names.into_iter().flatten().any(|name| name.len() > max) {
        return None;
    }
    match (fields.room, fields.rooms) {
        (Some(room), None) => {
            check_room_name(room, max).ok()?;
            if wanted(source, namespace, room) {
                return None;
            }
        }
        (None, Some(json)) => {
            let rooms = room_names(json, limits)?;
            // All of them are asked, so that it is known of each.
            if rooms.iter().fold(false, |any, Name(room)| wanted(source, namespace, room) || any) {
                return None;
            }
        }
        _ => return None,
    }
    let is_good = source != Source::Stream || has_good_arguments(fields, limits);
    is_good.then_some((source, fields.id))
}

/// Whether nothing can be wrong with what only decoding looks at.
fn has_good_arguments(fields: &KnownFields<'_>, limits: &DraftLimits) -> bool {
    let json = match (fields.data, fields.args) {
        (Some(data), None) => data,
        (None, None) => "[]",
        (None, Some(args)) if args.trim_start().starts_with('[') => args,
        _ => return false,
    };
    // A single argument gets brackets.
    fields.except.is_none() && json.len() + 2 <= limits.max_event && !mentions_binary(json) && is_json(json)
}

/// Binary values are checked where they are decoded.
fn mentions_binary(json: &str) -> bool {
    memchr::memmem::find(json.as_bytes(), b"$binary").is_some()
}

/// A name without a copy, unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The good names of a good list.
fn room_names<'a>(json: &'a str, limits: &DraftLimits) -> Option<Vec<Name<'a>>> {
    if json.len() > limits.rooms.saturating_mul(limits.room_name_bytes) {
        // It may still be good: it is decoded.
        return None;
    }
    let rooms: Vec<Name<'a>> = serde_json::from_str(json).ok()?;
    let is_good = |Name(room): &Name<'_>| *room != EVERYBODY && check_room_name(room, limits.room_name_bytes).is_ok();
    (!rooms.is_empty() && rooms.len() <= limits.rooms && rooms.iter().all(is_good)).then_some(rooms)
}
