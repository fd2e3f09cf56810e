//! Why a client's event did nothing.

use crate::backend::BackendError;
use crate::handlers::room_access::JoinError;
use crate::log::AppendError;
use crate::model::args::Args;
use crate::model::draft::DraftError;
use crate::model::names::Room;
use crate::protocol::socketio_encode::EncodeError;
use crate::rules::TemplateError;
use std::time::Duration;

/// A failed rule: the error, and the acknowledgement that `ack_error` makes of it.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: ActionError,
    /// By `ack_error`.
    pub ack: Option<Args>,
}

/// Why a client's event did nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ActionError {
    /// No rule for it.
    #[error("there is no rule for the event \"{0}\"")]
    NoRule(String),
    /// A placeholder could not be filled.
    #[error(transparent)]
    Template(TemplateError),
    /// A join was refused.
    #[error(transparent)]
    Join(JoinError),
    /// An emit to a room the caller is not in.
    #[error("not in the room \"{0}\"")]
    NotInRoom(Room),
    /// The filled template makes no valid event.
    #[error(transparent)]
    Draft(DraftError),
    /// An acknowledgement or a reply that Socket.IO clients cannot be sent.
    #[error(transparent)]
    Unwritable(EncodeError),
    /// The log did not take it.
    #[error(transparent)]
    Append(AppendError),
    /// The session's record, or presence, was not written in time; rooms that were to be joined are not.
    #[error("the rooms of this session were not written within 1.5 s; try again")]
    Unsettled,
    /// The backend refused it, or gave no answer that could be used.
    #[error(transparent)]
    Backend(BackendError),
}

impl ActionError {
    /// When to try again, for a client that is too fast.
    pub fn retry(&self) -> Option<Duration> {
        match self {
            Self::Join(error) => error.retry(),
            Self::Backend(error) => error.retry(),
            _ => None,
        }
    }

    /// The error code that clients see.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRule(_) => "no_rule",
            Self::Template(error) => error.code(),
            Self::Join(error) => error.code(),
            Self::NotInRoom(_) => "not_in_room",
            Self::Draft(error) => error.code(),
            Self::Unwritable(error) => error.code(),
            Self::Append(error) => error.code(),
            Self::Unsettled => "unavailable",
            Self::Backend(error) => error.code(),
        }
    }
}
