//! `[auth]`.

use crate::model::secret::Secret;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// `[auth]`: where keys come from and what a token must say.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// HMAC secret, at least 32 bytes. `roomcast token` signs with it.
    pub secret: Option<Secret>,
    /// Further secrets that are accepted while one replaces another (`secrets` but for the first).
    pub other_secrets: Vec<Secret>,
    /// PEM text of a public key (`public_key_file` was read by the configuration).
    pub public_key: Option<String>,
    /// Where a JSON Web Key Set is fetched.
    pub jwks_url: Option<String>,
    /// Names as in RFC 7518, `HS256` and so on; `EdDSA`.
    pub algorithms: Vec<String>,
    /// Path of the claim that names the user: `sub`, `user.id`.
    pub user_claim: String,
    /// `iss` must be one of these; empty: it is not checked.
    pub issuer: Vec<String>,
    /// `aud` must be or contain one of these; empty: it is not checked.
    pub audience: Vec<String>,
    /// Claims (paths) that must have these values.
    pub require: BTreeMap<String, Value>,
    /// Tolerance for clocks at `exp` and `nbf`.
    pub leeway: Duration,
    /// Whether a token without `exp` is refused.
    pub require_exp: bool,
    /// Path of the claim that lists rooms this token may join besides the rules.
    pub rooms_claim: String,
    /// Whether clients without a token are let in, with no user and no claims.
    pub anonymous: bool,
}

impl AuthConfig {
    /// Takes these secrets instead of those it has. The first signs, all are accepted.
    pub fn set_secrets(&mut self, mut secrets: impl Iterator<Item = Secret>) {
        self.secret = secrets.next();
        self.other_secrets = secrets.collect();
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            secret: None,
            other_secrets: Vec::new(),
            public_key: None,
            jwks_url: None,
            algorithms: vec!["HS256".into()],
            user_claim: "sub".into(),
            issuer: Vec::new(),
            audience: Vec::new(),
            require: BTreeMap::new(),
            leeway: Duration::from_secs(5),
            require_exp: true,
            rooms_claim: "rooms".into(),
            anonymous: false,
        }
    }
}
