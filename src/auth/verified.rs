//! How many tokens each key has verified, so that an operator sees when an old one may go. Secrets are counted by their
//! position in `auth.secrets`: neither they nor what is derived from them is shown.

use crate::auth::key::Key;
use crate::auth::keyset::KeySet;
use std::sync::atomic::{AtomicU64, Ordering};

/// Secrets that are counted apart.
const SECRETS: usize = 4;
/// The `key` labels of `roomcast_tokens_verified_total`: positions, those behind them together, and the other sources.
const LABELS: [&str; SECRETS + 3] = ["0", "1", "2", "3", "more", "public_key", "jwks"];
const PUBLIC_KEY: usize = SECRETS + 1;
const JWKS: usize = SECRETS + 2;

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Verified([AtomicU64; LABELS.len()]);

impl Verified {
    /// Counts a token that this key of the set has signed.
    pub(super) fn count(&self, keys: &KeySet, key: &Key) {
        let secret = keys.secrets.iter().position(|own| std::ptr::eq(own, key));
        self.add(secret.map_or_else(|| asymmetric(keys), |at| at.min(SECRETS)));
    }

    /// Counts a token whose signature by a public key was verified before.
    pub(super) fn count_cached(&self, keys: &KeySet) {
        self.add(asymmetric(keys));
    }

    fn add(&self, index: usize) {
        self.0[index].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn totals(&self) -> Vec<(&'static str, u64)> {
        LABELS.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }
}

/// A configuration has a public key or a key set, not both.
fn asymmetric(keys: &KeySet) -> usize {
    if keys.fetched.is_some() { JWKS } else { PUBLIC_KEY }
}
