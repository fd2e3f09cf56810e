//! Query strings: `key=value` pairs, percent-decoded as forms are.

use std::borrow::Cow;

/// Pairs past this many are not looked at.
const MAX_PAIRS: usize = 1024;

/// The pairs of a query string (without its `?`), in order, decoded: `+` is a space, a broken `%` stays as it is, and
/// what is not UTF-8 becomes U+FFFD. A key without `=` has an empty value.
pub fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).take(MAX_PAIRS).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

/// A part of a path, decoded: `+` stays as it is. `None` where it is not UTF-8.
pub fn path_part(text: &str) -> Option<String> {
    String::from_utf8(decode_bytes(text, b'+')).ok()
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(String::from_utf8_lossy(&decode_bytes(text, b' ')).into_owned())
}

fn decode_bytes(text: &str, plus: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match (byte, behind) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            (b'+', _) => out.push(plus),
            _ => out.push(*byte),
        }
    }
    out
}

fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or(0)
}

/// An untrusted value, cut to `max` bytes: whoever compares it finds that it matches nothing.
pub(super) fn bounded(value: &str, max: usize) -> String {
    let end = (0..=value.len().min(max)).rev().find(|&at| value.is_char_boundary(at)).unwrap_or(0);
    value[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let all = |query| pairs(query).map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
        assert_eq!(
            all("k=v%20w&EIO=4&&a+b=%C3%A9&x&y=1=2&z=%zz%4"),
            ["k=v w", "EIO=4", "a b=é", "x=", "y=1=2", "z=%zz%4"]
        );
        assert_eq!(all("bad=%ff"), ["bad=\u{fffd}"]);
        assert_eq!(all(""), [""; 0]);
        assert_eq!(path_part("a+b%2Fc%3a%").as_deref(), Some("a+b/c:%"));
        assert_eq!(path_part("%ff"), None);
        assert_eq!(pairs(&"a&".repeat(100_000)).count(), MAX_PAIRS);
        assert_eq!(bounded("aé", 2), "a");
    }
}
