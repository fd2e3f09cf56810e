//! Raw JSON text: writing strings, and finding the two objects with a meaning, both without a tree.

use crate::protocol::json_text::unquote;
use std::fmt;
use std::ops::Range;

/// Bytes that [`push_string`] writes.
pub fn string_len(text: &str) -> usize {
    2 + text.bytes().map(escaped_len).sum::<usize>()
}

fn escaped_len(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// Appends a text as a JSON string, escaped as `JSON.stringify` does.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if escaped_len(byte) == 1 {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0d => out.extend_from_slice(b"\\r"),
            _ => {
                const HEX: [u8; 16] = *b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}

/// A text as a JSON string, for `format!`.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(string_len(self.0));
        push_string(&mut out, self.0);
        f.write_str(str::from_utf8(&out).map_err(|_| fmt::Error)?)
    }
}

/// An object with a meaning, and its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// The object, from brace to brace.
    pub span: Range<usize>,
    /// Its meaning.
    pub kind: Kind,
}

/// The objects with a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{"$binary":"…"}`, with exactly this key and a string: the span of the literal.
    Binary(Range<usize>),
    /// An object with `"_placeholder":true`, which Socket.IO parsers replace by an attachment: its `num`, if that is a
    /// plain number.
    Placeholder(Option<usize>),
}

/// Finds the objects with a meaning in a valid JSON text, in order. Those inside another are ignored, as parsers look
/// from the outside in. One pass without recursion; memory grows with the nesting and the number of results only.
pub fn specials(json: &str) -> Vec<Special> {
    let mut scan = Scan { json, levels: Vec::new(), found: Vec::new() };
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' | b'[' => {
                scan.value(start..start);
                scan.levels.push(Level::new(start, byte == b'{'));
            }
            b'}' | b']' => scan.close(at),
            b',' => scan.expect_key(true),
            b':' => scan.expect_key(false),
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b'"' => {
                at = string_end(bytes, at);
                scan.string(start..at);
            }
            _ => {
                at += bytes[at..].iter().take_while(|byte| !b",]} \t\n\r".contains(byte)).count();
                scan.value(start..at);
            }
        }
    }
    scan.found
}

/// The end of a string, after its closing quote. `at` is after the opening one.
pub(super) fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(step) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += step;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

#[derive(Clone, Copy, PartialEq)]
enum Key {
    Binary,
    Placeholder,
    Num,
    Other,
}

/// An array or object that is still open.
struct Level {
    start: usize,
    object: bool,
    expects_key: bool,
    key: Key,
    keys: usize,
    binary: Option<Range<usize>>,
    placeholder: bool,
    num: Option<usize>,
}

impl Level {
    fn new(start: usize, object: bool) -> Self {
        let (key, keys, binary, placeholder, num) = (Key::Other, 0, None, false, None);
        Self { start, object, expects_key: object, key, keys, binary, placeholder, num }
    }
}

struct Scan<'a> {
    json: &'a str,
    levels: Vec<Level>,
    found: Vec<Special>,
}

