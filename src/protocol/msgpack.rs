//! MessagePack to JSON text, in one pass and without a tree (specification: github.com/msgpack/msgpack, spec.md).
//!
//! The result is what `JSON.stringify` writes: dates are ISO strings, NaN and infinities are `null`. Bytes become
//! `{"$binary":"<base64>"}`, and so do strings that are not UTF-8, because older encoders (PHP, Go, Python) have no
//! other type for bytes. No memory is reserved by announced lengths, and depth and result are limited.

use crate::model::args::MAX_JSON_DEPTH;
use crate::protocol::raw_json::Quoted;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::{self, Write as _};

/// The range of JavaScript's dates, in milliseconds before and after 1970.
const MAX_DATE_MS: i128 = 8_640_000_000_000_000;

/// Why bytes are not MessagePack, or cannot be JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MsgpackError {
    /// They end within a value.
    #[error("the MessagePack value ends too early")]
    Truncated,
    /// There are bytes after the value.
    #[error("there are bytes after the MessagePack value")]
    Trailing,
    /// Nested deeper than [`MAX_JSON_DEPTH`].
    #[error("nested deeper than {MAX_JSON_DEPTH} levels")]
    TooDeep,
    /// The JSON text would have more bytes than this.
    #[error("as JSON it has more than {0} bytes")]
    TooBig(usize),
    /// The key of a map is neither text nor an integer.
    #[error("a map's key is neither text nor an integer")]
    Key,
    /// An extension type that is not a date, or a date out of range.
    #[error("extension type {0} is not a date that JSON can express")]
    Extension(i8),
    /// The one byte that the specification reserves.
    #[error("byte 0xc1 is not MessagePack")]
    Reserved,
}

/// Turns exactly one value into JSON text of at most `max` bytes.
///
/// # Errors
/// See [`MsgpackError`].
pub fn to_json(bytes: &[u8], max: usize) -> Result<String, MsgpackError> {
    let mut reader = Reader { left: bytes, out: String::with_capacity(bytes.len().min(max)), max };
    reader.value(0)?;
    if reader.left.is_empty() { Ok(reader.out) } else { Err(MsgpackError::Trailing) }
}

struct Reader<'a> {
    left: &'a [u8],
    out: String,
    max: usize,
}

