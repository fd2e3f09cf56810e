//! Values in raw JSON text, by path. No tree is built, and a value keeps its bytes.

use crate::protocol::json_text;
use serde::Deserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// One step of a path: the key of an object, or an index of an array if it is a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    key: Box<str>,
    index: Option<usize>,
}

impl Step {
    pub(super) fn new(key: &str) -> Self {
        Self { key: key.into(), index: index(key) }
    }
}

/// Reads `0`, `7`, `12`; `None` with a sign or leading zeros.
pub(super) fn index(text: &str) -> Option<usize> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten()
}

/// The text of the value at `path`, if there is one.
pub(super) fn lookup<'a>(json: &'a str, path: &[Step]) -> Option<&'a str> {
    path.iter().try_fold(json.trim_ascii(), |json, step| child(json, step))
}

fn child<'a>(json: &'a str, step: &Step) -> Option<&'a str> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let found = match json.as_bytes().first()? {
        b'{' => parser.deserialize_map(Find(step)),
        b'[' => parser.deserialize_seq(Find(step)),
        _ => return None,
    };
    found.ok().flatten().map(RawValue::get)
}

struct Find<'s>(&'s Step);

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    /// Of equal keys the last one counts, as in `JSON.parse`: the backend must not see another value than the rules.
    /// Keys are read raw because serde refuses half of a surrogate pair.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            if text(key.get()).is_some_and(|key| *key == *self.0.key) {
                found = Some(value);
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut at = 0;
        while let Some(value) = seq.next_element::<&RawValue>()? {
            if Some(at) == self.0.index {
                found = Some(value);
            }
            at += 1;
        }
        Ok(found)
    }
}

/// A string's text, a number as JavaScript writes it, or a boolean; `None` for null, objects and arrays.
pub(super) fn text(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b't' | b'f' => Some(Cow::Borrowed(json)),
        _ => json_text::text(json),
    }
}

/// Appends text as the inside of a JSON string (RFC 8259 section 7).
pub(super) fn push_escaped(out: &mut String, text: &str) {
    use fmt::Write;
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(json: &'a str, path: &str) -> Option<&'a str> {
        lookup(json, &path.split('.').map(Step::new).collect::<Vec<_>>())
    }

    #[test]
    fn values_keep_their_bytes() {
        let json = r#" [ {"n": 12345678901234567890.10 , "s":"a\u0062\/","o":{ "x" : [1, 2] },"z":null}, 2 ] "#;
        assert_eq!(at(json, "0.n"), Some("12345678901234567890.10"));
        assert_eq!(at(json, "0.s"), Some(r#""a\u0062\/""#));
        assert_eq!(at(json, "0.o"), Some(r#"{ "x" : [1, 2] }"#));
        assert_eq!(at(json, "0.o.x.1"), Some("2"));
        assert_eq!(at(json, "0.z"), Some("null"));
        assert_eq!(at(json, "1"), Some("2"));
        for missing in ["2", "0.y", "0.n.x", "0.o.x.2", "0.o.x.01", "0.o.x.+1", "0.z.a", "0.__proto__", "0.s.0"] {
            assert_eq!(at(json, missing), None, "{missing}");
        }
        assert_eq!(at("", "a"), None);
        assert_eq!(at("{\"a\":", "a"), None);
    }

    #[test]
    fn keys_are_compared_as_text_and_the_last_of_equal_ones_counts() {
        assert_eq!(at(r#"{"a":1,"\u0061":2}"#, "a"), Some("2"));
        assert_eq!(at(r#"{"\ud800":1,"a":2}"#, "a"), Some("2"));
        assert_eq!(at(r#"{"1":"x"}"#, "1"), Some("\"x\""));
    }

    #[test]
    fn text_is_decoded_and_only_of_scalars() {
        assert_eq!(text(r#""a\u003ab""#).as_deref(), Some("a:b"));
        assert!(matches!(text("\"plain\""), Some(Cow::Borrowed("plain"))));
        for (number, written) in
            [("42.0", "42"), ("-0", "0"), ("1e400", "Infinity"), ("9007199254740993", "9007199254740993")]
        {
            assert_eq!(text(number).as_deref(), Some(written));
        }
        assert_eq!(text(r#""a\ud800""#).as_deref(), Some("a\u{fffd}"));
        assert_eq!(text("true").as_deref(), Some("true"));
        for none in ["null", "{}", "[1]", ""] {
            assert_eq!(text(none), None, "{none}");
        }
    }

    #[test]
    fn escaped_text_is_read_back() {
        let hostile = "\u{0}\u{1f}\"\\/\n\r\t\u{7f}\u{2028}é😀</script>";
        let mut json = String::from("\"");
        push_escaped(&mut json, hostile);
        json.push('"');
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }
}
