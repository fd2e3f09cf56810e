//! Signing, for `roomcast token` and the demo.

use crate::auth::MIN_SECRET;
use crate::auth::algorithm::Algorithm;
use crate::auth::config::AuthConfig;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Map, Value};

/// Signs claims with the configured secret and the first HS algorithm of the configuration. Adds `iss` and `aud` from
/// the configuration (the first of a list) if the claims lack them. The caller sets everything else, such as `exp` and
/// the user ([`insert`](crate::auth::claims::insert) puts a claim at a path).
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
        .copied()
        .find(|algorithm| algorithm.is_symmetric())
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
    #[error("there is no auth.secret to sign with; tokens for a public key come from whoever has the private key")]
    NoSecret,
    /// It is under [`MIN_SECRET`] bytes.
    #[error("auth.secret must have at least {MIN_SECRET} bytes")]
    ShortSecret,
    /// `auth.algorithms` lists no HS256, HS384 or HS512.
    #[error("auth.algorithms must list HS256, HS384 or HS512 to sign with")]
    NoAlgorithm,
    /// The library failed.
    #[error("signing failed")]
    Failed(#[source] jsonwebtoken::errors::Error),
}

impl SignError {
    /// A stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSecret => "sign_no_secret",
            Self::ShortSecret => "sign_short_secret",
            Self::NoAlgorithm => "sign_no_algorithm",
            Self::Failed(_) => "sign_failed",
        }
    }
}
