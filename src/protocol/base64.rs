//! Base64 as Node reads it: the standard and the URL-safe alphabet, line breaks anywhere, padding or none. Java's and
//! Python's encoders for mail write line breaks, JSON Web tools write the URL-safe alphabet without padding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The bytes of a client's binary packet, exactly as `Buffer.from(text, "base64")` reads them. It never fails:
/// characters outside the alphabets are skipped, and the first `=` ends the text.
pub fn decode_like_node(text: &str) -> Vec<u8> {
    match STANDARD.decode(text) {
        Ok(bytes) => bytes,
        Err(_) => read(text.bytes().take_while(|byte| *byte != b'=').filter_map(sextet)),
    }
}

/// The bytes of a text that a publisher or backend wrote; `None` if it is not base64. Node silently skips other
/// characters; here they are a mistake of the publisher.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    if let Ok(bytes) = STANDARD.decode(text) {
        return Some(bytes);
    }
    let mut digits = Vec::with_capacity(text.len());
    let mut padding = 0;
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        match sextet(byte) {
            Some(digit) if padding == 0 => digits.push(digit),
            None if byte == b'=' && padding < 2 => padding += 1,
            _ => return None,
        }
    }
    // One digit has six bits, which is less than a byte.
    (digits.len() % 4 != 1).then(|| read(digits.into_iter()))
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// Bits at the end that do not fill a byte are dropped.
fn read(digits: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(digits.size_hint().0 / 4 * 3);
    let (mut held, mut bits) = (0u32, 0);
    for digit in digits {
        held = (held << 6 | u32::from(digit)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits & 0xff) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line is what Node 20 printed for `Buffer.from(text, "base64").toString("hex")`.
    #[test]
    fn clients_are_read_as_node_reads_them() {
        for (text, hex) in [
            ("", ""),
            ("AQIDBA==", "01020304"),
            ("AQI=\n", "0102"),
            ("AQ\r\nI=", "0102"),
            ("AQI", "0102"),
            ("AQ", "01"),
            ("A", ""),
            ("A===", ""),
            ("AQ==AQ==", "01"),
            ("AQI=AQI=", "0102"),
            ("AQI-_", "01023e"),
            ("AQI+/", "01023e"),
            ("A Q I", "0102"),
            ("A!Q?I", "0102"),
            ("?", ""),
            ("=AQI", ""),
            ("A=QI", ""),
            ("AQ=I", "01"),
            ("AQIDB", "010203"),
            ("\u{e9}AQI", "0102"),
            ("AR==", "01"),
            ("AQI==", "0102"),
            ("AQIDBAUG=BwgJ", "010203040506"),
        ] {
            let bytes: String = decode_like_node(text).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(bytes, hex, "{text:?}");
        }
    }

    #[test]
    fn publishers_may_use_either_alphabet_but_no_garbage() {
        for (text, bytes) in [
            ("AQID", &[1, 2, 3][..]),
            ("AQI=", &[1, 2]),
            ("AQI", &[1, 2]),
            (" AQ\nI=\r\n", &[1, 2]),
            ("-_-_", &[0xfb, 0xff, 0xbf]),
            ("+/+/", &[0xfb, 0xff, 0xbf]),
            ("", &[]),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes), "{text:?}");
        }
        for bad in ["?", "A", "AQIDB", "A=QI", "AQ===", "AQI=AQI=", "AQ\u{e9}I", "AQI.", "\u{0}AQI"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
