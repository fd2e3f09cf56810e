//! Arguments of events, as raw JSON text.

use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;

/// JSON nested deeper than this is refused wherever it enters, because parsers of clients recurse.
pub const MAX_JSON_DEPTH: usize = 128;

/// The arguments of an event: the raw text of a JSON array, kept byte for byte as the publisher wrote each value.
#[derive(Clone, PartialEq, Eq)]
pub struct Args {
    array: Arc<str>,
    count: u32,
    binary: bool,
}

/// Why a text is not a list of arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// Not JSON, or not an array where one is needed; the parser's message.
    #[error("{0}")]
    Invalid(String),
    /// Nested deeper than [`MAX_JSON_DEPTH`].
    #[error("nested deeper than {MAX_JSON_DEPTH} levels")]
    TooDeep,
}

impl Args {
    /// No arguments: `[]`.
    pub fn none() -> Self {
        Self { array: "[]".into(), count: 0, binary: false }
    }

    /// Exactly one argument from its JSON text.
    pub fn one(json: &str) -> Result<Self, ArgsError> {
        let value: &RawValue = parse(json)?;
        let array = format!("[{}]", value.get());
        Ok(Self { binary: mentions_binary(&array), array: array.into(), count: 1 })
    }

    /// The same of a value that is part of a JSON text which was parsed, and is not nested deeper than
    /// [`MAX_JSON_DEPTH`].
    pub fn parsed(json: &str) -> Self {
        debug_assert!(Self::one(json).is_ok_and(|args| args.len() == json.len() + 2), "not a value: {json}");
        let array = ["[", json, "]"].concat();
        Self { binary: mentions_binary(&array), array: array.into(), count: 1 }
    }

    /// All arguments from the text of a JSON array.
    pub fn list(json: &str) -> Result<Self, ArgsError> {
        let values: Vec<&RawValue> = parse(json)?;
        let count = u32::try_from(values.len()).map_err(|_| ArgsError::Invalid("too many arguments".into()))?;
        let array = json.trim_matches(JSON_SPACE);
        Ok(Self { binary: mentions_binary(array), array: array.into(), count })
    }

    /// All arguments from the text of a JSON array, without parsing it. Only for code that composed the text from
    /// checked JSON values: `array` must be one valid JSON array, without white space around it, of `count`
    /// values, nested at most [`MAX_JSON_DEPTH`] deep.
    pub fn trusted(array: String, count: u32) -> Self {
        debug_assert_eq!(Self::list(&array).map(|args| args.count), Ok(count), "not a list of {count}: {array}");
        Self { binary: mentions_binary(&array), array: array.into(), count }
    }

    /// The arguments as the text of a JSON array.
    pub fn as_array(&self) -> &str {
        &self.array
    }

    /// The text between the brackets.
    pub fn inner(&self) -> &str {
        self.array[1..self.array.len() - 1].trim_matches(JSON_SPACE)
    }

    /// The argument's text, if there is exactly one.
    pub fn single(&self) -> Option<&str> {
        (self.count == 1).then(|| self.inner())
    }

    /// Number of arguments.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Whether the text may contain `{"$binary":…}` values. Encoders search for them only then.
    pub fn may_hold_binary(&self) -> bool {
        self.binary
    }

    /// Bytes of JSON text.
    pub fn len(&self) -> usize {
        self.array.len()
    }

    /// Whether there are no arguments.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_array())
    }
}

const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Whether a text is one JSON value that is not nested too deep.
pub fn is_json(json: &str) -> bool {
    !is_too_deep(json) && serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok()
}

fn parse<'a, T: serde::Deserialize<'a>>(json: &'a str) -> Result<T, ArgsError> {
    if is_too_deep(json) {
        return Err(ArgsError::TooDeep);
    }
    serde_json::from_str(json).map_err(|e| ArgsError::Invalid(e.to_string()))
}

fn mentions_binary(array: &str) -> bool {
    // Few texts have a dollar, which is found quickly.
    let bytes = array.as_bytes();
    memchr::memchr(b'$', bytes).is_some() && memchr::memmem::find(bytes, b"\"$binary\"").is_some()
}

/// Whether a JSON text is nested deeper than [`MAX_JSON_DEPTH`].
pub fn is_too_deep(json: &str) -> bool {
    // Nearly always there are fewer brackets, and then it does not matter how they are nested.
    let brackets = memchr::memchr2_iter(b'[', b'{', json.as_bytes());
    brackets.take(MAX_JSON_DEPTH + 1).count() > MAX_JSON_DEPTH && json_depth(json) > MAX_JSON_DEPTH
}

/// The deepest nesting of arrays and objects in a JSON text, counted without recursion.
pub fn json_depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(inside) = bytes.next() {
                    match inside {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_bytes() {
        let args = Args::one(" {\"n\":9007199254740993, \"s\":\"\\ud83d\\ude00é\"} ").unwrap();
        assert_eq!(args.as_array(), "[{\"n\":9007199254740993, \"s\":\"\\ud83d\\ude00é\"}]");
        assert_eq!(args.count(), 1);
        let args = Args::list(" [1, [2] ,3.10] ").unwrap();
        assert_eq!((args.inner(), args.count()), ("1, [2] ,3.10", 3));
        assert_eq!(Args::list("[]").unwrap().count(), 0);
        assert!(Args::list("{}").is_err());
        assert!(Args::one("1 2").is_err());
        assert!(Args::one("{\"$binary\":\"AA==\"}").unwrap().may_hold_binary());
        assert_eq!(Args::parsed("{\"$binary\":\"AA==\"}"), Args::one("{\"$binary\":\"AA==\"}").unwrap());
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(Args::one(&deep), Err(ArgsError::TooDeep));
        assert_eq!(Args::one(&"[".repeat(1 << 20)), Err(ArgsError::TooDeep));
        assert!(Args::one("\"[[[[\\\"[[[\"").is_ok());
        assert_eq!(json_depth("{\"a\":[\"]\",{}]}"), 3);
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_too_deep(&nested(MAX_JSON_DEPTH)) && is_too_deep(&nested(MAX_JSON_DEPTH + 1)));
        assert!(!is_too_deep(&format!("[{}[]]", "[],".repeat(1_000))), "many brackets side by side");
    }
}
