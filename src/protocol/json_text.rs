//! Strings in JSON, as `JSON.parse` reads them. A string that was cut in the middle of an emoji contains half of a
//! surrogate pair; in UTF-8 the half becomes U+FFFD. Names of rooms and users are refused instead: two different names
//! must not become the same.

use crate::model::names::Room;
use crate::model::number::number_text;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

/// A JSON text in which each `\u` escape of half a surrogate pair is `\ufffd`. Nothing else changes, also not its
/// length.
pub fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    let mut fixed: Option<String> = None;
    let mut at = 0;
    while let Some(step) = memchr::memchr(b'\\', &json.as_bytes()[at..]) {
        let escape = at + step;
        at = match unit(json, escape) {
            Some(0xd800..=0xdbff) if matches!(unit(json, escape + 6), Some(0xdc00..=0xdfff)) => escape + 12,
            Some(0xd800..=0xdfff) => {
                fixed.get_or_insert_with(|| json.to_owned()).replace_range(escape..escape + 6, "\\ufffd");
                escape + 6
            }
            Some(_) => escape + 6,
            None => (escape + 2).min(json.len()),
        };
    }
    fixed.map_or(Cow::Borrowed(json), Cow::Owned)
}

/// The text of a JSON string literal (with its quotes); `None` if it is not one. Half of a surrogate pair is U+FFFD.
pub fn unquote(literal: &str) -> Option<Cow<'_, str>> {
    let inside = literal.strip_prefix('"')?.strip_suffix('"')?;
    match memchr::memchr(b'\\', inside.as_bytes()) {
        None => Some(Cow::Borrowed(inside)),
        Some(_) => serde_json::from_str(&without_lone_surrogates(literal)).ok().map(Cow::Owned),
    }
}

/// The UTF-16 unit of a `\uXXXX` escape at this place.
fn unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

/// A JSON value as a tree.
///
/// # Errors
/// The parser's.
pub fn value(json: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&without_lone_surrogates(json))
}

/// A JSON string. It deserializes from JSON text only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub String);

/// A JSON string that many will share. It deserializes from JSON text only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedText(pub Arc<str>);

/// The name of a room or a user: a JSON string, or a number as JavaScript writes it. It deserializes from JSON text
/// only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string(deserializer).map(|text| Self(text.into_owned()))
    }
}

impl<'de> Deserialize<'de> for SharedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string(deserializer).map(|text| Self(text.as_ref().into()))
    }
}

fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?.get();
    unquote(raw).ok_or_else(|| D::Error::custom(wrong_type(raw, "a string")))
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        let expected =
            if raw.starts_with('"') { "a string without half of a surrogate pair" } else { "a string or a number" };
        let name = name(raw).ok_or_else(|| D::Error::custom(wrong_type(raw, expected)))?;
        Ok(Self(name.into_owned()))
    }
}

impl From<Name> for Room {
    fn from(Name(name): Name) -> Self {
        name.into()
    }
}

/// The name of a room or a user in a JSON value; `None` if it is neither a string nor a number, or contains half of a
/// surrogate pair.
pub fn name(json: &str) -> Option<Cow<'_, str>> {
    match without_lone_surrogates(json) {
        Cow::Borrowed(json) => text(json),
        Cow::Owned(_) => None,
    }
}

/// A JSON value as text: a string, or a number as JavaScript writes it; `None` for anything else.
pub fn text(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first() {
        Some(b'"') => unquote(json),
        Some(b'-' | b'0'..=b'9') => Some(number_text(json)),
        _ => None,
    }
}

fn wrong_type(json: &str, expected: &str) -> String {
    let found = match json.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    };
    format!("expected {expected}, not {found}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_surrogate_pairs_are_replaced_and_nothing_else() {
        for (json, fixed) in [
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\uDE00\uD83D""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00x""#, r#""\ufffd\ud83d\ude00x""#),
            (r#""\ud83d\u0041""#, r#""\ufffd\u0041""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, r#""\\\ufffd""#),
            (r#""é\n""#, r#""é\n""#),
            ("\"\\", "\"\\"),
            ("\"\\ué", "\"\\ué"),
        ] {
            assert_eq!(without_lone_surrogates(json), fixed, "{json}");
        }
        assert_eq!(value(r#"{"a\ud800":["\udfff"]}"#).unwrap()["a\u{fffd}"][0], "\u{fffd}");
    }

    #[test]
    fn names_are_strings_or_numbers() {
        let read = |json: &str| serde_json::from_str::<Name>(json).map(|name| name.0);
        for (json, name) in [("\"a\"", "a"), ("42.0", "42"), ("-0", "0"), (r#""x\ud83d\ude00""#, "x😀")] {
            assert_eq!(read(json).unwrap(), name);
        }
        assert!(read(r#""x\ud800""#).is_err());
        assert_eq!(text(r#""x\ud800""#).as_deref(), Some("x\u{fffd}"));
        assert!(read("true").unwrap_err().to_string().starts_with("expected a string or a number, not a boolean"));
        assert!(
            serde_json::from_str::<Text>("42").unwrap_err().to_string().starts_with("expected a string, not a number")
        );
        assert_eq!(serde_json::from_str::<Option<Text>>("null").unwrap(), None);
    }
}
