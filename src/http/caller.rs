//! Where a request comes from.

use crate::http::upgrade::Slot;
use std::net::IpAddr;
use std::rc::Rc;
use tokio::sync::Notify;

/// Which of the two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// `listen`.
    Public,
    /// `admin_listen`.
    Admin,
}

/// The connection that a request came in on.
pub struct Caller {
    /// The listener that accepted it.
    pub listener: ListenerKind,
    /// The address of the other end.
    pub peer: IpAddr,
    /// Where a handler of an upgrade leaves what the socket becomes.
    pub slot: Slot,
    /// Ends the connection of an SSE stream whose client stopped reading.
    pub cut: Rc<Notify>,
}
