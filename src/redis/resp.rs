//! Reads replies of Redis (RESP2 and RESP3) where they arrived: nothing is copied, and nothing is read twice while a reply
//! arrives in pieces. Sans-IO.
//!
//! A [`Scanner`] finds where a reply ends; [`Tokens`] walks over a complete one.
//!
//! ```
//! use roomcast::redis::resp::{Scanner, Token, Tokens};
//!
//! let buffer = b"*2\r\n$3\r\n5-1\r\n:7\r\n+OK\r\n";
//! let mut scanner = Scanner::new(1 << 20);
//! assert_eq!(scanner.scan(&buffer[..9]), Ok(None));
//! assert_eq!(scanner.scan(buffer), Ok(Some(17)));
//! let tokens: Vec<_> = Tokens::new(&buffer[..17]).collect();
//! assert_eq!(tokens, [Token::Array(2), Token::Bulk(b"5-1"), Token::Integer(7)]);
//! ```
//!
//! Redis sends no streamed strings and aggregates (`$?`, `*?`), so they are malformed here.

mod value;

pub use value::value;

/// Replies are not nested deeper than this: those of `XREAD` have four levels, those of scripts are bounded by Redis.
pub const MAX_DEPTH: usize = 32;
/// Bytes of a line: a status, an error, or a number.
pub const MAX_LINE: usize = 64 << 10;
/// Bytes of the shortest value: `_`, or an empty status.
const MIN_VALUE: usize = 3;
/// A length has at most this many digits, as many as `usize` has.
const MAX_DIGITS: usize = 19;

/// Why bytes are no reply. Nothing after them can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RespError {
    /// Not RESP.
    #[error("the reply is not RESP")]
    Malformed,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the reply is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// More bytes than the [`Scanner`] allows, or a line longer than [`MAX_LINE`].
    #[error("the reply is too large")]
    TooLarge,
}

/// One value of a reply, or the beginning of one that contains others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// A status, like `OK`.
    Simple(&'a [u8]),
    /// An error: its code, a space, and its text.
    Error(&'a [u8]),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(&'a [u8]),
    /// Nothing: a string, an array or, in RESP3, any value that is not there.
    Null,
    /// RESP3 only, like all that follow but the array.
    Boolean(bool),
    /// A floating-point number.
    Double(f64),
    /// Decimal digits, perhaps with a minus sign.
    BigNumber(&'a [u8]),
    /// A text with its format before it: `txt:…`.
    Verbatim(&'a [u8]),
    /// So many values follow.
    Array(usize),
    /// So many values follow.
    Set(usize),
    /// A message that is no answer to a command. So many values follow, the first of which is its kind.
    Push(usize),
    /// So many pairs of values follow.
    Map(usize),
    /// So many pairs of values follow, and then the value that they describe.
    Attribute(usize),
}

/// What the line at the beginning of a value says.
enum Head<'a> {
    /// All of it.
    Whole(Token<'a>),
    /// The kind of value, and how many bytes of it follow.
    Body(u8, usize),
    /// So many values follow.
    Items(Token<'a>, usize),
}

/// Finds the end of each reply in a buffer that grows.
#[derive(Clone, Debug)]
pub struct Scanner {
    max: usize,
    /// The next value begins here, or the present one ends here.
    at: usize,
    /// The line at `at` does not end before this.
    searched: usize,
    /// Whether the present value has bytes up to `at`.
    is_in_body: bool,
    /// Values that follow, on each level.
    pending: [usize; MAX_DEPTH],
    depth: usize,
}

impl Scanner {
    /// A reply has at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, at: 0, searched: 0, is_in_body: false, pending: [0; MAX_DEPTH], depth: 0 }
    }

    /// The number of bytes of the reply that the buffer begins with; `None` while it is not complete. The next call then
    /// has the same bytes and more. After a complete reply the next call has the bytes after it.
    ///
    /// # Errors
    /// Where it is not a reply, or a forbidden one. Nothing can be read after it.
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Option<usize>, RespError> {
        loop {
            if self.is_in_body {
                match buffer.get(self.at - 2..self.at) {
                    None => return Ok(None),
                    Some(b"\r\n") => self.is_in_body = false,
                    Some(_) => return Err(RespError::Malformed),
                }
            } else {
                let Some((head, bytes)) = head(&buffer[self.at.min(buffer.len())..], &mut self.searched)? else {
                    return Ok(None);
                };
                self.searched = 0;
                self.advance(bytes)?;
                match head {
                    Head::Whole(_) | Head::Items(_, 0) => {}
                    Head::Body(_, bytes) => {
                        self.advance(bytes.saturating_add(2))?;
                        self.is_in_body = true;
                        continue;
                    }
                    Head::Items(_, items) => {
                        self.begin(items)?;
                        continue;
                    }
                }
            }
            if self.ended() {
                let bytes = self.at;
                self.at = 0;
                return Ok(Some(bytes));
            }
        }
    }

    /// How many bytes the reply has at least, as far as is known.
    pub fn at_least(&self) -> usize {
        self.at
    }

    fn advance(&mut self, bytes: usize) -> Result<(), RespError> {
        self.at = self.at.saturating_add(bytes);
        match self.at > self.max {
            true => Err(RespError::TooLarge),
            false => Ok(()),
        }
    }

    fn begin(&mut self, items: usize) -> Result<(), RespError> {
        if items > (self.max - self.at) / MIN_VALUE {
            return Err(RespError::TooLarge);
        }
        *self.pending.get_mut(self.depth).ok_or(RespError::TooDeep)? = items;
        self.depth += 1;
        Ok(())
    }

    /// A value has ended. Whether the reply has.
    fn ended(&mut self) -> bool {
        while self.depth > 0 {
            let pending = &mut self.pending[self.depth - 1];
            *pending -= 1;
            if *pending > 0 {
                return false;
            }
            self.depth -= 1;
        }
        true
    }
}

/// The values of a reply that a [`Scanner`] has found, outer ones before those in them.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    /// The values in these bytes.
    pub fn new(reply: &'a [u8]) -> Self {
        Self { rest: reply }
    }

    /// The bytes that were not walked over yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Skips one value with all that is in it. `None` where there is none.
    pub fn skip_value(&mut self) -> Option<()> {
        let mut left = 1usize;
        while left > 0 {
            left -= 1;
            left += match self.next()? {
                Token::Array(items) | Token::Set(items) | Token::Push(items) => items,
                Token::Map(pairs) => 2 * pairs,
                Token::Attribute(pairs) => 2 * pairs + 1,
                _ => 0,
            };
        }
        Some(())
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let (head, bytes) = head(self.rest, &mut 0).ok()??;
        let rest = &self.rest[bytes..];
        let (token, rest) = match head {
            Head::Whole(token) | Head::Items(token, _) => (token, rest),
            Head::Body(kind, bytes) => {
                let body = rest.get(..bytes)?;
                let token = match kind {
                    b'$' => Token::Bulk(body),
                    b'=' => Token::Verbatim(body),
                    _ => Token::Error(body),
                };
                (token, rest.get(bytes + 2..)?)
            }
        };
        self.rest = rest;
        Some(token)
    }
}

/// The line at the beginning, and the number of its bytes; `None` while it is not complete. It does not end before
/// `searched`.
fn head<'a>(bytes: &'a [u8], searched: &mut usize) -> Result<Option<(Head<'a>, usize)>, RespError> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    match kind {
        b'$' | b'*' => {
            let Some((length, bytes)) = length(rest)? else { return Ok(None) };
            let head = match length {
                None => Head::Whole(Token::Null),
                Some(length) if kind == b'$' => Head::Body(kind, length),
                Some(length) => Head::Items(Token::Array(length), length),
            };
            Ok(Some((head, 1 + bytes)))
        }
        b'%' | b'~' | b'>' | b'|' | b'!' | b'=' => {
            let Some((length, bytes)) = length(rest)? else { return Ok(None) };
            let length = length.ok_or(RespError::Malformed)?;
            let pairs = || length.checked_mul(2).ok_or(RespError::TooLarge);
            let head = match kind {
                b'%' => Head::Items(Token::Map(length), pairs()?),
                b'|' => Head::Items(Token::Attribute(length), pairs()?.checked_add(1).ok_or(RespError::TooLarge)?),
                b'~' => Head::Items(Token::Set(length), length),
                b'>' => Head::Items(Token::Push(length), length),
                _ => Head::Body(kind, length),
            };
            Ok(Some((head, 1 + bytes)))
        }
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {
            let Some(line) = line(rest, searched)? else { return Ok(None) };
            Ok(Some((Head::Whole(whole(kind, line)?), line.len() + 3)))
        }
        _ => Err(RespError::Malformed),
    }
}

