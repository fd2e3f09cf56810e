//! Signing, for `roomcast token` and the demo.

use crate::auth::MIN_SECRET;
use crate::auth::algorithm::{Algorithm, KeyKind};
use crate::auth::config::AuthConfig;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Map, Value};

/// Signs the claims with the configured secret and the first HS algorithm of the configuration. `iss` and `aud` are
/// filled in from the configuration (the first of a list) where the claims lack them; everything else (`exp`, the user) is the
/// caller's ([`insert`](crate::auth::claims::insert) puts a claim at a path).
///
/// # Errors
/// Without a usable secret or an HS algorithm.
pub fn sign(config: &AuthConfig, claims: &Map<String, Value>) -> Result<String, SignError> {
    let secret = config.secret.as_ref().ok_or(SignError::NoSecret)?;
    if secret.reveal().len() < MIN_SECRET {
        return Err(SignError::ShortSecret);
    }
    let algorithm = config
        .algorithms
        .iter()
        .filter_map(|name| Algorithm::from_name(name))
        .find(|algorithm| algorithm.key_kind() == KeyKind::Secret)
        .and_then(Algorithm::library)
        .ok_or(SignError::NoAlgorithm)?;
    let mut claims = claims.clone();
    for (name, value) in [("iss", &config.issuer), ("aud", &config.audience)] {
        if let (Some(value), false) = (value.first(), claims.contains_key(name)) {
            claims.insert(name.to_owned(), Value::from(value.as_str()));
        }
    }
    let key = EncodingKey::from_secret(secret.reveal().as_bytes());
    encode(&Header::new(algorithm), &claims, &key).map_err(SignError::Failed)
}

/// Why no token could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// There is no `auth.secret`.
    #[error("no auth.secret to sign with; tokens for public keys come from their issuer")]
    NoSecret,
    /// It is under [`MIN_SECRET`] bytes.
    #[error("auth.secret is under {MIN_SECRET} bytes")]
    ShortSecret,
    /// `auth.algorithms` lists no HS256, HS384 or HS512.
    #[error("auth.algorithms lists no HS256, HS384 or HS512 to sign with")]
    NoAlgorithm,
    /// The library failed.
    #[error("signing failed")]
    Failed(#[source] jsonwebtoken::errors::Error),
}

impl SignError {
    /// Stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSecret => "sign_no_secret",
            Self::ShortSecret => "sign_short_secret",
            Self::NoAlgorithm => "sign_no_algorithm",
            Self::Failed(_) => "sign_failed",
        }
    }
}
