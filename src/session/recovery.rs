//! What a client that comes back has missed, or why that cannot be proven (DESIGN 6, 7). Sans-IO: the shards carry it
//! out, and `tests/simulation.rs` runs it through thousands of seeds.

use crate::event::{Event, Offset, Position, Room};
use crate::id::Id;
use crate::log::window::{Gap, Window};
use std::sync::Arc;

/// Where and for whom something may be missing.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What the session has delivered up to: everything later comes to it live.
    pub here: Offset,
    /// Its namespace's name.
    pub namespace: &'a str,
    /// Its rooms.
    pub rooms: &'a [Room],
    /// Its own id: a room with that one member.
    pub own: &'a Id,
}

impl Place<'_> {
    /// The events in (`after`, `up_to`], each once, in order; without `up_to`, to where the session is.
    ///
    /// # Errors
    /// When it cannot be proven that the window has them all.
    pub fn missed(&self, window: &Window, after: Offset, up_to: Option<Position>) -> Result<Vec<Arc<Event>>, Gap> {
        if after.epoch != self.here.epoch {
            // Also while the window has begun anew and this shard has not heard of it.
            return Err(Gap::ForeignEpoch);
        }
        if after.position > self.here.position {
            // What goes live next would come a second time.
            return Err(Gap::Future);
        }
        let mut names = self.rooms.to_vec();
        names.push(self.own.to_string().into());
        window.replay(after, up_to.unwrap_or(self.here.position), self.namespace, &names)
    }
}
