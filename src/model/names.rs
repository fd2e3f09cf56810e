//! The names of rooms and namespaces.

use std::sync::Arc;

/// The name of a room. Rooms are per namespace.
pub type Room = Arc<str>;
/// The name of a Socket.IO namespace, with its leading slash.
pub type Namespace = Arc<str>;

/// The namespace of `/ws` and SSE clients, and the default everywhere.
pub const MAIN_NAMESPACE: &str = "/";

/// [`MAIN_NAMESPACE`] without an allocation: each thread shares one.
pub fn main_namespace() -> Namespace {
    thread_local! {
        static MAIN: Namespace = MAIN_NAMESPACE.into();
    }
    MAIN.with(Namespace::clone)
}

/// So many parts of a room's name, split at `:`; all of it where it has no more, or for zero.
pub fn first_segments(room: &str, count: u8) -> &str {
    match count.checked_sub(1).and_then(|last| room.match_indices(':').nth(usize::from(last))) {
        Some((end, _)) => &room[..end],
        None => room,
    }
}

/// The room that every session of a namespace is in, for Socket.IO's `io.emit()`. No table has it, so it costs idle
/// sessions nothing. Its name is empty, which clients, rules and publishers cannot use ([`check_room_name`]); only
/// events of [`Source::Emitter`] may go to it.
pub const EVERYBODY: &str = "";
