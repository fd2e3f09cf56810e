//! Notices to the backend: `online`, `offline`, `occupied`, `vacated`.

use crate::backend::request::{BackendRequest, RequestKind};
use crate::backend::{Backend, Source, Subject};
use crate::presence::writer::Listener;
use crate::presence::{Transition, TransitionKind};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Notices that wait for the backend while what a dead node has left is removed at full speed; over it, one part a tick:
/// it may be more than the notices that may wait.
const MAX_PENDING_NOTICES: usize = 5_000;

/// Tells the backend, where it wants to hear of it.
pub struct Notices {
    backend: Option<Arc<Backend>>,
}

impl Notices {
    /// For this backend.
    pub fn new(backend: Option<Arc<Backend>>) -> Self {
        Self { backend }
    }
}

impl Listener for Notices {
    fn on_transition(&self, transition: &Transition) {
        let kind = match transition.kind {
            TransitionKind::Online(_) => RequestKind::Online,
            TransitionKind::Offline(..) => RequestKind::Offline,
            TransitionKind::Occupied(..) => RequestKind::Occupied,
            TransitionKind::Vacated(..) => RequestKind::Vacated,
        };
        let Some(backend) = self.backend.as_deref().filter(|backend| backend.wants(kind)) else { return };
        let mut call = BackendRequest::new(kind, rfc3339(transition.at_ms));
        let (source, subject) = match &transition.kind {
            TransitionKind::Online(user) => {
                call.user = Some(user);
                of_user(user)
            }
            TransitionKind::Offline(user, seen_ms) => {
                call.user = Some(user);
                call.last_seen = Some(rfc3339(*seen_ms));
                of_user(user)
            }
            TransitionKind::Occupied(namespace, room) | TransitionKind::Vacated(namespace, room) => {
                call.namespace = Some(namespace);
                call.room = Some(room);
                (Source::rooms(), Subject::Room(namespace.clone(), room.clone()))
            }
        };
        backend.notify(&source, subject, &call);
    }

    fn is_behind(&self) -> bool {
        self.backend.as_ref().is_some_and(|backend| backend.pending_notices() > MAX_PENDING_NOTICES)
    }
}

fn of_user(user: &str) -> (Source, Subject) {
    let source = Source::user(user);
    (source.clone(), Subject::Presence(source))
}

/// Unix milliseconds as text.
pub fn rfc3339(unix_ms: u64) -> String {
    // The year 9999 is the last that the format has.
    let max = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms.min(max))).to_string()
}
