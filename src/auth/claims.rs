//! Claims as JSON: a parser that refuses duplicate keys, and paths such as `user.id`. Sans-IO.

use aws_lc_rs::digest::{Context, SHA256};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};
use std::fmt;

/// Reads a JSON object in which no object has a key twice. Two readers of `{"sub":"a","sub":"b"}` may see two users, so
/// such a token is refused (RFC 7519 section 4).
pub(super) fn parse(text: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Strict(Value::Object(map))) => Some(map),
        _ => None,
    }
}

/// The value at a path. A key that is the whole path wins, such as `https://example.com/id`; otherwise the path is cut
/// at its dots, leftmost first.
pub(super) fn lookup<'a>(map: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    map.get(path).or_else(|| {
        dots(path).find_map(|(head, rest)| match map.get(head) {
            Some(Value::Object(inner)) => lookup(inner, rest),
            _ => None,
        })
    })
}

/// Like [`lookup`], on JSON text. Parses only the objects on the path.
pub(super) fn find(object: &str, path: &str) -> Option<Value> {
    fn raw<'a>(object: &'a str, path: &str) -> Option<&'a RawValue> {
        let Entries(entries) = serde_json::from_str(object).ok()?;
        let get = |key: &str| entries.iter().find(|(name, _)| name == key).map(|(_, value)| *value);
        get(path).or_else(|| dots(path).find_map(|(head, rest)| raw(get(head)?.get(), rest)))
    }
    serde_json::from_str(raw(object, path)?.get()).ok()
}

/// Claims that differ from token to token of the same rights (RFC 7519 section 4.1).
const OF_THE_TOKEN: [&str; 4] = ["exp", "iat", "jti", "nbf"];

/// What decisions about a token's user may depend on: a digest of all claims but those that tell tokens apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimsDigest([u8; 16]);

impl ClaimsDigest {
    /// Of a JSON object. The order of its keys does not matter.
    pub(super) fn of(object: &str) -> Self {
        let Entries(mut entries) = serde_json::from_str(object).unwrap_or_default();
        entries.retain(|(name, _)| !OF_THE_TOKEN.contains(&name.as_str()));
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut digest = Context::new(&SHA256);
        for (name, value) in &entries {
            for part in [name.as_str(), value.get()] {
                digest.update(&(part.len() as u64).to_be_bytes());
                digest.update(part.as_bytes());
            }
        }
        let mut short = [0; 16];
        short.copy_from_slice(&digest.finish().as_ref()[..16]);
        Self(short)
    }

    /// As text, for session records.
    pub fn to_text(self) -> String {
        hex::encode(self.0)
    }

    /// From [`Self::to_text`].
    pub fn from_text(text: &str) -> Option<Self> {
        let mut digest = [0; 16];
        hex::decode_to_slice(text, &mut digest).ok()?;
        Some(Self(digest))
    }
}

/// Puts a value at a path and creates the objects on it: the inverse of [`lookup`], for signing.
pub fn insert(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        Some((head, rest)) if !path.contains("://") => {
            let inner = map.entry(head).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
        _ => {
            map.insert(path.to_owned(), value);
        }
    }
}

fn dots(path: &str) -> impl Iterator<Item = (&str, &str)> {
    path.match_indices('.').map(|(at, _)| (&path[..at], &path[at + 1..]))
}

#[derive(Default)]
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A tree without duplicate keys. serde_json limits its depth to 128.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate keys")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Strict(value))) = access.next_entry::<String, Strict>()? {
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key comes twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEXT: &str =
        r#"{"sub":"7","user":{"id":9,"a.b":{"c":1}},"https://x.com/id":"n","a":{"b":1},"a.b":2,"e\u0073c":3}"#;

    #[test]
    fn paths_are_found_in_the_tree_and_in_the_text_alike() {
        let map = parse(TEXT).unwrap();
        for (path, value) in [
            ("sub", Some(json!("7"))),
            ("user.id", Some(json!(9))),
            ("user.a.b.c", Some(json!(1))),
            ("user", Some(json!({"id": 9, "a.b": {"c": 1}}))),
            ("https://x.com/id", Some(json!("n"))),
            ("a.b", Some(json!(2))),
            ("esc", Some(json!(3))),
            ("user.", None),
            ("", None),
            (".", None),
            ("sub.x", None),
            ("user.id.x", None),
            ("none", None),
        ] {
            assert_eq!(lookup(&map, path), value.as_ref(), "{path}");
            assert_eq!(find(TEXT, path), value, "{path}");
        }
    }

    #[test]
    fn what_is_inserted_is_looked_up() {
        let mut map = Map::new();
        for path in ["sub", "user.id", "user.name", "https://x.com/id"] {
            insert(&mut map, path, json!(path));
        }
        for path in ["sub", "user.id", "user.name", "https://x.com/id"] {
            assert_eq!(lookup(&map, path), Some(&json!(path)));
        }
        insert(&mut map, "sub.x", json!(1));
        assert_eq!(lookup(&map, "sub.x"), Some(&json!(1)));
    }

    #[test]
    fn what_tells_tokens_apart_decides_nothing() {
        let one = ClaimsDigest::of(r#"{"sub":"7","exp":1,"iat":1,"org":{"id":"a"}}"#);
        assert_eq!(one, ClaimsDigest::of(r#"{"org":{"id":"a"},"exp":2,"sub":"7","jti":"x","nbf":3}"#));
        for other in
            [r#"{"sub":"7","org":{"id":"b"}}"#, r#"{"sub":"7"}"#, "{}", r#"{"sub":"7","org":{"id":"a"},"more":1}"#]
        {
            assert_ne!(one, ClaimsDigest::of(other), "{other}");
        }
        assert_eq!(ClaimsDigest::from_text(&one.to_text()), Some(one));
        assert_eq!(ClaimsDigest::from_text("00"), None);
    }

    #[test]
    fn duplicates_and_what_is_no_object_are_refused() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[{"a":1,"a":2}]}"#,
            r#"{"exp":1e400}"#,
            r#"{"exp":NaN}"#,
            r#"{"a":"\ud800"}"#,
            "[]",
            "7",
            "null",
            "",
            "{} {}",
            &deep,
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse(r#"{"$serde_json::private::RawValue":"[1]"}"#).is_some());
    }
}
