//! `roomcast nodes`.

use crate::cli::cluster_api::{Access, cell, table};
use crate::cli::{Common, Failure};
use serde_json::Value;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let api = arguments.access.open(common)?;
    api.show(&api.ask("/cluster", None)?, in_words);
    Ok(())
}

fn in_words(answer: &Value) -> String {
    let nodes = answer["nodes"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = nodes.map(row).collect();
    table(&["NODE", "STATUS", "VERSION", "UPTIME", "CONNECTIONS", "SESSIONS", "ROOMS", "LAG MS", "CONFIG"], &rows)
}

fn row(node: &Value) -> Vec<String> {
    let uptime = node["uptime_seconds"].as_u64().map(Duration::from_secs);
    vec![
        cell(&node["node"]),
        status(node),
        cell(&node["version"]),
        uptime.map_or_else(|| "-".to_owned(), |uptime| humantime::format_duration(uptime).to_string()),
        cell(&node["connections"]),
        cell(&node["sessions"]),
        cell(&node["rooms"]),
        cell(&node["lag_ms"]),
        config(node),
    ]
}

/// The fingerprint of the configuration: nodes that differ have different settings.
fn config(node: &Value) -> String {
    match node["needs_restart"].as_array() {
        Some(keys) if !keys.is_empty() => format!("{} (needs a restart)", cell(&node["config"])),
        _ => cell(&node["config"]),
    }
}

/// With how far a drain has come.
pub(super) fn status(node: &Value) -> String {
    let drain = &node["drain"];
    match (drain["done"].as_bool(), drain["connections"].as_u64(), drain["left"].as_u64()) {
        (Some(true), ..) => "drained".to_owned(),
        (Some(false), Some(all), Some(left)) => format!("draining ({left} of {all} left)"),
        _ => cell(&node["status"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_in_a_table() {
        let drain = json!({ "done": false, "connections": 9, "left": 4 });
        let nodes = json!({ "nodes": [
            { "node": "0a", "status": "draining", "version": "1.0.0", "uptime_seconds": 61, "connections": 4,
              "sessions": 5, "rooms": 6, "lag_ms": 7, "config": "73d202f365", "drain": drain },
            { "node": "0b", "status": "unreachable" },
        ]});
        let expected = "NODE  STATUS                  VERSION  UPTIME  CONNECTIONS  SESSIONS  ROOMS  LAG MS  CONFIG\n\
                        0a    draining (4 of 9 left)  1.0.0    1m 1s   4            5         6      7       73d202f365\n\
                        0b    unreachable             -        -       -            -         -      -       -";
        assert_eq!(in_words(&nodes), expected);
    }
}
