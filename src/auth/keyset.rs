//! All keys at one moment, and which of them a token must have been signed with. sans-IO.

use crate::auth::algorithm::{Algorithm, KeyKind};
use crate::auth::error::AuthError;
use crate::auth::header::Header;
use crate::auth::key::Key;
use std::sync::Arc;

/// A snapshot; a JWKS that changed makes a new one with a new generation.
#[derive(Clone)]
pub(super) struct KeySet {
    /// Counts the sets of this process: what was verified by another generation is verified anew.
    pub generation: u64,
    /// `auth.secret`.
    pub secret: Option<Arc<Key>>,
    /// `auth.public_key_file`.
    pub public: Option<Arc<Key>>,
    /// `auth.jwks_url`: `None` without a URL, empty before the first fetch.
    pub fetched: Option<Arc<[Key]>>,
}

/// The key for a token.
pub(super) struct Choice<'a> {
    pub key: &'a Key,
    /// The error if its signature does not fit.
    pub otherwise: AuthError,
}

impl KeySet {
    /// Chooses by the header's algorithm, which must be pinned to the key, and by `kid`.
    pub(super) fn choose(&self, algorithm: Algorithm, header: &Header) -> Result<Choice<'_>, AuthError> {
        let sure = |key| Choice { key, otherwise: AuthError::Signature };
        let fitting = |key: &'_ Option<Arc<Key>>| key.as_ref().is_some_and(|key| key.fits(algorithm));
        if algorithm.key_kind() == KeyKind::Secret {
            return self.secret.as_deref().filter(|key| key.fits(algorithm)).map(sure).ok_or(AuthError::Algorithm);
        }
        let public = self.public.as_deref().filter(|_| fitting(&self.public));
        let Some(fetched) = &self.fetched else {
            // One key: whatever `kid` says, it must be this one.
            return public.map(sure).ok_or(AuthError::Algorithm);
        };
        match &header.kid {
            Some(kid) => {
                let mut named = fetched.iter().filter(|key| key.id() == Some(kid)).peekable();
                let known = named.peek().is_some();
                match (named.find(|key| key.fits(algorithm)), known, public) {
                    (Some(key), _, _) => Ok(sure(key)),
                    (None, true, _) => Err(AuthError::Algorithm),
                    // Another issuer's key beside the set; if it is not that one either, the set may have a newer.
                    (None, false, Some(key)) => Ok(Choice { key, otherwise: unknown(kid) }),
                    (None, false, None) => Err(unknown(kid)),
                }
            }
            None => {
                let mut candidates = fetched.iter().filter(|key| key.fits(algorithm)).chain(public);
                match (candidates.next(), candidates.next()) {
                    (Some(key), None) => Ok(sure(key)),
                    (Some(_), Some(_)) => Err(AuthError::AmbiguousKey),
                    (None, _) => Err(AuthError::UnknownKey),
                }
            }
        }
    }
}

/// No refetch for a `kid` that is a path or a URL: no honest issuer starts to use one, and nothing here
/// would ever open it.
fn unknown(kid: &str) -> AuthError {
    match kid.contains("://") || kid.contains("..") || kid.contains('\\') {
        true => AuthError::Malformed("its `kid` is a path or a URL, not the name of a key"),
        false => AuthError::UnknownKey,
    }
}
