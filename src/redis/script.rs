//! A Lua script, sent by its hash.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// A script and the hash under which Redis caches it.
pub(crate) struct Script {
    /// For `EVAL`.
    pub text: &'static str,
    /// For `EVALSHA`.
    pub sha: String,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text, sha: hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes())) }
    }
}
