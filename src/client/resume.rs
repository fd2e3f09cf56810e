//! Taking up a session where its connection was lost: authorise, join, replay, go live (DESIGN 6).

use crate::client::admit::{self, Newcomer};
use crate::close::CloseReason;
use crate::event::{Event, Offset, Room};
use crate::hub::shard::Shard;
use crate::id::Id;
use crate::log::window::Gap;
use crate::protocol::socketio_encode as encode;
use crate::session::connection::SessionKey;
use crate::session::outbox::Frame;
use crate::session::parked::Parked;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};

/// A parked session that this client may have back, and where from.
pub struct Resumed {
    pid: Id,
    parked: Parked,
    missed: Vec<Arc<Event>>,
}

/// Finds the session of a Socket.IO client's pid and what it missed. `None`: it gets a new session, and knows by it.
pub async fn socketio(shard: &Rc<Shard>, newcomer: &Newcomer, pid: Id, offset: Option<&str>) -> Option<Resumed> {
    let found = take(shard, pid).await;
    if let Some(after) = offset.and_then(Offset::parse) {
        shard.catch_up_with(after).await;
    }
    let result = found.ok_or("unknown_session").and_then(|parked| {
        let user = newcomer.identity.user.as_ref().map(|user| user.as_str());
        if parked.namespace != newcomer.namespace || parked.user.as_deref() != user {
            return Err("other_user");
        }
        let after = match offset {
            Some(text) => Offset::parse(text).ok_or("bad_offset")?,
            // A client that received nothing yet names no offset: it missed what came since it began.
            None => parked.start,
        };
        // The stock client may still hold the offset of an older session of the same log (wire sheet C2).
        let before = after.epoch == parked.start.epoch && after.position < parked.start.position;
        let after = if before { parked.start } else { after };
        let missed = missed(shard, after, newcomer.namespace, &parked.rooms, &parked.id).map_err(Gap::code)?;
        Ok(Resumed { pid, parked, missed })
    });
    shard.node.metrics.recovery(result.as_ref().err().unwrap_or(&"recovered"));
    result.ok()
}

/// The session parked, or still live on a half-open connection, on whichever shard it is.
async fn take(shard: &Rc<Shard>, pid: Id) -> Option<Parked> {
    if let Some(parked) = take_here(shard, pid) {
        return Some(parked);
    }
    let owner = usize::from(pid.shard());
    let others = shard.node.shards().iter().enumerate();
    let mut order: Vec<_> = others.filter(|(index, _)| *index != usize::from(shard.index)).collect();
    order.sort_by_key(|(index, _)| *index != owner);
    for (_, other) in order {
        if let Some(Some(parked)) = other.ask(move |shard| take_here(shard, pid)).await {
            return Some(parked);
        }
    }
    None
}

fn take_here(shard: &Rc<Shard>, pid: Id) -> Option<Parked> {
    let now = shard.now();
    let mut hub = shard.hub.borrow_mut();
    if let Some(connection) = hub.connection_of_pid(pid) {
        hub.close(connection, CloseReason::Replaced, now);
    }
    hub.parked.take(pid, now)
}

/// The events of these rooms in (`after`, the shard's position], each once, in order.
///
/// # Errors
/// When it cannot be proven that the window has them all.
pub fn missed(shard: &Shard, after: Offset, namespace: u16, rooms: &[Room], own: &Id) -> Result<Vec<Arc<Event>>, Gap> {
    let up_to = shard.hub.borrow().position;
    if after.epoch == up_to.epoch && after.position > up_to.position {
        // What goes live next would come a second time.
        return Err(Gap::Future);
    }
    let mut names = rooms.to_vec();
    names.push(own.to_string().into());
    let window = shard.node.window.read().unwrap_or_else(PoisonError::into_inner);
    window.replay(after, up_to.position, &shard.node.namespaces[usize::from(namespace)], &names)
}

/// Puts the session back with its rooms; what it missed is written before the CONNECT reply (wire sheet C1).
pub fn continue_session(shard: &Rc<Shard>, newcomer: Newcomer, resumed: Resumed, namespace: &str) -> SessionKey {
    let Resumed { pid, parked, missed } = resumed;
    let connection = newcomer.connection;
    let mut session = newcomer.session(shard, parked.id, Some(pid));
    session.start = parked.start;
    let key = admit::admit(shard, session, &parked.rooms);
    let mut hub = shard.hub.borrow_mut();
    for event in missed {
        hub.push(connection, Frame::event(event));
    }
    hub.push_packet(connection, encode::connect(namespace, &parked.id.to_string(), Some(&pid.to_string())));
    key
}
