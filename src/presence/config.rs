//! `[presence]`.

use std::time::Duration;

/// `[presence]`.
#[derive(Clone, Debug)]
pub struct PresenceConfig {
    /// A user is offline this long after the last connection went.
    pub grace: Duration,
    /// A dead node's users go offline after this and `grace`.
    pub lease: Duration,
    /// For how long it is known when a user was last seen.
    pub remember: Duration,
    /// Members of a room above which no `joined` and `left` are sent: each goes to all of them.
    pub announce_limit: usize,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            remember: Duration::from_secs(30 * 24 * 60 * 60),
            announce_limit: 2000,
        }
    }
}
