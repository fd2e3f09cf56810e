//! When a certificate (X.509, RFC 5280 section 4.1) is valid. rustls does not tell.

use std::time::{SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// From when to when, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub not_before: u64,
    pub not_after: u64,
}

impl Validity {
    /// Reads it from a certificate in DER.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (SEQUENCE, certificate, _) = field(certificate)? else { return None };
        let (SEQUENCE, mut fields, _) = field(certificate)? else { return None };
        let skip = |fields| field(fields).map(|(_, _, rest)| rest);
        if field(fields)?.0 == VERSION {
            fields = skip(fields)?;
        }
        // The serial number, the algorithm and the issuer.
        let fields = skip(skip(skip(fields)?)?)?;
        let (SEQUENCE, times, _) = field(fields)? else { return None };
        let (tag, not_before, rest) = field(times)?;
        let (tag_after, not_after, _) = field(rest)?;
        Some(Self { not_before: time(tag, not_before)?, not_after: time(tag_after, not_after)? })
    }
}

/// The tag, the content, and what follows.
fn field(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (length, rest) =
                rest.split_at_checked(usize::from(long & 0x7f)).filter(|(length, _)| length.len() <= 4)?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    let full = match tag {
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| full.get(from..to);
    let rfc3339 = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    );
    let at: SystemTime = humantime::parse_rfc3339(&rfc3339).ok().filter(|_| full.len() == 15 && full.ends_with('Z'))?;
    at.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_forms_are_read() {
        assert_eq!(time(UTC_TIME, b"260101000000Z"), Some(1_767_225_600));
        assert_eq!(time(UTC_TIME, b"700101000001Z"), Some(1));
        assert_eq!(time(GENERALIZED_TIME, b"20500101000000Z"), Some(2_524_608_000));
        for bad in [&b"2601010000Z"[..], b"260101000000+0100", b"26010100000xZ", b"", b"\xff"] {
            assert_eq!(time(UTC_TIME, bad), None);
        }
    }

    #[test]
    fn what_is_cut_short_is_no_certificate() {
        let whole = [&[SEQUENCE, 0x82, 0, 4][..], &[SEQUENCE, 0x82, 0xff, 0xff]].concat();
        (0..=whole.len()).for_each(|end| assert_eq!(Validity::of(&whole[..end]), None));
        assert_eq!(field(&[SEQUENCE, 0xff, 1, 2, 3, 4, 5]), None);
    }
}
