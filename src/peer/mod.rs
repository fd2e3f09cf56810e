//! Asking the node that owns a session. `peer_server` is the other end.

pub mod forward;
