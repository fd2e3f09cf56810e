//! `roomcast rooms`.

use crate::cli::cluster_api::{Access, Page, cell, list_end, path, table};
use crate::cli::{Common, Failure};
use serde_json::Value;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Only rooms whose names begin with this
    prefix: Option<String>,
    #[command(flatten)]
    page: Page,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { prefix, page: Page { limit, cursor }, access } = arguments;
    let limit = limit.map(|limit| limit.to_string());
    let api = access.open(common)?;
    let answer = api.ask(&path("/rooms", &[("prefix", prefix), ("limit", limit), ("cursor", cursor)]), None)?;
    api.show(&answer, in_words);
    Ok(())
}

fn in_words(answer: &Value) -> String {
    let rooms = answer["rooms"].as_array().into_iter().flatten();
    let rows: Vec<_> =
        rooms.map(|room| ["room", "namespace", "connections"].map(|key| cell(&room[key])).to_vec()).collect();
    table(&["ROOM", "NAMESPACE", "CONNECTIONS"], &rows) + &list_end(answer)
}