type Read = Result<(), MsgpackError>;

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MsgpackError> {
        let (taken, left) = self.left.split_at_checked(count).ok_or(MsgpackError::Truncated)?;
        self.left = left;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let (taken, left) = self.left.split_first_chunk::<N>().ok_or(MsgpackError::Truncated)?;
        self.left = left;
        Ok(*taken)
    }

    /// A length of so many bytes.
    fn length(&mut self, bytes: usize) -> Result<usize, MsgpackError> {
        Ok(self.take(bytes)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn write(&mut self, value: fmt::Arguments<'_>) -> Read {
        // Writing to a String cannot fail.
        let _ = self.out.write_fmt(value);
        if self.out.len() > self.max { Err(MsgpackError::TooBig(self.max)) } else { Ok(()) }
    }

    fn value(&mut self, depth: usize) -> Read {
        let [marker] = self.fixed()?;
        match marker {
            0x00..=0x7f => self.write(format_args!("{marker}")),
            0x80..=0x8f => self.map(usize::from(marker & 0x0f), depth),
            0x90..=0x9f => self.array(usize::from(marker & 0x0f), depth),
            0xa0..=0xbf => self.text(usize::from(marker & 0x1f)),
            0xc0 => self.write(format_args!("null")),
            0xc1 => Err(MsgpackError::Reserved),
            0xc2 => self.write(format_args!("false")),
            0xc3 => self.write(format_args!("true")),
            0xc4..=0xc6 => {
                let length = self.length(1 << (marker - 0xc4))?;
                let bytes = self.take(length)?;
                self.binary(bytes)
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (marker - 0xc7))?;
                self.extension(length)
            }
            0xca => {
                let value = f64::from(f32::from_be_bytes(self.fixed()?));
                self.float(value)
            }
            0xcb => {
                let value = f64::from_be_bytes(self.fixed()?);
                self.float(value)
            }
            0xcc..=0xd3 => {
                let value = self.integer(marker)?;
                self.write(format_args!("{value}"))
            }
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4)),
            0xd9..=0xdb => {
                let length = self.length(1 << (marker - 0xd9))?;
                self.text(length)
            }
            0xdc | 0xdd => {
                let length = self.length(2 << (marker - 0xdc))?;
                self.array(length, depth)
            }
            0xde | 0xdf => {
                let length = self.length(2 << (marker - 0xde))?;
                self.map(length, depth)
            }
            0xe0..=0xff => self.write(format_args!("{}", marker.cast_signed())),
        }
    }

    /// Unsigned, then signed, each of 1, 2, 4 and 8 bytes.
    fn integer(&mut self, marker: u8) -> Result<i128, MsgpackError> {
        Ok(match marker {
            0xcc => u8::from_be_bytes(self.fixed()?).into(),
            0xcd => u16::from_be_bytes(self.fixed()?).into(),
            0xce => u32::from_be_bytes(self.fixed()?).into(),
            0xcf => u64::from_be_bytes(self.fixed()?).into(),
            0xd0 => i8::from_be_bytes(self.fixed()?).into(),
            0xd1 => i16::from_be_bytes(self.fixed()?).into(),
            0xd2 => i32::from_be_bytes(self.fixed()?).into(),
            _ => i64::from_be_bytes(self.fixed()?).into(),
        })
    }

    fn float(&mut self, value: f64) -> Read {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.write(format_args!("{number}")),
            None => self.write(format_args!("null")),
        }
    }

    fn text(&mut self, length: usize) -> Read {
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => self.string(text),
            Err(_) => self.binary(bytes),
        }
    }

    fn string(&mut self, text: &str) -> Read {
        self.write(format_args!("{}", Quoted(text)))
    }

    fn binary(&mut self, bytes: &[u8]) -> Read {
        if bytes.len() > self.max {
            return Err(MsgpackError::TooBig(self.max));
        }
        self.write(format_args!("{{\"$binary\":\"{}\"}}", STANDARD.encode(bytes)))
    }

    fn array(&mut self, length: usize, depth: usize) -> Read {
        self.nested(length, depth, ('[', ']'), |reader| reader.value(depth + 1))
    }

    fn map(&mut self, length: usize, depth: usize) -> Read {
        self.nested(length, depth, ('{', '}'), |reader| {
            reader.key()?;
            reader.out.push(':');
            reader.value(depth + 1)
        })
    }

    /// Each item takes at least one byte, so an announced length costs no more than the bytes that were sent.
    fn nested(
        &mut self,
        length: usize,
        depth: usize,
        (open, close): (char, char),
        item: impl Fn(&mut Self) -> Read,
    ) -> Read {
        if depth >= MAX_JSON_DEPTH {
            return Err(MsgpackError::TooDeep);
        }
        self.out.push(open);
        for index in 0..length {
            if index > 0 {
                self.out.push(',');
            }
            item(self)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn key(&mut self) -> Read {
        let [marker] = self.fixed()?;
        let length = match marker {
            0x00..=0x7f => return self.write(format_args!("\"{marker}\"")),
            0xe0..=0xff => return self.write(format_args!("\"{}\"", marker.cast_signed())),
            0xcc..=0xd3 => {
                let value = self.integer(marker)?;
                return self.write(format_args!("\"{value}\""));
            }
            0xa0..=0xbf => usize::from(marker & 0x1f),
            0xd9..=0xdb => self.length(1 << (marker - 0xd9))?,
            _ => return Err(MsgpackError::Key),
        };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| MsgpackError::Key)?;
        self.string(text)
    }

    /// Type -1 is the specification's timestamp; type 0 is notepack.io 2's own: one byte for `undefined`, eight for a
    /// date's milliseconds.
    fn extension(&mut self, length: usize) -> Read {
        let [kind] = self.fixed()?;
        let (kind, data) = (kind.cast_signed(), self.take(length)?);
        let wrong = MsgpackError::Extension(kind);
        let unix_ms = match (kind, data) {
            (-1, data) => timestamp_ms(data).ok_or(wrong)?,
            (0, [_]) => return self.write(format_args!("null")),
            (0, data) => i64::from_be_bytes(data.try_into().map_err(|_| wrong)?).into(),
            _ => return Err(wrong),
        };
        let date = iso_date(unix_ms).ok_or(wrong)?;
        self.write(format_args!("\"{date}\""))
    }
}

/// Seconds; nanoseconds in 30 bits and seconds in 34; or nanoseconds in 32 and signed seconds in 64.
fn timestamp_ms(data: &[u8]) -> Option<i128> {
    let (seconds, nanos) = match data.len() {
        4 => (i128::from(u32::from_be_bytes(data.try_into().ok()?)), 0),
        8 => {
            let both = u64::from_be_bytes(data.try_into().ok()?);
            (i128::from(both & 0x3_ffff_ffff), both >> 34)
        }
        12 => {
            let (nanos, seconds) = data.split_first_chunk::<4>()?;
            (i64::from_be_bytes(seconds.try_into().ok()?).into(), u32::from_be_bytes(*nanos).into())
        }
        _ => return None,
    };
    Some(seconds * 1000 + i128::from(nanos / 1_000_000))
}

