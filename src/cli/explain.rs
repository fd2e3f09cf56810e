//! `roomcast explain`.

use crate::cli::cluster_api::{Access, cell, path, table};
use crate::cli::{Common, Failure};
use serde_json::Value;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The user
    #[arg(long)]
    user: String,
    /// The room
    #[arg(long)]
    room: String,
    /// The event's offset, as in the answer to /publish
    #[arg(long, value_name = "OFFSET")]
    event: Option<String>,
    /// The namespace of the room [default: /]
    #[arg(long)]
    namespace: Option<String>,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { user, room, event, namespace, access } = arguments;
    let api = access.open(common)?;
    let query = [("user", Some(user)), ("room", Some(room)), ("event", event), ("namespace", namespace)];
    let answer = api.ask(&path("/explain", &query), None)?;
    api.show(&answer, in_words);
    Ok(())
}

fn in_words(answer: &Value) -> String {
    let at = |time: &Value| time.as_str().map(|time| format!(" (at {time})")).unwrap_or_default();
    let mut lines =
        vec![format!("{}: {}{}", cell(&answer["verdict"]), cell(&answer["message"]), at(&answer["at"])), String::new()];
    let rule = match &answer["rule"]["name"] {
        Value::Null => "none matches this room".to_owned(),
        name => cell(name),
    };
    lines.push(format!("{:10}{rule}", "rule"));
    if let Value::Object(event) = &answer["event"] {
        let names = |key: &str| {
            event[key].as_array().map(|names| names.iter().map(cell).collect::<Vec<_>>().join(" ")).unwrap_or_default()
        };
        let except = names("except");
        let except = if except.is_empty() { except } else { format!(", except {except}") };
        let what = match event["event"] {
            Value::Null => cell(&event["status"]),
            _ => format!("{} to {}{except}{}", cell(&event["event"]), names("rooms"), at(&event["at"])),
        };
        lines.push(format!("{:10}{what}", "event"));
    }
    lines.push(format!("{:10}ended sessions since {}", "sees", cell(&answer["sees_back_to"])));
    let sessions = answer["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !sessions.is_empty() {
        let rows: Vec<Vec<String>> = sessions.iter().map(row).collect();
        lines.push(String::new());
        lines.push(table(&["SESSION", "NODE", "PROTOCOL", "SINCE", "ENDED", "OUTCOME", "AT", "WHY"], &rows));
    }
    if let Some(more) = answer["sessions_left_out"].as_u64().filter(|more| *more > 0) {
        lines.push(format!("\n{more} more sessions are not shown"));
    }
    lines.join("\n")
}

fn row(session: &Value) -> Vec<String> {
    let keys = ["session", "node", "protocol", "since"];
    let ended = match &session["ended"] {
        Value::Null => "-".to_owned(),
        ended => format!("{} {}", cell(&ended["at"]), cell(&ended["reason"])),
    };
    let rest = [ended, cell(&session["outcome"]), cell(&session["at"]), cell(&session["message"])];
    keys.iter().map(|key| cell(&session[*key])).chain(rest).collect()
}
