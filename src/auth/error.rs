//! Why a token is refused, and why `[auth]` cannot be used. No message contains a token or the value of a claim.

use crate::auth::MIN_SECRET;
use crate::auth::algorithm::Algorithm;
use crate::auth::grants::GrantError;

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is none, and anonymous clients are refused.
    #[error("a token is needed to connect")]
    Missing,
    /// Not three base64url parts of JSON within the size limit; the text says which rule it breaks.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// Signed with an algorithm that is not configured, or that does not fit the key.
    #[error("the token is signed with an algorithm that is not accepted here")]
    Algorithm,
    /// No known key has this id.
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    /// The signature was not made with the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// Its `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// Its user's older tokens, or this token, were revoked.
    #[error("the token has been revoked")]
    Revoked,
    /// It has no `exp`, and `require_exp` is on.
    #[error("the token has no `exp`, and one is required")]
    NoExpiry,
    /// Its `nbf` is in the future.
    #[error("the token is not valid yet (`nbf`)")]
    NotYetValid,
    /// This time claim is not a number of seconds.
    #[error("the token's `{0}` must be a number of seconds since 1970, below 2^53")]
    Time(&'static str),
    /// Its `iss` is not `auth.issuer`.
    #[error("the token's issuer (`iss`) is not the one expected")]
    Issuer,
    /// Its `aud` does not contain `auth.audience`.
    #[error("the token is meant for another audience (`aud`)")]
    Audience,
    /// The requirement of `auth.require` at this path is not met.
    #[error("the token's claim `{0}` does not have the required value")]
    Claim(String),
    /// `user_claim` is missing or cannot name a user.
    #[error("the token names no user: the claim {0}")]
    User(&'static str),
    /// `rooms_claim` cannot be used.
    #[error("the token's list of rooms cannot be used: {0}")]
    Rooms(#[source] GrantError),
}

impl AuthError {
    /// What to look at, as the rest of a line in the log.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Missing => "; the client sends none (auth.token, the header, ?token=), and auth.anonymous is off",
            Self::Malformed(_) => "",
            Self::Algorithm => "; see auth.algorithms",
            Self::UnknownKey => "; see auth.jwks_url",
            Self::Signature => "; auth.secret (or the public key) is not what signed it",
            Self::Expired => "; the client must fetch a new one before it connects",
            Self::Revoked => "; by POST /revoke",
            Self::NoExpiry => "; see auth.require_exp",
            Self::NotYetValid => "; do the clocks agree? see auth.leeway",
            Self::Time(_) => "",
            Self::Issuer => "; see auth.issuer",
            Self::Audience => "; see auth.audience",
            Self::Claim(_) => "; see auth.require",
            Self::User(_) => "; see auth.user_claim",
            Self::Rooms(_) => "; see auth.rooms_claim",
        }
    }

    /// Stable, for clients and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed(_) => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::UnknownKey => "token_unknown_key",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::Revoked => "revoked",
            Self::NoExpiry => "token_without_exp",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Time(_) => "token_time",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Claim(_) => "token_claim",
            Self::User(_) => "token_user",
            Self::Rooms(_) => "token_rooms",
        }
    }
}

/// A mistake in `[auth]`. The text completes the setting's name: "[auth] secret: must have …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// No key, and anonymous clients are refused: nobody could connect.
    #[error(
        "there is no key to check tokens with: set `secret` (JWT_SECRET, ROOMCAST_AUTH__SECRET), `secret_file`, \
         `public_key_file` or `jwks_url`; or `anonymous = true` to let everybody in"
    )]
    NoKey,
    /// The HMAC secret is shorter than [`MIN_SECRET`] bytes. The text does not say how long it is.
    #[error("must have at least {MIN_SECRET} bytes; make one with `openssl rand -base64 48`")]
    ShortSecret,
    /// `algorithms` is empty although a key is configured.
    #[error("must not be empty: list what your tokens are signed with")]
    NoAlgorithms,
    /// An algorithm is listed that no configured key can verify.
    #[error("{algorithm} needs {needs}")]
    NoKeyFor {
        /// The algorithm.
        algorithm: Algorithm,
        /// What would give it a key.
        needs: &'static str,
    },
    /// `secret` is set, and `algorithms` lists none that uses it.
    #[error("no HS algorithm is in `algorithms` that would use it")]
    UnusedSecret,
    /// A public key or a key set is configured, and `algorithms` lists none that uses it.
    #[error("no algorithm is in `algorithms` that would use this key; {suggestion} would")]
    UnusedKey {
        /// `public_key_file` or `jwks_url`.
        key: &'static str,
        /// An algorithm that would use it.
        suggestion: Algorithm,
    },
    /// The public key cannot be read or is too weak.
    #[error("{0}")]
    PublicKey(&'static str),
    /// The URL cannot be used.
    #[error("{0}")]
    JwksUrl(&'static str),
    /// `user_claim` is empty.
    #[error("must not be empty: name the claim that identifies the user")]
    NoUserClaim,
}

impl SetupError {
    /// A stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKey => "auth_no_key",
            Self::ShortSecret => "auth_short_secret",
            Self::NoAlgorithms => "auth_no_algorithms",
            Self::NoKeyFor { .. } => "auth_no_key_for_algorithm",
            Self::UnusedSecret | Self::UnusedKey { .. } => "auth_unused_key",
            Self::PublicKey(_) => "auth_public_key",
            Self::JwksUrl(_) => "auth_jwks_url",
            Self::NoUserClaim => "auth_no_user_claim",
        }
    }

    /// The key of `[auth]` that the mistake is in; `None`: the whole table.
    pub fn key(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoKey => return None,
            Self::ShortSecret | Self::UnusedSecret => "secret",
            Self::NoAlgorithms | Self::NoKeyFor { .. } => "algorithms",
            Self::UnusedKey { key, .. } => key,
            Self::PublicKey(_) => "public_key_file",
            Self::JwksUrl(_) => "jwks_url",
            Self::NoUserClaim => "user_claim",
        })
    }

    /// Whether it compares keys and algorithms, and so means nothing while one of them could not be read.
    pub fn compares_settings(&self) -> bool {
        matches!(self, Self::NoKey | Self::NoKeyFor { .. } | Self::UnusedSecret | Self::UnusedKey { .. })
    }
}
