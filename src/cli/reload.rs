//! `roomcast reload`.

use crate::cli::cluster_api::{Access, cell};
use crate::cli::{Common, Failure, say};
use serde_json::Value;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.access.json();
    let api = arguments.access.open(common)?;
    // While keys are rotated, the node may not know the new ones yet.
    let (is_done, answer) = api.post_with_any_key("/reload", "{}")?;
    let parsed = serde_json::from_str(&answer).unwrap_or_default();
    match (is_done, json) {
        (true, true) => say(answer.trim_end()),
        (true, false) => say(&in_words(&parsed)),
        (false, _) => {
            if json {
                say(answer.trim_end());
            }
            let message = parsed["error"]["message"].as_str().unwrap_or(answer.trim_end());
            return Err(Failure::configuration(message));
        }
    }
    Ok(())
}

fn in_words(answer: &Value) -> String {
    let node = cell(&answer["node"]);
    let list = |name: &str| answer[name].as_array().into_iter().flatten();
    let mut text = match answer["result"].as_str() {
        Some("applied") => format!("node {node} has a changed configuration in force:"),
        _ => format!("node {node} has the same configuration as before"),
    };
    list("changed").for_each(|change| text.push_str(&format!("\n  {}", shown(change))));
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    let (sessions, memberships, asked) = (number("sessions"), number("memberships"), number("asked"));
    if sessions > 0 {
        text.push_str(&format!("\n{sessions} sessions lost {memberships} memberships that the rules no longer give"));
    }
    if asked > 0 {
        text.push_str(&format!("\nthe backend is asked about {asked} memberships"));
    }
    if list("needs_restart").next().is_some() {
        text.push_str("\nnot in force until a restart:");
        list("needs_restart").for_each(|change| text.push_str(&format!("\n  {}", shown(change))));
    }
    list("warnings").for_each(|warning| text.push_str(&format!("\nwarning: {}", cell(warning))));
    text
}

fn shown(change: &Value) -> String {
    let key = cell(&change["key"]);
    match change.get("to") {
        Some(to) => format!("{key}: {} -> {}", value(&change["from"]), value(to)),
        None => key,
    }
}

fn value(value: &Value) -> String {
    if value.is_null() { "not set".to_owned() } else { cell(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_answer_in_words() {
        let answer = json!({
            "node": "0a", "result": "applied", "changed": [{ "key": "rooms", "from": "2 rules", "to": "1 rule" }, { "key": "backend.secret" }],
            "needs_restart": [{ "key": "redis.prefix", "from": "\"a\"", "to": "\"b\"" }], "warnings": ["w"],
            "sessions": 2, "memberships": 3, "asked": 0, "config": "ff",
        });
        let expected = "node 0a has a changed configuration in force:\n  rooms: 2 rules -> 1 rule\n  backend.secret\n\
                        2 sessions lost 3 memberships that the rules no longer give\n\
                        not in force until a restart:\n  redis.prefix: \"a\" -> \"b\"\nwarning: w";
        assert_eq!(in_words(&answer), expected);
        let same = json!({ "node": "0a", "result": "unchanged", "changed": [], "needs_restart": [], "warnings": [] });
        assert_eq!(in_words(&same), "node 0a has the same configuration as before");
    }
}
