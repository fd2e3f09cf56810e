//! `roomcast trace` and `roomcast tail`.

use crate::cli::cluster_api::{Access, cell, path};
use crate::cli::{Common, Failure, warn};
use serde_json::Value;

/// Fields of a line that its words begin with.
const FIRST: [&str; 3] = ["at", "type", "node"];

#[derive(clap::Args)]
#[group(id = "whom", required = true, multiple = true)]
pub(super) struct Arguments {
    /// What happens to this user
    #[arg(long, group = "whom")]
    user: Option<String>,
    /// What happens to this session
    #[arg(long, group = "whom", allow_hyphen_values = true)]
    session: Option<String>,
    /// What happens in this room; with a user or a session, what happens to them there
    #[arg(long, group = "whom")]
    room: Option<String>,
    #[command(flatten)]
    access: Access,
}

#[derive(clap::Args)]
pub(super) struct TailArguments {
    /// The room
    room: String,
    /// With the payloads, where `trace.payloads` of the node is on
    #[arg(long)]
    payloads: bool,
    #[command(flatten)]
    access: Access,
}

/// `roomcast trace`.
pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { user, session, room, access } = arguments;
    let api = access.open(common)?;
    let json = api.json;
    api.follow(&path("/trace", &[("user", user), ("session", session), ("room", room)]), |line| {
        Some(if json { line.to_owned() } else { in_words(&serde_json::from_str(line).unwrap_or_default()) })
    })
}

/// `roomcast tail`.
pub(super) fn tail(common: Common, arguments: TailArguments) -> Result<(), Failure> {
    let TailArguments { room, payloads, access } = arguments;
    let api = access.open(common)?;
    let json = api.json;
    let payloads = payloads.then(|| "true".to_owned());
    api.follow(&path("/trace", &[("room", Some(room)), ("payloads", payloads)]), |line| {
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        // Who comes and goes is what `trace --room` is for.
        match value["type"].as_str().unwrap_or_default() {
            "event" | "opened" | "ended" | "skipped" | "node" if json => Some(line.to_owned()),
            "event" => Some(event_in_words(&value)),
            "opened" | "ended" | "skipped" | "node" => {
                warn(&in_words(&value));
                None
            }
            _ => None,
        }
    })
}

/// `2026-11-26T19:30:00.123Z price 27 bytes, 12 receivers (0a1b2c3d 5, 0a1b2c3e 7) at 1764…-0`.
fn event_in_words(line: &Value) -> String {
    let nodes = line["nodes"].as_object().into_iter().flatten();
    let nodes: Vec<String> = nodes.map(|(node, count)| format!("{node} {count}")).collect();
    let place = match line["offset"].as_str() {
        Some(offset) => format!("at {offset}"),
        None => "volatile".to_owned(),
    };
    let pending = line["nodes_pending"].as_u64().map(|count| format!(", {count} nodes have not said"));
    let [at, event, bytes, receivers] = ["at", "event", "bytes", "receivers"].map(|key| cell(&line[key]));
    let args = line["args"].as_str().map(|args| format!("\n    {}", cell(&args.into())));
    let (pending, args) = (pending.unwrap_or_default(), args.unwrap_or_default());
    format!("{at} {event} {bytes} bytes, {receivers} receivers ({}){pending}, {place}{args}", nodes.join(", "))
}

/// `2026-11-26T19:30:00.123Z joined 0a1b2c3d user=7 session=… rooms=chat:1 by=rule`.
fn in_words(line: &Value) -> String {
    let first = FIRST.map(|key| cell(&line[key])).join(" ");
    let fields = line.as_object().into_iter().flatten().filter(|(key, _)| !FIRST.contains(&key.as_str()));
    let rest = fields.map(|(key, value)| {
        let shown = match value {
            Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
            other => cell(other),
        };
        // A text with spaces is in quotes, so that it is seen where it ends.
        if shown.contains(' ') { format!(" {key}=\"{shown}\"") } else { format!(" {key}={shown}") }
    });
    first + &rest.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_shown_in_words_and_cannot_reach_the_terminal() {
        let line = json!({ "at": "T", "type": "joined", "node": "0a", "user": "7\u{1b}[2J", "rooms": ["a", "b"], "message": "x y" });
        assert_eq!(in_words(&line), "T joined 0a message=\"x y\" rooms=a,b user=7\\u{1b}[2J");
        let line = json!({ "at": "T", "type": "event", "event": "price", "bytes": 27, "receivers": 12, "nodes": { "0a": 5, "0b": 7 }, "offset": "1-0" });
        assert_eq!(event_in_words(&line), "T price 27 bytes, 12 receivers (0a 5, 0b 7), at 1-0");
    }
}
