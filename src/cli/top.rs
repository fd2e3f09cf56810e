//! `roomcast top`.

use crate::cli::cluster_api::{Access, cell, table};
use crate::cli::nodes::status;
use crate::cli::{Common, Failure, is_read, warn};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// What counts since a node's start, and its rate.
const RATES: [(&str, &str); 3] = [
    ("events_total", "events_per_second"),
    ("deliveries_total", "deliveries_per_second"),
    ("drops_total", "drops_per_second"),
];
/// Clears the terminal.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Between two looks
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = read_every)]
    every: Duration,
    /// End after so many tables
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    access: Access,
}

fn read_every(text: &str) -> Result<Duration, String> {
    let every = humantime::parse_duration(text).ok();
    every
        .filter(|every| *every >= Duration::from_millis(100))
        .ok_or_else(|| "must be like 2s, and at least 100ms".into())
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { every, count, access } = arguments;
    let api = access.open(common)?;
    let is_terminal = std::io::stdout().is_terminal();
    let look = || {
        let answer: Value = serde_json::from_str(&api.ask("/cluster", None)?).unwrap_or_default();
        Ok((Instant::now(), answer["nodes"].as_array().cloned().unwrap_or_default()))
    };
    let (mut at, mut before) = look()?;
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        std::thread::sleep(every);
        let (now, nodes) = match look() {
            Ok(seen) => seen,
            // The node may be on its way back; whoever watches wants to see that.
            Err(Failure { message, .. }) => {
                warn(&message);
                continue;
            }
        };
        let rated = with_rates(nodes.clone(), &before, now - at);
        let text = match api.json {
            true => serde_json::json!({ "nodes": rated }).to_string(),
            false if is_terminal => format!("{CLEAR}{}", in_words(&rated)),
            false => format!("{}\n", in_words(&rated)),
        };
        if !is_read(&text) {
            break;
        }
        (at, before) = (now, nodes);
        shown += 1;
    }
    Ok(())
}

/// Nodes that were there before get their rates since then.
fn with_rates(mut nodes: Vec<Value>, before: &[Value], elapsed: Duration) -> Vec<Value> {
    let known: HashMap<&str, &Value> = before.iter().filter_map(|node| Some((node["node"].as_str()?, node))).collect();
    for node in nodes.iter_mut().filter_map(Value::as_object_mut) {
        let Some(earlier) = node["node"].as_str().and_then(|name| known.get(name)) else { continue };
        for (total, rate) in RATES {
            let now_and_then = (node.get(total).and_then(Value::as_u64), earlier[total].as_u64());
            if let (Some(now), Some(then)) = now_and_then {
                let per_second = now.saturating_sub(then) as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
                node.insert(rate.to_owned(), (per_second.round() as u64).into());
            }
        }
    }
    nodes
}

fn in_words(nodes: &[Value]) -> String {
    let objects = nodes.iter().filter_map(|node| Some((node, node.as_object()?)));
    let mut rows: Vec<Vec<String>> =
        objects.map(|(node, fields)| row(cell(&node["node"]), status(node), fields)).collect();
    if nodes.len() > 1 {
        rows.push(row("all".to_owned(), format!("{} nodes", nodes.len()), &sums(nodes)));
    }
    let head = [
        "NODE",
        "STATUS",
        "CONNECTIONS",
        "SESSIONS",
        "EVENTS/S",
        "DELIVERIES/S",
        "DROPS/S",
        "LAG MS",
        "OUTBOX MB",
        "MEMORY MB",
    ];
    table(&head, &rows)
}

fn row(name: String, status: String, fields: &Map<String, Value>) -> Vec<String> {
    let number = |key: &str| fields.get(key).map_or_else(|| "-".to_owned(), cell);
    let megabytes = |key: &str| {
        let bytes = fields.get(key).and_then(Value::as_u64);
        bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6))
    };
    let numbers =
        ["connections", "sessions", "events_per_second", "deliveries_per_second", "drops_per_second", "lag_ms"];
    let tail = ["outbox_bytes", "memory_bytes"];
    [name, status].into_iter().chain(numbers.map(number)).chain(tail.map(megabytes)).collect()
}

/// Of what can be added up.
fn sums(nodes: &[Value]) -> Map<String, Value> {
    let keys =
        ["connections", "sessions", "outbox_bytes", "memory_bytes"].into_iter().chain(RATES.map(|(_, rate)| rate));
    keys.map(|key| (key.to_owned(), nodes.iter().filter_map(|node| node[key].as_u64()).sum::<u64>().into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_are_of_nodes_that_were_there_before() {
        let node =
            |name: &str, events: u64| json!({ "node": name, "status": "ok", "connections": 2, "events_total": events });
        let before = [node("0a", 100)];
        let rated = with_rates(vec![node("0a", 300), node("0b", 50)], &before, Duration::from_secs(2));
        assert_eq!((&rated[0]["events_per_second"], &rated[1]["events_per_second"]), (&json!(100), &Value::Null));
        let text = in_words(&rated);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["0a", "ok", "2", "-", "100", "-", "-", "-", "-", "-"]);
        assert_eq!(lines[3], ["all", "2", "nodes", "4", "0", "100", "0", "0", "-", "0.0", "0.0"]);
    }
}
