//! The effective configuration as TOML text, secrets masked.

use crate::config::Config;
use crate::config::keys::KEYS;
use crate::config::kind::quoted;
use crate::rules::config::{EmitTemplate, JoinPolicy, MessageTemplate, OnRuleConfig, RoomRuleConfig};
use serde_json::{Map, Value as Json, json};

/// One JSON value as TOML. `null`, which TOML has not, stays `null`: only the environment can give one.
pub(super) fn toml_value(json: &Json) -> String {
    match json {
        Json::String(text) => quoted(text),
        Json::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Json::Object(pairs) if pairs.is_empty() => "{}".into(),
        Json::Object(pairs) => {
            let pair = |(key, value): (&String, &Json)| format!("{} = {}", toml_key(key), toml_value(value));
            format!("{{ {} }}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn toml_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if bare { key.to_owned() } else { quoted(key) }
}

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

pub(super) fn message_json(message: &MessageTemplate) -> Json {
    json!({ "event": message.event, "args": message.args })
}

fn emit_json(emit: &EmitTemplate) -> Json {
    json!({
        "room": emit.room,
        "event": emit.message.event,
        "args": emit.message.args,
        "volatile": emit.volatile,
        "include_caller": emit.include_caller,
    })
}

pub(super) fn room_json(rule: &RoomRuleConfig) -> Json {
    let join = match rule.join {
        JoinPolicy::Auto => "auto",
        JoinPolicy::Allow => "allow",
        JoinPolicy::Ask => "ask",
        JoinPolicy::Deny => "deny",
    };
    let mut pairs = Map::new();
    pairs.insert("match".into(), rule.pattern.clone().into());
    pairs.insert("join".into(), join.into());
    if rule.presence {
        pairs.insert("presence".into(), true.into());
    }
    for (key, message) in [("joined", &rule.joined), ("left", &rule.left)] {
        pairs.extend(message.iter().map(|message| (key.to_owned(), message_json(message))));
    }
    Json::Object(pairs)
}

pub(super) fn on_json(rule: &OnRuleConfig) -> Json {
    let mut pairs = Map::new();
    pairs.insert("namespace".into(), rule.namespace.clone().into());
    pairs.insert("event".into(), rule.event.clone().into());
    for (key, rooms) in [("join", &rule.join), ("leave", &rule.leave)] {
        if !rooms.is_empty() {
            pairs.insert(key.into(), rooms.clone().into());
        }
    }
    for (key, message) in [("reply", &rule.reply), ("on_error", &rule.on_error)] {
        pairs.extend(message.iter().map(|message| (key.to_owned(), message_json(message))));
    }
    if !rule.emit.is_empty() {
        pairs.insert("emit".into(), rule.emit.iter().map(emit_json).collect());
    }
    for (key, args) in [("ack", &rule.ack), ("ack_error", &rule.ack_error)] {
        pairs.extend(args.iter().map(|args| (key.to_owned(), args.clone().into())));
    }
    if rule.forward {
        pairs.insert("forward".into(), true.into());
    }
    Json::Object(pairs)
}
