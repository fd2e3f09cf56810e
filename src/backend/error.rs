//! Why the backend gave no usable answer.

use std::time::Duration;

/// A guess: how fast the backend works is not known.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Why the backend gave no usable answer. The caller gets this error and nothing else happens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// No complete answer within this time.
    #[error("the backend did not answer within {0:?}")]
    Timeout(Duration),
    /// There is no connection. Address and cause are for the log, not for clients.
    #[error("the backend is not reachable")]
    Unreachable(String),
    /// The connection broke before the answer was complete.
    #[error("the backend is not reachable")]
    ConnectionLost(String),
    /// The circuit breaker is open: the backend cannot be reached, or answered nobody for a while.
    #[error("the backend failed several times in a row; try again in a second")]
    CircuitOpen,
    /// `backend.queue` or `backend.queue_per_user` is reached.
    #[error("too many requests wait for the backend; try again in a second")]
    Busy,
    /// `backend.stream` holds this many entries, which is `backend.stream_limit`.
    #[error("the backend is behind: {0} entries wait in `backend.stream`; try again later")]
    StreamFull(u64),
    /// A status other than 2xx.
    #[error("the backend answered {0}")]
    Status(u16),
    /// An answer in another form than documented (docs/backend.md, "Requests and answers").
    #[error("the backend's answer cannot be used: {0}")]
    BadAnswer(String),
    /// The backend refused; the text is its own.
    #[error("{0}")]
    Refused(String),
}

impl BackendError {
    /// The `code` of the error that clients get.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "backend_timeout",
            Self::Unreachable(_) | Self::ConnectionLost(_) | Self::CircuitOpen => "backend_unavailable",
            Self::Busy => "rate_limited",
            Self::StreamFull(_) => "backend_full",
            Self::Status(_) => "backend_error",
            Self::BadAnswer(_) => "backend_bad_answer",
            Self::Refused(_) => "refused",
        }
    }

    /// The `result` of `roomcast_backend_requests_total`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Unreachable(_) | Self::ConnectionLost(_) => "unreachable",
            Self::CircuitOpen => "resting",
            Self::Busy => "busy",
            Self::StreamFull(_) => "full",
            Self::Status(_) => "status",
            Self::BadAnswer(_) => "bad_answer",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether it counts for the circuit breaker, because it says something about the backend's health. A plain 500 does
    /// not: one client that triggers a bug must not cut off all others.
    pub fn counts_as_failure(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unreachable(_) | Self::ConnectionLost(_) => true,
            Self::Status(status) => matches!(status, 502..=504),
            Self::CircuitOpen | Self::Busy | Self::StreamFull(_) | Self::BadAnswer(_) | Self::Refused(_) => false,
        }
    }

    /// When to try again, for a client that has too many requests waiting.
    pub fn retry(&self) -> Option<Duration> {
        matches!(self, Self::Busy).then_some(BUSY_RETRY)
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.counts_as_failure()
            || matches!(self, Self::CircuitOpen | Self::Busy | Self::StreamFull(_) | Self::Status(500..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classified_for_retries_and_the_circuit_breaker() {
        let judged = |error: BackendError| (error.counts_as_failure(), error.is_retryable());
        for status in [502, 503, 504] {
            assert_eq!(judged(BackendError::Status(status)), (true, true), "{status}");
        }
        assert_eq!(judged(BackendError::Status(500)), (false, true));
        assert_eq!(judged(BackendError::Status(404)), (false, false));
        assert_eq!(judged(BackendError::Timeout(Duration::ZERO)), (true, true));
        for broken in [BackendError::Unreachable(String::new()), BackendError::ConnectionLost(String::new())] {
            assert_eq!(judged(broken), (true, true));
        }
        for passing in [BackendError::CircuitOpen, BackendError::Busy, BackendError::StreamFull(1)] {
            assert_eq!(judged(passing), (false, true));
        }
        for its_own in [BackendError::BadAnswer(String::new()), BackendError::Refused(String::new())] {
            assert_eq!(judged(its_own), (false, false));
        }
    }
}
