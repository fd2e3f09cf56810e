//! Control characters in a line of the log: names that clients choose must not begin a new line, or reach a terminal.

use std::borrow::Cow;
use std::io::Write as _;

const ESCAPE: u8 = 0x1b;

/// A whole line with its line break. Control characters in it are written as `\u{…}`, but for tabs and for the colors
/// that the formatter itself adds on a terminal.
pub(super) fn escaped(line: &[u8]) -> Cow<'_, [u8]> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    if next_control(text).is_none() {
        return Cow::Borrowed(line);
    }
    let mut out = Vec::with_capacity(line.len() + 16);
    let mut rest = text;
    while let Some((at, len, control)) = next_control(rest) {
        out.extend_from_slice(&rest[..at]);
        // Writing to memory does not fail.
        let _ = write!(out, "{}", control.escape_default());
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&line[text.len()..]);
    out.into()
}

/// The place, the length and the value of the first control character.
fn next_control(text: &[u8]) -> Option<(usize, usize, char)> {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            ESCAPE => match color(&text[at..]) {
                Some(len) => at += len,
                None => return Some((at, 1, char::from(byte))),
            },
            b'\t' => at += 1,
            0..0x20 | 0x7f => return Some((at, 1, char::from(byte))),
            // U+0080 to U+009F in UTF-8.
            0xc2 if text.get(at + 1).is_some_and(|next| (0x80..0xa0).contains(next)) => {
                return Some((at, 2, char::from(text[at + 1])));
            }
            _ => at += 1,
        }
    }
    None
}

/// The length of an `ESC [ … m`.
fn color(text: &[u8]) -> Option<usize> {
    let numbers =
        text.strip_prefix(b"\x1b[")?.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    (text.get(2 + numbers) == Some(&b'm')).then_some(numbers + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_line_or_reach_the_terminal() {
        let shown = |line: &str| String::from_utf8(escaped(line.as_bytes()).into_owned()).unwrap();
        assert_eq!(shown("plain \u{e9}\ttext\n"), "plain \u{e9}\ttext\n");
        assert_eq!(shown("a\nINFO forged\r\n"), "a\\nINFO forged\\r\n");
        assert_eq!(shown("a\u{1b}]0;title\u{7}b\u{9b}c\u{7f}\n"), "a\\u{1b}]0;title\\u{7}b\\u{9b}c\\u{7f}\n");
        assert_eq!(shown("\u{1b}[32mINFO\u{1b}[0m x\n"), "\u{1b}[32mINFO\u{1b}[0m x\n");
    }
}
