//! The fields of an entry that a node adds.

use crate::log::redis::deadline;
use crate::model::draft::{Draft, Source};
use crate::model::names::{MAIN_NAMESPACE, Room};
use crate::redis::command::Arguments;
use redis::{Arg, Cmd};

/// Writes the fields of a draft.
pub(in crate::log::redis) fn encode(
    draft: &Draft,
    accepted_us: u64,
    until_ms: Option<u64>,
    command: &mut impl Arguments,
) {
    encode_timeless(draft, command);
    command.text("t");
    command.number(accepted_us);
    if let Some(until_ms) = until_ms {
        command.text(deadline::FIELD);
        command.number(until_ms);
    }
}

/// The fields of a draft without `t`, which its appender adds: names and values alternate.
pub fn entry_fields(draft: &Draft) -> Vec<String> {
    let mut command = Cmd::new();
    encode_timeless(draft, &mut command);
    let text = |arg| match arg {
        Arg::Simple(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    command.args_iter().filter_map(text).collect()
}

/// Appends the field `after` to a command of a node.
pub(in crate::log::redis) fn encode_after(after: Option<&str>, command: &mut impl Arguments) {
    if let Some(after) = after {
        command.text("after");
        command.text(after);
    }
}

fn encode_timeless(draft: &Draft, command: &mut impl Arguments) {
    let mut field = |name: &str, value: &str| {
        command.text(name);
        command.text(value);
    };
    match &draft.rooms[..] {
        [room] => field("room", room),
        rooms => field("rooms", &json_list(rooms)),
    }
    field("event", &draft.event);
    match draft.args.single() {
        Some(data) => field("data", data),
        None => field("args", draft.args.as_array()),
    }
    if !draft.except.is_empty() {
        field("except", &json_list(&draft.except));
    }
    if &*draft.namespace != MAIN_NAMESPACE {
        field("namespace", &draft.namespace);
    }
    if let Some(id) = &draft.id {
        field("id", id);
    }
    if draft.source != Source::Http {
        field("src", draft.source.label());
    }
    if let Some(trace) = &draft.trace {
        field("traceparent", &trace.to_string());
        if let Some(state) = &trace.state {
            field("tracestate", state);
        }
    }
}

fn json_list(rooms: &[Room]) -> String {
    serde_json::to_string(rooms).expect("strings are always JSON")
}
