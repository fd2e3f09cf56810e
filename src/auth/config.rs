//! `[auth]`.

use crate::model::secret::Secret;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// `[auth]`: where keys come from and what a token must say.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// HMAC secret, at least 32 bytes.
    pub secret: Option<Secret>,
    /// PEM text of a public key (`public_key_file` was read by the configuration).
    pub public_key: Option<String>,
    /// Where a JSON Web Key Set is fetched.
    pub jwks_url: Option<String>,
    /// Names as in RFC 7518, `HS256` and so on; `EdDSA`.
    pub algorithms: Vec<String>,
    /// Path of the claim that names the user: `sub`, `user.id`.
    pub user_claim: String,
    /// Required `iss`.
    pub issuer: Option<String>,
    /// Required `aud`.
    pub audience: Option<String>,
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

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            secret: None,
            public_key: None,
            jwks_url: None,
            algorithms: vec!["HS256".into()],
            user_claim: "sub".into(),
            issuer: None,
            audience: None,
            require: BTreeMap::new(),
            leeway: Duration::from_secs(5),
            require_exp: true,
            rooms_claim: "rooms".into(),
            anonymous: false,
        }
    }
}
