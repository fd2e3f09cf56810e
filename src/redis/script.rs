//! A Lua script, sent by its hash.

/// A script and the hash under which Redis caches it.
pub(crate) struct Script {
    /// For `EVAL`.
    pub text: &'static str,
    /// For `EVALSHA`.
    pub sha: String,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text, sha: redis::Script::new(text).get_hash().to_owned() }
    }
}
