//! The effective configuration as TOML, secrets masked.

use crate::config::keys::KEYS;
use crate::config::rules::{on_json, room_json};
use crate::config::settings::Config;
use crate::config::toml_text::toml_value;
use serde_json::Value as Json;

/// Every key with its value; one that is not set is a comment.
pub(super) fn effective(config: &Config) -> String {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS.iter().filter(|key| key.is_shown()) {
        if key.section != section {
            section = key.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        match (key.show)(config) {
            Some(value) => text.push_str(&format!("{} = {value}\n", key.name)),
            None => text.push_str(&format!("# {} is not set\n", key.name)),
        }
    }
    for rule in &config.rooms {
        text.push_str(&table("rooms", room_json(rule)));
    }
    for rule in &config.on {
        text.push_str(&table("on", on_json(rule)));
    }
    text
}

fn table(name: &str, rule: Json) -> String {
    let Json::Object(pairs) = rule else { return String::new() };
    let lines: String = pairs.iter().map(|(key, value)| format!("{key} = {}\n", toml_value(value))).collect();
    format!("\n[[{name}]]\n{lines}")
}
