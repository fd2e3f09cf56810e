//! `[auth]`.

use crate::auth::algorithm::Algorithm;
use crate::model::secret::Secret;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// `[auth]`: where keys come from and what a token must say.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// HMAC secret of at least [`MIN_SECRET`](crate::auth::MIN_SECRET) bytes.
    /// `roomcast token` signs with it.
    pub secret: Option<Secret>,
    /// Further secrets that are accepted while one replaces another: `secrets` but for the first.
    pub other_secrets: Vec<Secret>,
    /// PEM text of a public key: the contents of `public_key_file`.
    pub public_key: Option<String>,
    /// URL of a JSON Web Key Set.
    pub jwks_url: Option<String>,
    /// What tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Path of the claim that identifies the user: `sub`, `user.id`.
    pub user_claim: String,
    /// The `iss` that tokens must have: one of these. Empty: it is not checked.
    pub issuer: Vec<String>,
    /// The `aud` that tokens must have or list: one of these. Empty: it is not checked.
    pub audience: Vec<String>,
    /// Claims (paths) that must have these values.
    pub require: BTreeMap<String, Value>,
    /// Tolerance for clock differences at `exp` and `nbf`.
    pub leeway: Duration,
    /// Whether a token without `exp` is refused.
    pub require_exp: bool,
    /// Path of the claim that lists rooms the token may join whatever the rules say; empty: none does.
    pub rooms_claim: String,
    /// Whether clients without a token are let in, with no user and no claims.
    pub anonymous: bool,
    /// How long tokens are revoked for where the request does not say: as long as the longest token is valid.
    pub revoke_for: Duration,
    /// Users and tokens that may be revoked at once; some 200 bytes each.
    pub max_revocations: usize,
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
            algorithms: vec![Algorithm::HS256],
            user_claim: "sub".into(),
            issuer: Vec::new(),
            audience: Vec::new(),
            require: BTreeMap::new(),
            leeway: Duration::from_secs(5),
            require_exp: true,
            rooms_claim: "rooms".into(),
            anonymous: false,
            revoke_for: Duration::from_secs(24 * 3600),
            max_revocations: 100_000,
        }
    }
}
