//! What happens to the sessions of a shard, as far as it is remembered.

use crate::model::clock::unix_ms;
use crate::model::session_note::SessionNote;
use crate::session::connection::SessionKey;
use crate::shard::hub::Hub;

impl Hub {
    /// Takes note of what happened to a session. Called before a session that ends is taken out of the tables.
    pub(super) fn note(&mut self, key: SessionKey, note: SessionNote) {
        self.report_note(key, &note);
        let Some(session) = self.sessions.get(key) else { return };
        if let SessionNote::Refused { code, .. } = &note {
            self.refused.note(key, code, unix_ms());
        }
        // Only users are asked about.
        if session.identity.user.is_some() {
            self.history.note(session.id, self.stamp(), note);
        }
    }
}
