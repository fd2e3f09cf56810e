//! What happens to a session, apart from single events: what `explain` remembers of it.

use crate::model::close::CloseReason;
use crate::model::names::Room;
use crate::model::place::Place;
use crate::model::provenance::Provenance;

/// Something that happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionNote {
    /// It began, or continues on another connection.
    Began,
    /// It joined a room after its start.
    Joined {
        /// The room.
        room: Room,
        /// What let it in.
        by: Provenance,
    },
    /// It left a room.
    Left {
        /// The room.
        room: Room,
        /// Who wanted that.
        by: LeftBy,
    },
    /// It was refused something.
    Refused {
        /// The error code that its client saw.
        code: &'static str,
        /// The room that it wanted to join, if that was it.
        room: Option<Room>,
    },
    /// It continues from where its client was before. What its rooms had after this position follows.
    Resumed {
        /// Up to here its client had everything.
        after: Box<Place>,
        /// The one room of which this is said; `None`: all of its rooms.
        room: Option<Room>,
    },
    /// Its client may have missed events of the log.
    Gap {
        /// Why: a label of `roomcast_gaps_total` or `roomcast_recoveries_total`.
        code: &'static str,
        /// The room in which they may be missing; `None`: all of its rooms.
        room: Option<Room>,
        /// The place after which they may be missing, if that is known.
        after: Option<Box<Place>>,
    },
    /// It ended, or lost its connection.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// Who wanted a session to leave a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftBy {
    /// Its client, by an event, or the backend's answer to one.
    Client,
    /// The backend, by `/leave`.
    Command,
    /// Its new token, which does not give it the room.
    Token,
    /// New rules, which do not give it the room.
    Rules,
    /// Nobody: its join was refused afterwards.
    Undone,
}

impl LeftBy {
    /// Its name in answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Command => "command",
            Self::Token => "token",
            Self::Rules => "rules",
            Self::Undone => "undone",
        }
    }
}
