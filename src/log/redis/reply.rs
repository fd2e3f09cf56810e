//! Stream entries in the replies of `XREAD` and `XREVRANGE`, and how many to ask for.

use crate::log::redis::entry::{Entry, Field, RawEntry};
use crate::model::offset::Position;
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use crate::redis::resp::{Token, Tokens};
use redis::Value;

/// The entries of a reply of `XREAD` for one stream, one after the other, where they arrived.
pub(super) struct Entries<'a> {
    tokens: Tokens<'a>,
    left: usize,
    fields: Vec<Field<'a>>,
}

impl<'a> Entries<'a> {
    /// The entries of a reply of `XREAD`.
    pub(super) fn read(mut tokens: Tokens<'a>) -> Result<Self, RedisError> {
        let left = match tokens.next() {
            Some(Token::Null) => 0,
            Some(Token::Error(error)) => return Err(RedisError::of_reply(error)),
            // A list of streams with their entries, in RESP3 a map.
            Some(outer @ (Token::Array(1) | Token::Map(1))) => {
                let is_list = outer == Token::Array(1);
                match (!is_list || tokens.next() == Some(Token::Array(2)), tokens.next(), tokens.next()) {
                    (true, Some(Token::Bulk(_)), Some(Token::Array(entries))) => entries,
                    _ => return Err(RedisError::UnexpectedReply("XREAD")),
                }
            }
            _ => return Err(RedisError::UnexpectedReply("XREAD")),
        };
        Ok(Self { tokens, left, fields: Vec::new() })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.left
    }

    /// The next one. After an error nothing is left.
    pub(super) fn next(&mut self) -> Option<Result<Entry<'_>, RedisError>> {
        self.left = self.left.checked_sub(1)?;
        let Some(position) = self.next_fields() else {
            self.left = 0;
            return Some(Err(RedisError::UnexpectedReply("stream entries")));
        };
        Some(Ok(Entry { position, fields: &self.fields, cut: None }))
    }

    fn next_fields(&mut self) -> Option<Position> {
        let tokens = &mut self.tokens;
        self.fields.clear();
        let (Some(Token::Array(2)), Some(Token::Bulk(id))) = (tokens.next(), tokens.next()) else { return None };
        let position = Position::parse(std::str::from_utf8(id).ok()?)?;
        let texts = match tokens.next()? {
            Token::Array(texts) if texts % 2 == 0 => texts,
            // An entry deleted while it was read has no fields.
            Token::Null => 0,
            _ => return None,
        };
        for _ in 0..texts / 2 {
            let (Token::Bulk(name), Token::Bulk(value)) = (tokens.next()?, tokens.next()?) else { return None };
            self.fields.push((name, value));
        }
        Some(position)
    }
}

/// The entries of a reply of `XREVRANGE`.
pub(super) fn entries(value: Value) -> Result<Vec<RawEntry>, RedisError> {
    let wrong = RedisError::UnexpectedReply("stream entries");
    match value {
        Value::Nil => Ok(Vec::new()),
        Value::Array(items) => items.into_iter().map(entry).collect::<Option<_>>().ok_or(wrong),
        _ => Err(wrong),
    }
}

/// The entries of a reply of `XREAD` for one stream.
pub(super) fn read_entries(value: Value) -> Result<Vec<RawEntry>, RedisError> {
    match value {
        Value::Nil => Ok(Vec::new()),
        Value::Array(mut streams) if streams.len() == 1 => match streams.pop() {
            Some(Value::Array(mut stream)) if stream.len() == 2 => entries(stream.pop().unwrap_or_default()),
            _ => Err(RedisError::UnexpectedReply("XREAD")),
        },
        // The same in RESP3.
        Value::Map(mut streams) if streams.len() == 1 => entries(streams.pop().unwrap_or_default().1),
        _ => Err(RedisError::UnexpectedReply("XREAD")),
    }
}

