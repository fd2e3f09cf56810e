//! A Lua script, and the name under which Redis keeps it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

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
        Self { text, sha: hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes())) }
    }
}
