//! What the commands for operators share: where the node is, the request, and tables.

use crate::cli::http::{Question, ask, base_url, follow};
use crate::cli::node_access::NodeAccess;
use crate::cli::{Common, Failure, block_on, is_read, say};
use hyper::StatusCode;
use serde_json::Value;

#[derive(clap::Args)]
pub(super) struct Access {
    /// The node [default: where the configuration listens, or its admin_listen]
    #[arg(long, value_parser = base_url)]
    url: Option<String>,
    /// The key [default: the first of `publish.keys`, ROOMCAST_PUBLISH__KEYS]; other processes can see flags
    #[arg(long)]
    key: Option<String>,
    /// Print the node's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Which part of a list.
#[derive(clap::Args)]
pub(super) struct Page {
    /// At most so many, up to 1000 [default: 100]
    #[arg(long)]
    pub limit: Option<u16>,
    /// Those behind the last list
    #[arg(long)]
    pub cursor: Option<String>,
}

/// A running node that is asked.
pub(super) struct ClusterApi {
    node: NodeAccess,
    /// Whether the answer is wanted as it is.
    pub json: bool,
}

impl Access {
    /// Whether the answer is wanted as it is.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    pub(super) fn open(self, common: Common) -> Result<ClusterApi, Failure> {
        let Self { url, key, json } = self;
        Ok(ClusterApi { node: NodeAccess::find(common, url, key)?, json })
    }
}

impl ClusterApi {
    /// The answer to a GET, or with a body to a POST. Anything but 200 is a failure.
    pub(super) fn ask(&self, path: &str, body: Option<String>) -> Result<String, Failure> {
        let question = Question { url: format!("{}{path}", self.node.url), key: Some(&self.node.key), body };
        match block_on(ask(question))? {
            Ok((StatusCode::OK, answer)) => Ok(answer),
            Ok((status, answer)) => Err(Failure::at_run_time(format!("refused ({status}): {}", answer.trim_end()))),
            Err(why) => Err(Failure::at_run_time(why)),
        }
    }

    /// A POST with the first key that the node knows. Answers whether it was done, and with what; `false` for a configuration
    /// with mistakes. Everything else is a failure.
    pub(super) fn post_with_any_key(&self, path: &str, body: &str) -> Result<(bool, String), Failure> {
        let url = format!("{}{path}", self.node.url);
        for key in std::iter::once(&self.node.key).chain(&self.node.other_keys) {
            let question = Question { url: url.clone(), key: Some(key), body: Some(body.to_owned()) };
            match block_on(ask(question))? {
                Ok((StatusCode::OK, answer)) => return Ok((true, answer)),
                Ok((StatusCode::UNPROCESSABLE_ENTITY, answer)) => return Ok((false, answer)),
                Ok((StatusCode::UNAUTHORIZED, _)) => {}
                Ok((status, answer)) => {
                    return Err(Failure::at_run_time(format!("refused ({status}): {}", answer.trim_end())));
                }
                Err(why) => return Err(Failure::at_run_time(why)),
            }
        }
        Err(Failure::at_run_time(
            "refused: the node knows none of the keys; give the one it knows with --key, or send it SIGHUP",
        ))
    }

    /// Prints what a node streams, each line as `show` gives it, until the stream ends or nobody reads what is printed.
    pub(super) fn follow(&self, path: &str, show: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
        let question = Question { url: format!("{}{path}", self.node.url), key: Some(&self.node.key), body: None };
        let each = |line: &str| show(line).is_none_or(|text| is_read(&text));
        match block_on(follow(question, each))? {
            Ok((StatusCode::OK, _)) => Ok(()),
            Ok((status, answer)) => Err(Failure::at_run_time(format!("refused ({status}): {}", answer.trim_end()))),
            Err(why) => Err(Failure::at_run_time(format!("{}{path}: {why}", self.node.url))),
        }
    }

    /// Prints an answer: as it is with `--json`, else in words.
    pub(super) fn show(&self, answer: &str, in_words: impl FnOnce(&Value) -> String) {
        match self.json {
            true => say(answer.trim_end()),
            false => say(&in_words(&serde_json::from_str(answer).unwrap_or_default())),
        }
    }
}

/// A path with those of these pairs that have a value.
pub(super) fn path(path: &str, pairs: &[(&str, Option<String>)]) -> String {
    let given = pairs.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// What follows a list: how to get on, and what is missing from it.
pub(super) fn list_end(answer: &Value) -> String {
    let more = answer["cursor"].as_str().map(|cursor| format!("\n\nThere are more: --cursor {cursor}"));
    let pending = answer["nodes_pending"].as_u64().map(|nodes| format!("\n\n{nodes} nodes did not answer in time"));
    more.into_iter().chain(pending).collect()
}

/// A value of an answer for people: `-` where there is none. Names come from clients, so control characters are escaped.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text
            .chars()
            .flat_map(|c| c.is_control().then(|| c.escape_default()).map_or_else(|| vec![c], Iterator::collect))
            .collect(),
        other => other.to_string(),
    }
}

/// Columns as wide as what is in them.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    lines.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_are_escaped() {
        let rows = [vec![cell(&"a\u{1b}[2J".into()), cell(&7.into())], vec![cell(&Value::Null), cell(&"x".into())]];
        assert_eq!(table(&["NODE", "N"], &rows), "NODE        N\na\\u{1b}[2J  7\n-           x");
    }
}
