//! `roomcast drain`.

use crate::cli::cluster_api::{Access, ClusterApi, cell};
use crate::cli::nodes::status;
use crate::cli::{Common, Failure, warn};
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks with `--wait`.
const LOOK: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The time over which the connections are closed, at most 24h [default: shutdown.drain of the node]
    #[arg(long, value_name = "TIME")]
    over: Option<String>,
    /// Wait until all are closed
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { over, wait, access } = arguments;
    let api = access.open(common)?;
    let body = json!({ "over": over }).to_string();
    let answer = api.ask("/drain", Some(body))?;
    api.show(&answer, in_words);
    match wait {
        true => wait_for(&api, &serde_json::from_str(&answer).unwrap_or_default()),
        false => Ok(()),
    }
}

/// The other nodes cannot be meant: a drain is of the node that is asked.
fn wait_for(api: &ClusterApi, begun: &Value) -> Result<(), Failure> {
    loop {
        let answer: Value = serde_json::from_str(&api.ask("/cluster", None)?).unwrap_or_default();
        let node = answer["nodes"].as_array().into_iter().flatten().find(|node| node["node"] == begun["node"]);
        let Some(node) = node else {
            return Err(Failure::at_run_time("the URL leads to more than one node, or the node was started again"));
        };
        if node["drain"]["done"] == true {
            return Ok(());
        }
        warn(&status(node));
        std::thread::sleep(LOOK);
    }
}

fn in_words(answer: &Value) -> String {
    let drain = &answer["drain"];
    let number = |key: &str| drain[key].as_u64().unwrap_or_default();
    let over = humantime::format_duration(Duration::from_millis(number("over_ms")));
    let node = cell(&answer["node"]);
    match (answer["begun"].as_bool(), drain["done"].as_bool()) {
        (_, Some(true)) => format!("node {node} is drained; it can be stopped"),
        (Some(true), _) => format!("node {node} closes its {} connections over {over}", number("connections")),
        _ => format!(
            "node {node} is draining already, over {over}: {} of {} connections are left",
            number("left"),
            number("connections")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_in_words() {
        let words = |begun, done| {
            let drain = json!({ "over_ms": 60_000, "connections": 9, "left": 4, "done": done });
            in_words(&json!({ "node": "0a", "begun": begun, "drain": drain }))
        };
        assert_eq!(words(true, false), "node 0a closes its 9 connections over 1m");
        assert_eq!(words(false, false), "node 0a is draining already, over 1m: 4 of 9 connections are left");
        assert_eq!(words(false, true), "node 0a is drained; it can be stopped");
    }
}
