//! What a cursor begins with, and what its steps bring (sans-IO).

use crate::log::window::Gap;
use crate::model::event::Event;
use crate::model::names::Room;
use crate::model::offset::Offset;
use crate::model::place::Place;
use crate::session::changes::Change;
use std::sync::Arc;

/// What a session missed on one line.
#[derive(Debug)]
pub struct Missing {
    /// It has everything up to here.
    pub after: Offset,
    /// Its rooms there that the line has events of.
    pub rooms: Vec<Room>,
    /// How these changed since.
    pub changes: Vec<Change>,
}

/// An event for the session.
#[derive(Debug)]
pub struct Missed {
    /// The event.
    pub event: Arc<Event>,
    /// The index of the first of the event's rooms that the session is in: `/ws` clients get the event under its name.
    pub room: usize,
    /// Whether it came after the cursor began, so that the session would have got it live.
    pub is_late: bool,
    /// Where the client is once it has the event, on all lines of its session. `None`: on the control line alone, and the
    /// event's own offset says it.
    pub place: Option<Place>,
}

/// What a step of the cursor brings.
#[derive(Debug)]
pub enum Step {
    /// The next events; none where the step led through a part of the log with nothing for the session.
    Events(Vec<Missed>),
    /// Events are no longer kept, and the cursor has gone past them.
    Lost {
        /// Why.
        gap: Gap,
        /// Of which room; `None`: of any of the session's that the line has events of.
        room: Option<Room>,
        /// The last of them, and their line.
        up_to: Offset,
    },
    /// The window begins anew, and the shard is about to.
    Reset,
}
