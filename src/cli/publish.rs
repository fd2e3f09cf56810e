//! `roomcast publish`.

use crate::cli::http::{Question, ask, base_url};
use crate::cli::node_access::NodeAccess;
use crate::cli::{Common, Failure, block_on, say};
use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The room; may be given several times
    #[arg(long, required = true)]
    room: Vec<String>,
    /// The event's name
    #[arg(long)]
    event: String,
    /// Its argument, as JSON (a string needs its quotes: '"hi"') [default: no argument]
    #[arg(long, value_name = "JSON", value_parser = json)]
    data: Option<Box<RawValue>>,
    /// The namespace of the rooms [default: /]
    #[arg(long)]
    namespace: Option<String>,
    /// The node [default: where the configuration listens, or its admin_listen]
    #[arg(long, value_parser = base_url)]
    url: Option<String>,
    /// The key [default: the first of `publish.keys`, ROOMCAST_PUBLISH__KEYS]; other processes can see flags
    #[arg(long)]
    key: Option<String>,
}

/// Keeps the text as written, so that 9007199254740993 is not rounded.
fn json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error} (a string needs its quotes: '\"hi\"')"))
}

#[derive(Serialize)]
struct Body<'a> {
    rooms: &'a [String],
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<[(); 0]>,
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let body = Body {
        rooms: &arguments.room,
        event: &arguments.event,
        namespace: arguments.namespace.as_deref(),
        data: arguments.data.as_deref(),
        args: arguments.data.is_none().then_some([]),
    };
    let body = serde_json::to_string(&body).map_err(Failure::at_run_time)?;
    let NodeAccess { url, key, .. } = NodeAccess::find(common, arguments.url, arguments.key)?;
    let question = Question { url: format!("{url}/publish"), key: Some(&key), body: Some(body) };
    match block_on(ask(question))? {
        Ok((StatusCode::OK, answer)) => {
            say(answer.trim_end());
            Ok(())
        }
        Ok((status, answer)) => Err(Failure::at_run_time(format!("refused ({status}): {}", answer.trim_end()))),
        Err(why) => Err(Failure::at_run_time(why)),
    }
}
