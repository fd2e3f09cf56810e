//! Query strings and path segments, decoded.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Later pairs are ignored: no endpoint takes as many.
const MAX_PAIRS: usize = 1024;

/// The pairs of a query string (without its `?`), in order and decoded: `+` is a space, an invalid `%` sequence stays
/// as it is, and invalid UTF-8 becomes U+FFFD. A key without `=` has an empty value. At most [`MAX_PAIRS`].
pub fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(query.as_bytes()).take(MAX_PAIRS)
}

/// A segment of a path, decoded: `+` stays as it is. `None` if it is not UTF-8.
pub fn path_segment(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

/// An untrusted value, cut to `max` bytes. A cut value matches nothing that it is compared with.
pub fn bounded(value: &str, max: usize) -> String {
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
        assert_eq!(path_segment("a+b%2Fc%3a%").as_deref(), Some("a+b/c:%"));
        assert_eq!(path_segment("%ff"), None);
        assert_eq!(pairs(&"a&".repeat(100_000)).count(), MAX_PAIRS);
        assert_eq!(bounded("aé", 2), "a");
    }
}
