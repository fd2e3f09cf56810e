//! From replies to the results of appends.

use crate::log::redis::append_error::{refusal_of, unavailable};
use crate::log::redis::transaction::is_exhausted_text;
use crate::log::redis::{RedisLog, deadline, renewal};
use crate::log::{Accepted, AppendError, Appended};
use crate::model::offset::{Offset, Position};
use crate::redis::error::RedisError;
use crate::redis::resp::Token;

/// What the replies of one read have in common.
pub(super) struct Round {
    /// With any position.
    offset: Option<Offset>,
    /// A position after this is of a stream that is about to be renewed.
    last_ms: u64,
    pub newest_ms: u64,
    pub acknowledged: Option<Position>,
    pub is_refused: bool,
    pub not_serving: Option<RedisError>,
}

impl Round {
    pub(super) fn new(log: &RedisLog) -> Self {
        Self {
            offset: log.epoch().map(|epoch| Offset { epoch, line: log.line, position: Position::default() }),
            last_ms: renewal::max_ms(log),
            newest_ms: 0,
            acknowledged: None,
            is_refused: false,
            not_serving: None,
        }
    }

    /// The result of a command; `None` where it is to be repeated over the control thread's connection.
    pub(super) fn answer(&mut self, reply: Token<'_>, until_ms: u64) -> Option<Appended> {
        match reply {
            // The number of receivers of a volatile event.
            Token::Integer(_) => Some(Ok(Accepted::volatile())),
            // `XADD`.
            Token::Bulk(id) => match position(id) {
                Some(position) if deadline::is_void(position, until_ms) => {
                    self.newest_ms = self.newest_ms.max(position.ms);
                    None
                }
                position => Some(self.accept(position, false)),
            },
            // A script, which has compared the deadline. The id was first used by a volatile event where it is `-`.
            Token::Simple(b"-" | b"=-") => Some(Ok(Accepted::volatile())),
            Token::Simple(id) => {
                let first = id.strip_prefix(b"=");
                Some(self.accept(position(first.unwrap_or(id)), first.is_some()))
            }
            Token::Null => None,
            Token::Error(error) => self.refuse(error).map(Err),
            _ => Some(self.accept(None, false)),
        }
    }

    fn accept(&mut self, position: Option<Position>, is_repeat: bool) -> Appended {
        let position = position.ok_or_else(|| unavailable(&RedisError::UnexpectedReply("XADD")))?;
        self.newest_ms = self.newest_ms.max(position.ms);
        if position.ms <= self.last_ms {
            self.acknowledged = self.acknowledged.max(Some(position));
        }
        Ok(Accepted { offset: self.offset.map(|offset| Offset { position, ..offset }), replicas: None, is_repeat })
    }

    fn refuse(&mut self, text: &[u8]) -> Option<AppendError> {
        if text.starts_with(b"NOSCRIPT") || is_exhausted_text(&String::from_utf8_lossy(text)) {
            return None;
        }
        let error = RedisError::of_reply(text);
        if let RedisError::NotServing(_) = error {
            // The control thread's connection looks for the server as soon as it gets the same answer.
            self.not_serving = Some(error);
            return None;
        }
        let refusal = refusal_of(&error);
        self.is_refused |= matches!(refusal, AppendError::Refused(_));
        Some(refusal)
    }

    /// Tells the log, before anybody knows of the results.
    pub(super) fn note(&self, log: &RedisLog, index: usize) {
        if self.newest_ms > 0 {
            log.note_newest(self.newest_ms);
        }
        if let Some(position) = self.acknowledged {
            log.acknowledged.note(index, position);
        }
        if self.is_refused {
            log.refused_appends.suspect();
        }
    }
}

fn position(id: &[u8]) -> Option<Position> {
    std::str::from_utf8(id).ok().and_then(Position::parse)
}
