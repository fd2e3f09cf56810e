//! Stream entries in the replies of `XREAD` and `XREVRANGE`, and how many to ask for.

use crate::log::redis::entry::RawEntry;
use crate::model::offset::Position;
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use redis::Value;

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
const MAX_ENTRIES: usize = 256;

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

    /// Takes note of the size of a reply.
    pub(super) fn learn(&mut self, entries: &[RawEntry]) {
        let bytes: usize = entries.iter().map(RawEntry::bytes).sum();
        if bytes > PAGE_BYTES {
            self.count = (entries.len() * PAGE_BYTES / bytes).max(1);
        } else if entries.len() >= self.count && bytes <= PAGE_BYTES / 2 {
            self.count = (self.count * 2).min(MAX_ENTRIES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_shrink_for_heavy_entries_and_grow_again() {
        let entry =
            |size: usize| RawEntry { position: Position::default(), fields: vec![(vec![], vec![0; size])], cut: None };
        let mut page = PageSize::default();
        page.learn(&(0..32).map(|_| entry(5 << 20)).collect::<Vec<_>>());
        assert_eq!(page.count(), 1);
        for _ in 0..20 {
            page.learn(&(0..page.count()).map(|_| entry(100)).collect::<Vec<_>>());
        }
        assert_eq!(page.count(), MAX_ENTRIES);
        page.learn(&[entry(100)]);
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
}
