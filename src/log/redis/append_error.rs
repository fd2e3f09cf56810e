//! What a publisher hears of an append that failed.

use crate::log::AppendError;
use crate::redis::error::RedisError;
use std::time::Duration;

/// Error replies that another moment would not give.
const PASSING: [&str; 3] = ["BUSY", "NOREPLICAS", "EXECABORT"];

pub(super) fn unavailable(error: &RedisError) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

/// The answer to what was not sent in time, or had no reply.
pub(super) fn timed_out(timeout: Duration) -> AppendError {
    unavailable(&RedisError::Timeout(timeout))
}

/// An error that another connection or another moment would not give is not a refusal.
pub(super) fn refusal_of(error: &RedisError) -> AppendError {
    match error {
        RedisError::Reply(text) if !PASSING.iter().any(|code| text.starts_with(code)) => {
            AppendError::Refused(text.clone())
        }
        passing => unavailable(passing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::Value;

    #[test]
    fn temporary_errors_are_no_refusals() {
        let refusal = |code: &str| match redis::parse_redis_value(format!("-{code} text\r\n").as_bytes()).unwrap() {
            Value::ServerError(error) => refusal_of(&RedisError::from(error)),
            other => panic!("{other:?}"),
        };
        for code in ["LOADING", "READONLY", "MOVED", "BUSY", "NOREPLICAS", "EXECABORT"] {
            assert!(matches!(refusal(code), AppendError::Unavailable(_)), "{code}");
        }
        for code in ["OOM", "NOPERM", "WRONGTYPE", "MISCONF", "ERR"] {
            assert!(matches!(refusal(code), AppendError::Refused(_)), "{code}");
        }
    }
}
