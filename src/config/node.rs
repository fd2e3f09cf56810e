//! The tree that all sources become, each value with its place.

use crate::config::mistake::{Faults, Origin, Place};
use serde_json::{Map, Number, Value as Json};
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value, and where it is written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// From the environment or a flag: text whose type the key decides.
    Plain(String),
    Text(String),
    Number(Number),
    Bool(bool),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// JSON's null, from the environment only. TOML has none.
    Null,
    /// A value that no key accepts, and why: `nan`, integers beyond 64 bits.
    Unusable(&'static str),
}

/// A key of a table, with the key's own place (the value has its own).
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub place: Place,
    pub node: Node,
}

impl Node {
    pub(super) fn fault(&self, message: impl Into<String>) -> Faults {
        self.place.fault(message)
    }

    /// The type, for messages, which must not contain the value: it may be a secret.
    pub(super) fn type_name(&self) -> &'static str {
        match &self.value {
            Value::Plain(_) | Value::Text(_) => "a string",
            Value::Number(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Null => "null",
            Value::Unusable(why) => why,
        }
    }

    /// The text of a string; `expected` completes "must be …".
    pub(super) fn text(&self, expected: &str) -> Result<&str, Faults> {
        match &self.value {
            Value::Plain(text) | Value::Text(text) => Ok(text),
            _ => Err(self.fault(format!("must be {expected}, not {}", self.type_name()))),
        }
    }

    /// The items of a list. Text from the environment is a comma list, or with brackets JSON or TOML.
    pub(super) fn items(&self, expected: &str) -> Result<Vec<Self>, Faults> {
        match &self.value {
            Value::List(items) => Ok(items.clone()),
            Value::Plain(text) if text.trim_start().starts_with('[') => self.structured()?.items(expected),
            Value::Plain(text) => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Self { place: self.place.clone(), value: Value::Plain(item.to_owned()) })
                .collect()),
            _ => Err(self.fault(format!("must be {expected}, not {}", self.type_name()))),
        }
    }

    /// The entries of a table. Text from the environment is JSON or an inline TOML table.
    pub(super) fn entries(&self, expected: &str) -> Result<Vec<Entry>, Faults> {
        match &self.value {
            Value::Table(entries) => Ok(entries.clone()),
            Value::Plain(text) if text.trim_start().starts_with('{') => self.structured()?.entries(expected),
            _ => Err(self.fault(format!("must be {expected}, not {}", self.type_name()))),
        }
    }

    /// Any value as JSON, for arguments and claims. Plain text that is not JSON is a string.
    pub(super) fn json(&self) -> Result<Json, Faults> {
        match &self.value {
            Value::Plain(text) => Ok(serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.clone()))),
            Value::Text(text) => Ok(Json::String(text.clone())),
            Value::Number(number) => Ok(Json::Number(number.clone())),
            Value::Bool(yes) => Ok(Json::Bool(*yes)),
            Value::Null => Ok(Json::Null),
            Value::Unusable(why) => Err(self.fault(format!("must be a JSON value, not {why}"))),
            Value::List(items) => collect(items.iter().map(Self::json)).map(Json::Array),
            Value::Table(entries) => collect(entries.iter().map(|entry| Ok((entry.key.clone(), entry.node.json()?))))
                .map(|pairs| Json::Object(pairs.into_iter().collect::<Map<_, _>>())),
        }
    }

    /// Plain text with a list or table: JSON, or TOML as after `key =`.
    fn structured(&self) -> Result<Self, Faults> {
        let Value::Plain(text) = &self.value else { return Ok(self.clone()) };
        if let Ok(json) = serde_json::from_str::<Json>(text) {
            return Ok(from_json(json, self.place.clone()));
        }
        match DeValue::parse(text.trim()) {
            Ok(value) => {
                let node = from_toml(value.get_ref(), self.place.clone(), &|_| self.place.origin.clone());
                Ok(from_json(node.json()?, self.place.clone()))
            }
            // The parser's message may quote the value, which may be a secret.
            Err(_) => Err(self.fault("is neither JSON nor an inline TOML value")),
        }
    }
}

/// All values, or all faults.
pub(super) fn collect<T>(results: impl Iterator<Item = Result<T, Faults>>) -> Result<Vec<T>, Faults> {
    let (mut values, mut faults) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

/// Reads the text of the file: its top-level entries in their order, and what is not TOML.
pub(super) fn parse_file(file: &Arc<Path>, text: &str) -> (Vec<Entry>, Faults) {
    let origin = |offset: usize| {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let (line, column) = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        Origin::File { line, column, file: file.clone() }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    let faults = errors.iter().map(|error| {
        let origin = origin(error.span().map_or(0, |span| span.start));
        (Place { origin, path: String::new() }, format!("not TOML: {}", error.message()))
    });
    (entries(table.get_ref(), &origin, top_path), faults.collect())
}

fn top_path(key: &str, value: &DeValue<'_>) -> String {
    match value {
        DeValue::Table(_) => format!("[{key}]"),
        DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => format!("[[{key}]]"),
        _ => key.to_owned(),
    }
}

fn entries(
    table: &DeTable<'_>,
    origin: &dyn Fn(usize) -> Origin,
    path: impl Fn(&str, &DeValue<'_>) -> String,
) -> Vec<Entry> {
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        let path = path(name, value.get_ref());
        let at = |offset| Place { origin: origin(offset), path: path.clone() };
        let node = from_toml(value.get_ref(), at(value.span().start), origin);
        Entry { key: name.to_string(), place: at(key.span().start), node }
    };
    pairs.into_iter().map(entry).collect()
}

fn from_toml(value: &DeValue<'_>, place: Place, origin: &dyn Fn(usize) -> Origin) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Number(number.into()),
            Err(_) => Value::Unusable("an integer beyond 64 bits"),
        },
        DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
            Some(number) => Value::Number(number),
            None => Value::Unusable("a number that is not finite"),
        },
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => {
            let item = |(index, item): (usize, &Spanned<DeValue<'_>>)| {
                // `[[rooms]] 2` as people count; `origins[0]` as programs do.
                let path = match place.path.starts_with("[[") && place.path.ends_with("]]") {
                    true => format!("{} {}", place.path, index + 1),
                    false => format!("{}[{index}]", place.path),
                };
                from_toml(item.get_ref(), Place { origin: origin(item.span().start), path }, origin)
            };
            Value::List(items.iter().enumerate().map(item).collect())
        }
        DeValue::Table(table) => {
            // `[redis] timeout` and `[[on]] 2 event`, and dots below.
            let section = place.path.starts_with('[') && !place.path.contains("] ");
            let dot = if section || is_rule(&place.path) { ' ' } else { '.' };
            Value::Table(entries(table, origin, |key, _| format!("{}{dot}{key}", place.path)))
        }
    };
    Node { place, value }
}

/// Whether this is the path of one whole rule: `[[on]] 2`.
fn is_rule(path: &str) -> bool {
    path.split_once("]] ").is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn from_json(json: Json, place: Place) -> Node {
    let below = |suffix: String| Place { origin: place.origin.clone(), path: format!("{}{suffix}", place.path) };
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Bool(yes),
        Json::Number(number) => Value::Number(number),
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::List(
            items.into_iter().enumerate().map(|(index, item)| from_json(item, below(format!("[{index}]")))).collect(),
        ),
        Json::Object(pairs) => Value::Table(
            pairs
                .into_iter()
                .map(|(key, value)| {
                    let place = below(format!(".{key}"));
                    Entry { node: from_json(value, place.clone()), key, place }
                })
                .collect(),
        ),
    };
    Node { place, value }
}
