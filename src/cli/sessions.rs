//! `roomcast sessions`.

use crate::cli::cluster_api::{Access, Page, cell, list_end, path, table};
use crate::cli::{Common, Failure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// One session in detail, by its id
    #[arg(allow_hyphen_values = true, conflicts_with_all = ["user", "room", "limit", "cursor"])]
    session: Option<String>,
    /// Only those of this user
    #[arg(long)]
    user: Option<String>,
    /// Only those in this room
    #[arg(long)]
    room: Option<String>,
    #[command(flatten)]
    page: Page,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { session, user, room, page: Page { limit, cursor }, access } = arguments;
    let api = access.open(common)?;
    if let Some(session) = session {
        let answer = api.ask(&format!("/sessions/{}", utf8_percent_encode(&session, NON_ALPHANUMERIC)), None)?;
        api.show(&answer, one_in_words);
        return Ok(());
    }
    let limit = limit.map(|limit| limit.to_string());
    let pairs = [("user", user), ("room", room), ("limit", limit), ("cursor", cursor)];
    api.show(&api.ask(&path("/sessions", &pairs), None)?, in_words);
    Ok(())
}

fn in_words(answer: &Value) -> String {
    let keys = [
        "session",
        "user",
        "namespace",
        "node",
        "protocol",
        "transport",
        "address",
        "since",
        "room_count",
        "outbox_bytes",
    ];
    let sessions = answer["sessions"].as_array().into_iter().flatten();
    let rows: Vec<_> = sessions.map(|session| keys.map(|key| cell(&session[key])).to_vec()).collect();
    let head =
        ["SESSION", "USER", "NAMESPACE", "NODE", "PROTOCOL", "TRANSPORT", "ADDRESS", "SINCE", "ROOMS", "OUTBOX BYTES"];
    table(&head, &rows) + &list_end(answer)
}

fn one_in_words(session: &Value) -> String {
    let fields = session.as_object().into_iter().flatten();
    let value = |value: &Value| match value {
        Value::Array(rooms) => rooms.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Object(refusal) => refusal.values().rev().map(cell).collect::<Vec<_>>().join(" "),
        other => cell(other),
    };
    fields.map(|(key, field)| format!("{key:16}{}", value(field))).collect::<Vec<_>>().join("\n")
}