/// As `Date.prototype.toISOString` writes it; `None` if JavaScript has no such date.
fn iso_date(unix_ms: i128) -> Option<String> {
    if unix_ms.abs() > MAX_DATE_MS {
        return None;
    }
    let (days, ms) = (unix_ms.div_euclid(86_400_000), unix_ms.rem_euclid(86_400_000));
    // Civil from days (Howard Hinnant, chrono-Compatible Low-Level Date Algorithms): years begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    let year = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{}{:06}", if year < 0 { '-' } else { '+' }, year.abs()),
    };
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    Some(format!("{year}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(hex: &str) -> Result<String, MsgpackError> {
        to_json(&hex::decode(hex).unwrap(), 1000)
    }

    #[test]
    fn each_kind_of_value() {
        for (hex, text) in [
            ("c0", "null"),
            ("c2", "false"),
            ("c3", "true"),
            ("00", "0"),
            ("7f", "127"),
            ("ff", "-1"),
            ("e0", "-32"),
            ("ccff", "255"),
            ("cd0100", "256"),
            ("ce00010000", "65536"),
            ("cfffffffffffffffff", "18446744073709551615"),
            ("d080", "-128"),
            ("d18000", "-32768"),
            ("d280000000", "-2147483648"),
            ("d38000000000000000", "-9223372036854775808"),
            ("ca3fc00000", "1.5"),
            ("cb3ff8000000000000", "1.5"),
            ("cb7ff8000000000000", "null"),
            ("cb7ff0000000000000", "null"),
            ("a2c3a9", "\"é\""),
            ("d90161", "\"a\""),
            ("da000161", "\"a\""),
            ("db0000000161", "\"a\""),
            ("a30a2201", "\"\\n\\\"\\u0001\""),
            ("c403010203", "{\"$binary\":\"AQID\"}"),
            ("c5000104", "{\"$binary\":\"BA==\"}"),
            ("c60000000104", "{\"$binary\":\"BA==\"}"),
            ("a2ff00", "{\"$binary\":\"/wA=\"}"),
            ("90", "[]"),
            ("9201c0", "[1,null]"),
            ("dc00020102", "[1,2]"),
            ("dd00000001a0", "[\"\"]"),
            ("80", "{}"),
            ("82a1610102c3", "{\"a\":1,\"2\":true}"),
            ("df00000001a16190", "{\"a\":[]}"),
            ("d6ff00000000", "\"1970-01-01T00:00:00.000Z\""),
            ("d7ff7735940065920080", "\"2024-01-01T00:00:00.500Z\""),
            ("c70cff0000000000000000000000ff", "\"1970-01-01T00:04:15.000Z\""),
            ("c70cff0ee6b280ffffffffffffffff", "\"1969-12-31T23:59:59.250Z\""),
            ("d70000000000000003e8", "\"1970-01-01T00:00:01.000Z\""),
            ("d40000", "null"),
        ] {
            assert_eq!(json(hex).as_deref(), Ok(text), "{hex}");
        }
    }

    #[test]
    fn dates_are_those_of_javascript() {
        for (ms, text) in [
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (-62_167_219_200_001, "-000001-12-31T23:59:59.999Z"),
            (8_640_000_000_000_000, "+275760-09-13T00:00:00.000Z"),
            (-8_640_000_000_000_000, "-271821-04-20T00:00:00.000Z"),
        ] {
            assert_eq!(iso_date(ms).as_deref(), Some(text));
        }
        assert_eq!(iso_date(8_640_000_000_000_001), None);
    }

    #[test]
    fn garbage_is_an_error_and_bombs_cost_no_more_than_their_bytes() {
        for (hex, error) in [
            ("", MsgpackError::Truncated),
            ("c1", MsgpackError::Reserved),
            ("a261", MsgpackError::Truncated),
            ("ddffffffff", MsgpackError::Truncated),
            ("dfffffffff", MsgpackError::Truncated),
            ("dbffffffff61", MsgpackError::Truncated),
            ("0101", MsgpackError::Trailing),
            ("81c001", MsgpackError::Key),
            ("de000181", MsgpackError::Key),
            ("81a1ff01", MsgpackError::Key),
            ("d40500", MsgpackError::Extension(5)),
            ("d5ff0000", MsgpackError::Extension(-1)),
            ("c70cff000000007fffffffffffffff", MsgpackError::Extension(-1)),
        ] {
            assert_eq!(json(hex), Err(error), "{hex}");
        }
        assert_eq!(to_json(&[0x91; 1 << 20], 1 << 22), Err(MsgpackError::TooDeep));
        let mut nils = vec![0xdd, 0, 0x10, 0, 0];
        nils.resize(5 + (1 << 20), 0xc0);
        assert_eq!(to_json(&nils, 10_000), Err(MsgpackError::TooBig(10_000)));
    }
}