impl Scan<'_> {
    fn expect_key(&mut self, expects: bool) {
        if let Some(level) = self.levels.last_mut() {
            level.expects_key = expects && level.object;
        }
    }

    fn string(&mut self, span: Range<usize>) {
        let Some(level) = self.levels.last_mut().filter(|level| level.expects_key) else { return self.value(span) };
        let literal = self.json.get(span).unwrap_or_default();
        level.keys += 1;
        // The parser of a client decodes escapes before it looks for `_placeholder`, so an escaped one counts.
        // `$binary` is our own word, and counts only as written.
        level.key = match unquote(literal).as_deref() {
            Some("$binary") if literal == "\"$binary\"" => Key::Binary,
            Some("_placeholder") => Key::Placeholder,
            Some("num") => Key::Num,
            _ => Key::Other,
        };
    }

    /// Called at the start of a container (with an empty span) and after any other value.
    fn value(&mut self, span: Range<usize>) {
        let text = self.json.get(span.clone()).unwrap_or_default();
        let Some(level) = self.levels.last_mut() else { return };
        match level.key {
            Key::Binary => level.binary = text.starts_with('"').then_some(span),
            Key::Placeholder => level.placeholder = text == "true",
            Key::Num => level.num = text.parse().ok().filter(|_| !text.starts_with('+')),
            Key::Other => {}
        }
    }

    fn close(&mut self, end: usize) {
        let Some(level) = self.levels.pop() else { return };
        let kind = match level.binary {
            Some(literal) if level.keys == 1 => Kind::Binary(literal),
            _ if level.placeholder => Kind::Placeholder(level.num),
            _ => return,
        };
        let inside = self.found.iter().rev().take_while(|special| special.span.start > level.start).count();
        self.found.truncate(self.found.len() - inside);
        self.found.push(Special { span: level.start..end, kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(json: &str) -> Vec<(&str, Kind)> {
        specials(json).into_iter().map(|special| (&json[special.span], special.kind)).collect()
    }

    #[test]
    fn binary_values_are_found_where_they_mean_it() {
        let text = r#"[1, {"$binary" : "AQ=="},{"a":[{"$binary":"Ag=="}]}, "{\"$binary\":\"Aw==\"}", "\\"]"#;
        let spans: Vec<_> = found(text).into_iter().map(|(span, _)| span).collect();
        assert_eq!(spans, [r#"{"$binary" : "AQ=="}"#, r#"{"$binary":"Ag=="}"#]);
        for data in [
            r#"{"$binary":"AQ==","x":1}"#,
            r#"{"x":1,"$binary":"AQ=="}"#,
            r#"{"$binary":1}"#,
            r#"{"$binary":["AQ=="]}"#,
            r#"{"$binary":{"a":"AQ=="}}"#,
            r#"{"\u0024binary":"AQ=="}"#,
            r#"["$binary","AQ=="]"#,
            r#""$binary""#,
            r#"{"a":"$binary"}"#,
            r#"{"$binary":"AQ==","$binary":"AQ=="}"#,
        ] {
            assert_eq!(specials(data), [], "{data}");
        }
    }

    #[test]
    fn placeholders_are_found_as_parsers_of_clients_do() {
        let placeholder = |num| vec![Kind::Placeholder(num)];
        let kinds = |json: &str| specials(json).into_iter().map(|special| special.kind).collect::<Vec<_>>();
        assert_eq!(kinds(r#"{"_placeholder":true,"num":3}"#), placeholder(Some(3)));
        assert_eq!(kinds(r#"{ "num" : 0 , "x":[{}], "_placeholder" : true }"#), placeholder(Some(0)));
        assert_eq!(kinds(r#"{"\u005fplaceholder":true,"n\u0075m":1}"#), placeholder(Some(1)));
        for bad in ["\"0\"", "-1", "1.0", "0.5", "1e0", "null", "[0]", "{\"num\":0}", "99999999999999999999"] {
            assert_eq!(kinds(&format!(r#"{{"_placeholder":true,"num":{bad}}}"#)), placeholder(None), "{bad}");
        }
        assert_eq!(kinds(r#"{"_placeholder":true}"#), placeholder(None));
        assert_eq!(kinds(r#"{"_placeholder":true,"num":0,"x":{"_placeholder":true,"num":1}}"#), placeholder(Some(0)));
        for data in [r#"{"_placeholder":1,"num":0}"#, r#"{"a":"_placeholder"}"#, r#"["_placeholder",true]"#] {
            assert_eq!(kinds(data), [], "{data}");
        }
    }

    #[test]
    fn deep_and_broken_texts_cost_no_stack() {
        let deep = "[".repeat(1 << 16);
        assert_eq!(specials(&deep), []);
        for broken in ["\"", "\"\\", "{\"", "}", "]]", "{\"$binary\":\"", "é\"", ":,:"] {
            specials(broken);
        }
    }

    proptest! {
        #[test]
        fn strings_are_written_as_serde_does(text in any::<String>()) {
            let mut out = Vec::new();
            push_string(&mut out, &text);
            prop_assert_eq!(out.len(), string_len(&text));
            let out = String::from_utf8(out).unwrap();
            prop_assert_eq!(&out, &serde_json::to_string(&text).unwrap());
            let back = unquote(&out).unwrap();
            prop_assert_eq!(back.as_ref(), text.as_str());
        }

        #[test]
        fn any_text_is_scanned_without_panic(text in "[\\[\\]{}\",:\\\\a_$é ]{0,40}") {
            for special in specials(&text) {
                prop_assert!(text.get(special.span).is_some());
            }
        }
    }
}
