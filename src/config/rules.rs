//! `[[rooms]]` and `[[on]]`: from tables to the structs of [`crate::rules::config`]. The form of names,
//! patterns and placeholders is checked by [`crate::rules`], which compiles each rule here to find its mistakes.

use crate::config::kind::{Choice, Kind, List, Switch, Text};
use crate::config::mistake::{Faults, Place, did_you_mean};
use crate::config::node::{Entry, Node, Value, collect};
use crate::config::text;
use crate::config::toml_text::toml_value;
use crate::rules::config::{EmitTemplate, JoinPolicy, MessageTemplate, OnRuleConfig, RoomRuleConfig};
use crate::rules::{RuleMistake, Rules};
use serde_json::{Map, Value as Json, json};
use std::slice;

/// The keys of one table, taken one by one. Those that remain are unknown.
pub(super) struct Fields {
    place: Place,
    entries: Vec<Entry>,
    taken: Vec<&'static str>,
    faults: Faults,
}

impl Fields {
    fn of(node: &Node, expected: &str) -> Result<Self, Faults> {
        let entries = node.entries(expected)?;
        Ok(Self { place: node.place.clone(), entries, taken: Vec::new(), faults: Vec::new() })
    }

    /// Reads a key, if it is given.
    fn take<K: Kind>(&mut self, key: &'static str, kind: K) -> Option<K::Value> {
        self.taken.push(key);
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.swap_remove(at);
        kind.read(&entry.node).map_err(|faults| self.faults.extend(faults)).ok()
    }

    /// Reads a required key.
    fn need<K: Kind<Value: Default>>(&mut self, key: &'static str, kind: K) -> K::Value {
        if !self.entries.iter().any(|entry| entry.key == key) {
            self.faults.extend(self.place.fault(format!("`{key}` is missing")));
        }
        self.take(key, kind).unwrap_or_default()
    }

    fn finish<T>(mut self, value: T) -> Result<T, Faults> {
        for entry in &self.entries {
            let hint = did_you_mean(&entry.key, self.taken.iter().copied());
            self.faults.extend(entry.place.fault(format!("unknown key{hint}")));
        }
        if self.faults.is_empty() { Ok(value) } else { Err(self.faults) }
    }
}

/// The rule if it compiles, else what is wrong, at the keys of its table.
fn compiled<T>(rule: T, node: &Node, compile: impl FnOnce(&T) -> Result<Rules, Vec<RuleMistake>>) -> Result<T, Faults> {
    let Err(mistakes) = compile(&rule) else { return Ok(rule) };
    let entries = node.entries("a table")?;
    let place =
        |key: &str| entries.iter().find(|entry| entry.key == key).map_or(&node.place, |entry| &entry.node.place);
    Err(mistakes.into_iter().flat_map(|mistake| place(mistake.key).fault(mistake.message)).collect())
}

/// A list of arguments: any JSON values.
struct Arguments;

impl Kind for Arguments {
    type Value = Vec<Json>;

    fn read(&self, node: &Node) -> Result<Vec<Json>, Faults> {
        match &node.value {
            Value::List(items) => collect(items.iter().map(Node::json)),
            _ => {
                Err(node.fault(format!("must be a list of arguments like [{{ ok = true }}], not {}", node.type_name())))
            }
        }
    }

    fn write(&self, value: &Vec<Json>) -> Option<String> {
        Some(toml_value(&Json::Array(value.clone())))
    }
}

/// `{ event = "…", args = […] }`.
struct Message;

impl Kind for Message {
    type Value = MessageTemplate;

    fn read(&self, node: &Node) -> Result<MessageTemplate, Faults> {
        let mut fields = Fields::of(node, "a table like { event = \"…\", args = [] }")?;
        let event = fields.need("event", Text(text::filled));
        let args = fields.take("args", Arguments).unwrap_or_default();
        fields.finish(MessageTemplate { event, args })
    }

    fn write(&self, value: &MessageTemplate) -> Option<String> {
        Some(toml_value(&message_json(value)))
    }
}

/// `{ room = "…", event = "…", args = […], volatile = true, include_caller = true }`.
struct Emit;

impl Kind for Emit {
    type Value = EmitTemplate;

