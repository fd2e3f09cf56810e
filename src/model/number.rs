//! Numbers as text, for names of rooms, events and users.

use std::borrow::Cow;

/// A JSON number as JavaScript writes it: `42.0`, `4.2e1` and `42` are all `42`, and `-0` is `0`. Clients in typed
/// languages write a double as `42.0`, and a room's name must not depend on the language. 64-bit integers keep their
/// digits, although JavaScript would round them beyond 2^53: two ids must not become one room.
pub fn number_text(json: &str) -> Cow<'_, str> {
    let digits = json.strip_prefix('-').unwrap_or(json);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && (json.parse::<i64>().is_ok() || json.parse::<u64>().is_ok())
    {
        return if digits == "0" { Cow::Borrowed("0") } else { Cow::Borrowed(json) };
    }
    match json.parse::<f64>() {
        Ok(number) => Cow::Owned(ryu_js::Buffer::new().format(number).to_owned()),
        Err(_) => Cow::Borrowed(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pair is what Node prints for `String(JSON.parse(json))`.
    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        for (json, text) in [
            ("42", "42"),
            ("42.0", "42"),
            ("4.2e1", "42"),
            ("4.2E+1", "42"),
            ("420e-1", "42"),
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("0e5", "0"),
            ("-42.50", "-42.5"),
            ("1.50", "1.5"),
            ("0.1", "0.1"),
            ("1e21", "1e+21"),
            ("1e20", "100000000000000000000"),
            ("123456789012345680000", "123456789012345680000"),
            ("1e-6", "0.000001"),
            ("1e-7", "1e-7"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("5e-324", "5e-324"),
            ("1e400", "Infinity"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("1795226043.6197476", "1795226043.6197476"),
            ("9007199254740991.0", "9007199254740991"),
        ] {
            assert_eq!(number_text(json), text, "{json}");
        }
    }

    #[test]
    fn integers_of_64_bits_keep_their_digits() {
        for exact in ["9007199254740993", "18446744073709551615", "-9223372036854775808", "1234567890123456789"] {
            assert_eq!(number_text(exact), exact);
        }
    }
}