fn entry(value: Value) -> Option<RawEntry> {
    let Value::Array(pair) = value else { return None };
    let mut parts = pair.into_iter();
    let (id, fields) = (parts.next()?, parts.next()?);
    let cut = match (parts.next(), parts.next()) {
        (None, None) => None,
        (Some(Value::Int(bytes)), None) => Some(usize::try_from(bytes).ok()?),
        _ => return None,
    };
    let position = Position::parse(text(&id)?)?;
    // An entry deleted while it was read has no fields.
    let flat = match fields {
        Value::Array(flat) => flat,
        Value::Nil => Vec::new(),
        _ => return None,
    };
    let mut fields = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let Some(name) = flat.next() {
        fields.push((bytes(name)?, bytes(flat.next()?)?));
    }
    Some(RawEntry { position, fields, cut })
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// How many entries to ask for at once, so that the size of a reply stays about the same for small and big entries.
#[derive(Debug)]
pub(super) struct PageSize {
    count: usize,
    /// The last reply was too large, or did not arrive in time.
    is_careful: bool,
}

/// Bytes that a reply should have at most.
const PAGE_BYTES: usize = 4 << 20;
/// Redis needs less than a millisecond for so many small ones.
const MAX_ENTRIES: usize = 1024;

impl Default for PageSize {
    fn default() -> Self {
        Self { count: 32, is_careful: false }
    }
}

impl PageSize {
    /// `COUNT` of the next command.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A reply that did not arrive in time may have been too big for a slow connection.
    pub(super) fn note_error(&mut self, error: &RedisError) {
        if let RedisError::Timeout(_) | RedisError::ReplyTooLarge(_) = error {
            self.count = (self.count / 4).max(1);
            self.is_careful = true;
        }
    }

    /// Whether to read so that no entry is larger than one that could be an event.
    pub(super) fn is_careful(&self) -> bool {
        self.is_careful
    }

    /// Whether it did not get on several times.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_careful && self.count == 1
    }

    /// What was in the way is read.
    pub(super) fn proceed(&mut self) {
        self.is_careful = false;
    }

    /// Takes note of a reply with so many entries of so many bytes in all.
    pub(super) fn learn(&mut self, entries: usize, bytes: usize) {
        if bytes > PAGE_BYTES {
            self.count = (entries * PAGE_BYTES / bytes).max(1);
        } else if entries >= self.count && bytes <= PAGE_BYTES / 2 {
            self.count = (self.count * 2).min(MAX_ENTRIES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_shrink_for_heavy_entries_and_grow_again() {
        let mut page = PageSize::default();
        page.learn(32, 32 * (5 << 20));
        assert_eq!(page.count(), 1);
        for _ in 0..20 {
            page.learn(page.count(), page.count() * 100);
        }
        assert_eq!(page.count(), MAX_ENTRIES);
        page.learn(1, 100);
        assert_eq!(page.count(), MAX_ENTRIES);
        let timeout = RedisError::Timeout(std::time::Duration::ZERO);
        (0..20).for_each(|_| page.note_error(&timeout));
        assert_eq!(page.count(), 1);
        assert!(page.is_careful() && page.is_stuck());
        page.proceed();
        assert!(!page.is_careful() && !page.is_stuck());
        page.note_error(&RedisError::ReplyTooLarge(1));
        assert!(page.is_careful());
    }

    #[test]
    fn replies_of_other_shapes_are_errors() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let good = Value::Array(vec![Value::Array(vec![bulk("5-1"), Value::Array(vec![bulk("a"), bulk("b")])])]);
        assert_eq!(entries(good).unwrap()[0].position, Position { ms: 5, seq: 1 });
        for bad in [
            Value::Int(1),
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![Value::Array(vec![bulk("5-1")])]),
            Value::Array(vec![Value::Array(vec![bulk("5-1"), Value::Array(vec![bulk("a")])])]),
        ] {
            assert!(entries(bad.clone()).is_err(), "{bad:?}");
            assert!(read_entries(bad).is_err());
        }
        let bad_id = Value::Array(vec![Value::Array(vec![bulk("x"), Value::Nil])]);
        assert!(entries(bad_id).is_err());
        assert!(read_entries(Value::Nil).unwrap().is_empty());
    }

    #[test]
    fn entries_are_read_where_they_arrived() {
        let read = |reply: &'static str| {
            let mut entries = Entries::read(Tokens::new(reply.as_bytes()))?;
            let mut seen = Vec::new();
            while let Some(entry) = entries.next() {
                let Entry { position, fields, cut } = entry?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let fields: Vec<_> =
                    fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
                seen.push(format!("{position} {} {cut:?}", fields.join(" ")));
            }
            Ok::<_, RedisError>(seen)
        };
        let two = "*1\r\n*2\r\n$1\r\ns\r\n*2\r\n*2\r\n$3\r\n5-1\r\n*4\r\n$1\r\na\r\n$0\r\n\r\n$1\r\nb\r\n$2\r\nxy\r\n\
            *2\r\n$3\r\n5-2\r\n*-1\r\n";
        assert_eq!(read(two).unwrap(), ["5-1 a= b=xy None", "5-2  None"]);
        assert_eq!(read("%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n5-1\r\n*0\r\n").unwrap(), ["5-1  None"]);
        assert!(read("*-1\r\n").unwrap().is_empty());
        assert!(matches!(read("-MOVED 1 h:1\r\n"), Err(RedisError::NotServing(_))));
        for bad in [
            ":1\r\n",
            "*2\r\n*0\r\n*0\r\n",
            "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n5-1\r\n*1\r\n$1\r\na\r\n",
            "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$1\r\nx\r\n*0\r\n",
        ] {
            assert!(matches!(read(bad), Err(RedisError::UnexpectedReply(_))), "{bad:?}");
        }
    }
}
