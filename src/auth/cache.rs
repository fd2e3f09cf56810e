//! Tokens that were verified before: a reconnect storm must not cost one ECDSA operation each. Sans-IO.

use crate::auth::identity::Identity;
use aws_lc_rs::digest::{SHA256, digest};
use std::collections::HashMap;
use std::sync::Arc;

/// SHA-256 of the whole token, signature included. Nobody can make two tokens with the same digest, so a hit is the
/// same token. The token itself is not kept.
pub(super) type TokenHash = [u8; 32];

/// Limits of each of the two generations; together 32,768 tokens or 16 MB. Identities are shared with their sessions,
/// so an entry of a connected client costs 64 bytes.
const MAX_ENTRIES: usize = 16_384;
const MAX_BYTES: usize = 8 << 20;

pub(super) fn token_hash(token: &str) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// A map of two generations: what is not asked for during a whole generation is dropped. Only verified tokens are
/// inserted, so strangers cannot displace anything.
#[derive(Default)]
pub(super) struct Cache {
    young: HashMap<TokenHash, Entry>,
    old: HashMap<TokenHash, Entry>,
    bytes: usize,
}

#[derive(Clone)]
struct Entry {
    keys: u64,
    identity: Arc<Identity>,
}

impl Cache {
    /// The identity, if this generation of keys verified it. The caller checks whether it has expired.
    pub(super) fn get(&mut self, hash: &TokenHash, keys: u64) -> Option<Arc<Identity>> {
        if let Some(entry) = self.young.get(hash) {
            return (entry.keys == keys).then(|| entry.identity.clone());
        }
        let entry = self.old.remove(hash).filter(|entry| entry.keys == keys)?;
        let identity = entry.identity.clone();
        self.insert(*hash, keys, entry.identity);
        Some(identity)
    }

    /// Remembers what this generation of keys verified.
    pub(super) fn insert(&mut self, hash: TokenHash, keys: u64, identity: Arc<Identity>) {
        if self.young.len() >= MAX_ENTRIES || self.bytes >= MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += identity.bytes();
        self.young.insert(hash, Entry { keys, identity });
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Arc<Identity> {
        Arc::new(Identity::anonymous())
    }

    #[test]
    fn it_stays_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        let kept = token_hash("kept");
        cache.insert(kept, 1, identity());
        for number in 0..100_000 {
            cache.insert(token_hash(&number.to_string()), 1, identity());
            if number % 1000 == 0 {
                assert!(cache.get(&kept, 1).is_some(), "{number}");
            }
            assert!(cache.len() <= 2 * MAX_ENTRIES + 1);
        }
        assert!(cache.get(&token_hash("0"), 1).is_none());
        assert!(cache.get(&token_hash("99999"), 1).is_some());
    }

    #[test]
    fn big_identities_fill_it_sooner() {
        let mut cache = Cache::default();
        let big = Arc::new(Identity { claims: "x".repeat(8000).into(), ..Identity::anonymous() });
        for number in 0..10_000 {
            cache.insert(token_hash(&number.to_string()), 1, big.clone());
        }
        assert!(cache.len() * 8000 <= 2 * (MAX_BYTES + 8192), "{}", cache.len());
    }

    #[test]
    fn other_keys_other_cache() {
        let mut cache = Cache::default();
        let hash = token_hash("token");
        cache.insert(hash, 1, identity());
        assert!(cache.get(&hash, 2).is_none());
        assert!(cache.get(&hash, 1).is_some());
    }
}
