//! Why a call to Redis failed.

use crate::redis::url::Address;
use redis::ServerError;
use std::time::Duration;

/// Error replies that mean "not here" or "not now". A new connection may reach the right server.
const NOT_SERVING: [&str; 8] =
    ["MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED"];

/// Why a call to Redis failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedisError {
    #[error("Redis did not answer within {0:?}")]
    Timeout(Duration),
    /// An error reply that another connection would get too.
    #[error("Redis answered: {0}")]
    Reply(String),
    /// The server does not serve this key, or not now: connect again.
    #[error("this Redis server does not serve the data now: {0}")]
    NotServing(String),
    /// The connection could not be made, or broke.
    #[error("no connection to Redis: {0}")]
    Disconnected(String),
    /// More bytes than [`crate::redis::connection::RedisConnection::open_bounded`] allows.
    #[error("a reply of Redis has more than {0} bytes")]
    ReplyTooLarge(usize),
    /// A reply to this command that has another shape than documented.
    #[error("Redis answered {0} in an unknown form")]
    UnexpectedReply(&'static str),
}

impl RedisError {
    /// Puts the server's address before the message.
    pub(super) fn at(self, address: &Address) -> Self {
        match self {
            Self::Disconnected(reason) => Self::Disconnected(format!("{address}: {reason}")),
            Self::NotServing(reason) => Self::NotServing(format!("{address}: {reason}")),
            other => other,
        }
    }
}

impl RedisError {
    /// The error that an error reply means: its code, a space, and a text.
    pub(crate) fn of_reply(reply: &[u8]) -> Self {
        let text = String::from_utf8_lossy(reply).into_owned();
        let code = text.split(' ').next().unwrap_or_default();
        match NOT_SERVING.contains(&code) {
            true => Self::NotServing(text),
            false => Self::Reply(text),
        }
    }
}

impl From<redis::RedisError> for RedisError {
    fn from(error: redis::RedisError) -> Self {
        match ServerError::try_from(error) {
            Ok(reply) => reply.into(),
            Err(error) => Self::Disconnected(error.to_string()),
        }
    }
}

impl From<ServerError> for RedisError {
    fn from(error: ServerError) -> Self {
        let text = match error.details() {
            Some(details) => format!("{} {details}", error.code()),
            None => error.code().to_owned(),
        };
        match NOT_SERVING.contains(&error.code()) {
            true => Self::NotServing(text),
            false => Self::Reply(text),
        }
    }
}

/// Runs a call of the client library with a timeout.
pub(super) async fn with_timeout<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, redis::RedisError>>,
) -> Result<T, RedisError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(result) => result.map_err(RedisError::from),
        Err(_) => Err(RedisError::Timeout(timeout)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::Value;

    #[test]
    fn replies_that_ask_for_another_connection_are_recognized() {
        let error = |text: &str| match redis::parse_redis_value(text.as_bytes()).unwrap() {
            Value::ServerError(error) => RedisError::from(error),
            other => panic!("{other:?}"),
        };
        for code in NOT_SERVING {
            let raw = RedisError::of_reply(format!("{code} 3999 h:1").as_bytes());
            assert!(matches!(raw, RedisError::NotServing(text) if text == format!("{code} 3999 h:1")));
            assert!(
                matches!(error(&format!("-{code} 3999 h:1\r\n")), RedisError::NotServing(text) if text.starts_with(code))
            );
        }
        assert!(matches!(RedisError::of_reply(b"OOM command not allowed"), RedisError::Reply(_)));
        assert!(matches!(error("-OOM command not allowed\r\n"), RedisError::Reply(_)));
    }
}