/// The rest of a line without its end.
fn line<'a>(bytes: &'a [u8], searched: &mut usize) -> Result<Option<&'a [u8]>, RespError> {
    let from = (*searched).min(bytes.len());
    let Some(end) = memchr::memchr(b'\r', &bytes[from..]).map(|at| from + at) else {
        *searched = bytes.len();
        return if bytes.len() > MAX_LINE { Err(RespError::TooLarge) } else { Ok(None) };
    };
    *searched = end;
    match bytes.get(end + 1) {
        _ if end > MAX_LINE => Err(RespError::TooLarge),
        None => Ok(None),
        Some(b'\n') => Ok(Some(&bytes[..end])),
        Some(_) => Err(RespError::Malformed),
    }
}

/// A value that is one line.
fn whole(kind: u8, line: &[u8]) -> Result<Token<'_>, RespError> {
    let token = match (kind, line) {
        (b'+', _) => Some(Token::Simple(line)),
        (b'-', _) => Some(Token::Error(line)),
        (b':', _) => integer(line).map(Token::Integer),
        (b'_', b"") => Some(Token::Null),
        (b'#', b"t") => Some(Token::Boolean(true)),
        (b'#', b"f") => Some(Token::Boolean(false)),
        (b',', _) => std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).map(Token::Double),
        (b'(', _) => {
            let digits = line.strip_prefix(b"-").unwrap_or(line);
            (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(Token::BigNumber(line))
        }
        _ => None,
    };
    token.ok_or(RespError::Malformed)
}

fn integer(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// A length with the end of its line, and the bytes of both; a length of `None` is `-1`.
#[allow(clippy::type_complexity, reason = "a length that may be absent, of a line that may be incomplete")]
fn length(bytes: &[u8]) -> Result<Option<(Option<usize>, usize)>, RespError> {
    let mut length = 0usize;
    let mut at = 0;
    while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
        if at >= MAX_DIGITS {
            return Err(RespError::TooLarge);
        }
        length = length.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
        at += 1;
    }
    match (at, &bytes[at..]) {
        (1.., [b'\r', b'\n', ..]) => Ok(Some((Some(length), at + 2))),
        (_, [] | [b'\r']) => Ok(None),
        (0, [b'-', b'1', b'\r', b'\n', ..]) => Ok(Some((None, 4))),
        (0, [b'-'] | [b'-', b'1'] | [b'-', b'1', b'\r']) => Ok(None),
        _ => Err(RespError::Malformed),
    }
}

#[cfg(test)]
mod tests;
