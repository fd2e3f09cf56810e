//! A Lua script, and the name under which Redis keeps it.

/// See [`Script::new`].
pub(crate) struct Script {
    /// What `EVAL` takes.
    pub text: &'static str,
    /// What `EVALSHA` takes.
    pub sha: String,
}

impl Script {
    /// With its name worked out.
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text, sha: redis::Script::new(text).get_hash().to_owned() }
    }
}
