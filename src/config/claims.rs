//! `[auth] require`: claims and the values that they must have.

use crate::config::kind::Kind;
use crate::config::mistake::Faults;
use crate::config::node::{Entry, Node, collect};
use crate::config::text::claim_path;
use crate::config::toml_text::toml_value;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// A table of claims and the values that they must have.
pub(super) struct Claims;

impl Kind for Claims {
    type Value = BTreeMap<String, Json>;

    fn read(&self, node: &Node) -> Result<Self::Value, Faults> {
        let entries = node.entries("a table like { email_verified = true }")?;
        let claim = |entry: &Entry| match claim_path(&entry.key) {
            Ok(path) => Ok((path, entry.node.json()?)),
            Err(why) => Err(entry.place.fault(why)),
        };
        Ok(collect(entries.iter().map(claim))?.into_iter().collect())
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        let pairs = value.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Some(toml_value(&Json::Object(pairs)))
    }
}
