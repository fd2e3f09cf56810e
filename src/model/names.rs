//! Names that travel with every event: rooms and namespaces.

use std::sync::Arc;

/// The name of a room. Rooms are per namespace.
pub type Room = Arc<str>;
/// The name of a Socket.IO namespace, with its leading slash.
pub type Namespace = Arc<str>;

/// The namespace where `/ws` and SSE clients live, and the default everywhere.
pub const MAIN_NAMESPACE: &str = "/";

/// The room that everybody of a namespace is in, by being there: Socket.IO's `io.emit()`. No table holds it, so it costs
/// idle sessions nothing; its name is empty, which no client, rule or publisher can say ([`check_room_name`]). Only events
/// of [`Source::Emitter`] may go to it.
pub const EVERYBODY: &str = "";
