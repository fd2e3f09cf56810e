//! Why the backend gave no answer that could be used.

use std::time::Duration;

/// What the caller is told; nothing else happens then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// No complete answer in time.
    #[error("the backend did not answer within {0:?}")]
    Timeout(Duration),
    /// No connection, or it broke. The address and the cause are for the log, not for clients.
    #[error("the backend is not reachable")]
    Unreachable(String),
    /// It has failed so often that it is left alone for a moment.
    #[error("the backend has failed several times in a row; try again in a second")]
    Resting,
    /// Its inbox has so many entries that nobody has taken.
    #[error("the backend is behind: {0} entries wait in its inbox; try again later")]
    Full(u64),
    /// Another status than 200.
    #[error("the backend answered {0}")]
    Status(u16),
    /// An answer that is not of the contract's form.
    #[error("the backend's answer cannot be used: {0}")]
    BadAnswer(String),
    /// Its own refusal, in its own words.
    #[error("{0}")]
    Refused(String),
}

impl BackendError {
    /// The error code that clients see.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "backend_timeout",
            Self::Unreachable(_) | Self::Resting => "backend_unavailable",
            Self::Full(_) => "backend_full",
            Self::Status(_) => "backend_error",
            Self::BadAnswer(_) => "backend_bad_answer",
            Self::Refused(_) => "refused",
        }
    }

    /// The `result` of `roomcast_backend_requests_total`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Resting => "resting",
            Self::Full(_) => "full",
            Self::Status(_) => "status",
            Self::BadAnswer(_) => "bad_answer",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether it tells of the backend's health rather than of this one request. A plain 500 does not: one client that
    /// finds a bug must not have the backend left alone by all.
    pub fn is_trouble(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unreachable(_) => true,
            Self::Status(status) => matches!(status, 502..=504),
            Self::Resting | Self::Full(_) | Self::BadAnswer(_) | Self::Refused(_) => false,
        }
    }

    /// Whether the same request may be taken later.
    pub fn may_pass(&self) -> bool {
        self.is_trouble() || matches!(self, Self::Resting | Self::Full(_) | Self::Status(500..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again_and_what_rests() {
        let judged = |error: BackendError| (error.is_trouble(), error.may_pass());
        for status in [502, 503, 504] {
            assert_eq!(judged(BackendError::Status(status)), (true, true), "{status}");
        }
        assert_eq!(judged(BackendError::Status(500)), (false, true));
        assert_eq!(judged(BackendError::Status(404)), (false, false));
        assert_eq!(judged(BackendError::Timeout(Duration::ZERO)), (true, true));
        assert_eq!(judged(BackendError::Unreachable(String::new())), (true, true));
        for passing in [BackendError::Resting, BackendError::Full(1)] {
            assert_eq!(judged(passing), (false, true));
        }
        for its_own in [BackendError::BadAnswer(String::new()), BackendError::Refused(String::new())] {
            assert_eq!(judged(its_own), (false, false));
        }
    }
}
