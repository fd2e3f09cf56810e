//! Bodies that are one JSON object. The derived readers of serde also take a list of an object's values in the order of its
//! fields, which nobody means: `[true]` for `{"allow":true}`, say. Sans-IO.

use serde::Deserialize;
use serde::de::Error as _;

/// The mark that some programs put in front of UTF-8 text (U+FEFF). It says nothing.
pub const BYTE_ORDER_MARK: &str = "\u{feff}";

/// What a JSON text is instead of an object, if that shows in its first character.
pub fn problem(json: &[u8]) -> Option<&'static str> {
    match json.trim_ascii_start().first() {
        Some(b'[') => Some("expected an object, not a list"),
        Some(_) => None,
        None => Some("expected an object, but there is nothing"),
    }
}

/// Reads an object.
///
/// # Errors
/// The parser's, or [`problem`].
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    let body = body.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(body);
    match problem(body) {
        Some(problem) => Err(serde_json::Error::custom(problem)),
        None => serde_json::from_slice(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Decision {
        allow: bool,
        error: Option<u8>,
    }

    #[test]
    fn only_objects_are_read() {
        let read = |json: &str| read::<Decision>(json.as_bytes());
        let allowed = Decision { allow: true, error: None };
        for json in [r#"{"allow":true}"#, " \r\n\t{\"allow\":true}\n", "\u{feff}{\"allow\":true}"] {
            assert_eq!(read(json).unwrap(), allowed, "{json}");
        }
        assert_eq!(serde_json::from_str::<Decision>("[true,null]").unwrap(), allowed, "what serde takes by itself");
        for json in ["[true,null]", " [true,null]", "[]", "[", "", " \n", "null", "true", "\u{feff}"] {
            assert!(read(json).is_err(), "{json}");
        }
        assert_eq!(read("[true,null]").unwrap_err().to_string(), "expected an object, not a list");
        assert_eq!(read("\n").unwrap_err().to_string(), "expected an object, but there is nothing");
    }
}
