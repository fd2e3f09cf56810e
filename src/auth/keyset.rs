//! All keys at one moment, and the choice of the one that must have signed a token. Sans-IO.

use crate::auth::algorithm::{Algorithm, KeyKind};
use crate::auth::error::AuthError;
use crate::auth::header::Header;
use crate::auth::key::Key;
use std::sync::Arc;

/// A snapshot. A changed JWKS makes a new one, with a new generation.
#[derive(Clone)]
pub(super) struct KeySet {
    /// Counts the snapshots of this process. The cache ignores what another generation verified.
    pub generation: u64,
    /// `auth.secret`, or `auth.secrets`.
    pub secrets: Arc<[Key]>,
    /// `auth.public_key_file`.
    pub public: Option<Arc<Key>>,
    /// `auth.jwks_url`: `None` without a URL, empty before the first fetch.
    pub fetched: Option<Arc<[Key]>>,
}

/// The keys that may have signed a token.
pub(super) struct Choice<'a> {
    /// Tried one after the other; one at least, and no more than a set may have.
    pub keys: Vec<&'a Key>,
    /// The error if the signature fits none of them.
    pub otherwise: AuthError,
}

impl KeySet {
    /// Chooses by the header's algorithm, which must be pinned to the key, and by `kid`. A token without one may be of
    /// any key that fits: while keys overlap in a rotation there are two.
    pub(super) fn choose(&self, algorithm: Algorithm, header: &Header) -> Result<Choice<'_>, AuthError> {
        let choice = |keys: Vec<_>, none, otherwise| match keys.is_empty() {
            true => Err(none),
            false => Ok(Choice { keys, otherwise }),
        };
        if algorithm.key_kind() == KeyKind::Secret {
            return choice(fitting(&self.secrets, algorithm).collect(), AuthError::Algorithm, AuthError::Signature);
        }
        let public = self.public.as_deref().filter(|key| key.fits(algorithm));
        let Some(fetched) = &self.fetched else {
            // There is one key, so it must be this one, whatever `kid` says.
            return choice(public.into_iter().collect(), AuthError::Algorithm, AuthError::Signature);
        };
        let Some(kid) = &header.kid else {
            // If it is none of them, the set may have a newer one.
            let keys = fitting(fetched, algorithm).chain(public).collect();
            return choice(keys, AuthError::UnknownKey, AuthError::UnknownKey);
        };
        if fetched.iter().any(|key| key.id() == Some(kid)) {
            let named = fetched.iter().filter(|key| key.id() == Some(kid) && key.fits(algorithm)).collect();
            return choice(named, AuthError::Algorithm, AuthError::Signature);
        }
        // A key without a name, or another issuer's key beside the set; if it is none of those, the set may have a
        // newer.
        let unnamed = fitting(fetched, algorithm).filter(|key| key.id().is_none());
        choice(unnamed.chain(public).collect(), unknown(kid), unknown(kid))
    }
}

fn fitting(keys: &[Key], algorithm: Algorithm) -> impl Iterator<Item = &Key> {
    keys.iter().filter(move |key| key.fits(algorithm))
}

/// A `kid` that is a path or a URL does not cause a fetch: no issuer uses one, and nothing here opens it.
fn unknown(kid: &str) -> AuthError {
    match kid.contains("://") || kid.contains("..") || kid.contains('\\') {
        true => AuthError::Malformed("its `kid` is a path or a URL, not the name of a key"),
        false => AuthError::UnknownKey,
    }
}