    fn read(&self, node: &Node) -> Result<EmitTemplate, Faults> {
        let mut fields = Fields::of(node, "a table like { room = \"…\", event = \"…\", args = [] }")?;
        let room = fields.need("room", Text(text::filled));
        let event = fields.need("event", Text(text::filled));
        let args = fields.take("args", Arguments).unwrap_or_default();
        let volatile = fields.take("volatile", Switch).unwrap_or(false);
        let include_caller = fields.take("include_caller", Switch).unwrap_or(false);
        fields.finish(EmitTemplate { room, message: MessageTemplate { event, args }, volatile, include_caller })
    }

    fn write(&self, _: &EmitTemplate) -> Option<String> {
        None
    }
}

/// `join` and `leave` of an `[[on]]` rule: one room or a list.
struct OneOrMore;

impl Kind for OneOrMore {
    type Value = Vec<String>;

    fn read(&self, node: &Node) -> Result<Vec<String>, Faults> {
        let rooms = Text(text::filled);
        match &node.value {
            Value::List(_) => List { of: rooms, least: 1 }.read(node),
            _ => rooms.read(node).map(|room| vec![room]),
        }
    }

    fn write(&self, value: &Vec<String>) -> Option<String> {
        List { of: Text(text::filled), least: 0 }.write(value)
    }
}

/// `join` of a `[[rooms]]` rule.
struct Policy;

impl Policy {
    const WORDS: Choice = Choice(&["auto", "allow", "ask", "deny"]);
}

impl Kind for Policy {
    type Value = Option<JoinPolicy>;

    fn read(&self, node: &Node) -> Result<Option<JoinPolicy>, Faults> {
        Ok(Some(match Self::WORDS.read(node)?.as_str() {
            "auto" => JoinPolicy::Auto,
            "allow" => JoinPolicy::Allow,
            "ask" => JoinPolicy::Ask,
            _ => JoinPolicy::Deny,
        }))
    }

    fn write(&self, _: &Option<JoinPolicy>) -> Option<String> {
        None
    }
}

/// One `[[rooms]]` table.
pub(super) struct RoomRule;

impl Kind for RoomRule {
    type Value = RoomRuleConfig;

    fn read(&self, node: &Node) -> Result<RoomRuleConfig, Faults> {
        let mut fields = Fields::of(node, "a table like { match = \"user:{user}\", join = \"auto\" }")?;
        let pattern = fields.need("match", Text(text::filled));
        let join = fields.need("join", Policy).unwrap_or(JoinPolicy::Deny);
        let presence = fields.take("presence", Switch).unwrap_or(false);
        let joined = fields.take("joined", Message);
        let left = fields.take("left", Message);
        let rule = fields.finish(RoomRuleConfig { pattern, join, presence, joined, left })?;
        compiled(rule, node, |rule| Rules::compile(slice::from_ref(rule), &[]))
    }

    fn write(&self, value: &RoomRuleConfig) -> Option<String> {
        Some(toml_value(&room_json(value)))
    }
}

/// One `[[on]]` table.
pub(super) struct OnRule;

impl Kind for OnRule {
    type Value = OnRuleConfig;

    fn read(&self, node: &Node) -> Result<OnRuleConfig, Faults> {
        let mut fields = Fields::of(node, "a table like { event = \"typing\", … }")?;
        let rule = OnRuleConfig {
            namespace: fields.take("namespace", Text(text::namespace)).unwrap_or_else(|| "/".into()),
            event: fields.need("event", Text(text::filled)),
            join: fields.take("join", OneOrMore).unwrap_or_default(),
            leave: fields.take("leave", OneOrMore).unwrap_or_default(),
            reply: fields.take("reply", Message),
            emit: fields.take("emit", List { of: Emit, least: 0 }).unwrap_or_default(),
            ack: fields.take("ack", Arguments),
            on_error: fields.take("on_error", Message),
            ack_error: fields.take("ack_error", Arguments),
            forward: fields.take("forward", Switch).unwrap_or(false),
        };
        compiled(fields.finish(rule)?, node, |rule| Rules::compile(&[], slice::from_ref(rule)))
    }

    fn write(&self, value: &OnRuleConfig) -> Option<String> {
        Some(toml_value(&on_json(value)))
    }
}

fn message_json(message: &MessageTemplate) -> Json {
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
    let mut pairs = Map::new();
    pairs.insert("match".into(), rule.pattern.clone().into());
    pairs.insert("join".into(), rule.join.label().into());
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
