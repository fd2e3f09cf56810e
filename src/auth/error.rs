//! Why a token was refused, and why a configuration cannot be used. No message ever holds a token or a claim's value.

use crate::auth::MIN_SECRET;
use crate::auth::grants::GrantError;

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is none, and anonymous clients are not let in.
    #[error("a token is needed to connect")]
    Missing,
    /// Not three base64url parts of JSON within the size limit; says which rule was broken.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// Signed with an algorithm that is not configured, or that does not fit the key.
    #[error("the token is signed with an algorithm that is not accepted here")]
    Algorithm,
    /// No key of this id is known (yet), and none can be asked for more.
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    /// The token names no key, and several would fit.
    #[error("the token names no key (`kid`), and several would fit")]
    AmbiguousKey,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// Its `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// It has no `exp`, and `require_exp` is on.
    #[error("the token has no `exp`, and one is required")]
    NoExpiry,
    /// Its `nbf` has not come.
    #[error("the token is not valid yet (`nbf`)")]
    NotYetValid,
    /// This time claim is not a number of seconds.
    #[error("the token's `{0}` must be a number of seconds since 1970, below 2^53")]
    Time(&'static str),
    /// Its `iss` is not the configured one.
    #[error("the token's issuer (`iss`) is not the one expected")]
    Issuer,
    /// Its `aud` does not hold the configured one.
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
            Self::UnknownKey | Self::AmbiguousKey => "; see auth.jwks_url",
            Self::Signature => "; auth.secret (or the public key) is not what signed it",
            Self::Expired => "; the client must fetch a new one before it connects",
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
            Self::AmbiguousKey => "token_ambiguous_key",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
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

/// A mistake in `[auth]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// No key at all, and anonymous clients are not let in: nobody could ever connect.
    #[error(
        "no key to verify tokens with, so nobody could connect: set auth.secret, auth.public_key_file or \
         auth.jwks_url, or auth.anonymous = true"
    )]
    NoKey,
    /// The HMAC secret is under [`MIN_SECRET`] bytes.
    #[error(
        "auth.secret has {bytes} bytes and could be guessed; it needs at least {MIN_SECRET} (try \
         `openssl rand -hex 32`)"
    )]
    ShortSecret {
        /// Its length in bytes.
        bytes: usize,
    },
    /// `algorithms` is empty although a key is configured.
    #[error("auth.algorithms is empty; list what your tokens are signed with")]
    NoAlgorithms,
    /// A name that is no algorithm known here.
    #[error(
        "auth.algorithms: {0:?} is not known; use HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, \
         PS512, ES256, ES384, ES512 or EdDSA"
    )]
    UnknownAlgorithm(String),
    /// An algorithm is listed that no configured key can verify.
    #[error("auth.algorithms lists {algorithm}, for which there is no key: it needs {needs}")]
    NoKeyFor {
        /// The algorithm.
        algorithm: &'static str,
        /// The settings that would give it a key.
        needs: &'static str,
    },
    /// A key is configured that no listed algorithm uses.
    #[error("{key} is set, but auth.algorithms lists nothing that uses it (add for example {suggestion})")]
    UnusedKey {
        /// The setting.
        key: &'static str,
        /// Names that would use it.
        suggestion: &'static str,
    },
    /// The public key cannot be read or is too weak.
    #[error("auth.public_key_file: {0}")]
    PublicKey(&'static str),
    /// The URL cannot be used.
    #[error("auth.jwks_url: {0}")]
    JwksUrl(&'static str),
    /// `user_claim` is empty.
    #[error("auth.user_claim is empty; name the claim that identifies the user")]
    NoUserClaim,
}

impl SetupError {
    /// Stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKey => "auth_no_key",
            Self::ShortSecret { .. } => "auth_short_secret",
            Self::NoAlgorithms => "auth_no_algorithms",
            Self::UnknownAlgorithm(_) => "auth_unknown_algorithm",
            Self::NoKeyFor { .. } => "auth_no_key_for_algorithm",
            Self::UnusedKey { .. } => "auth_unused_key",
            Self::PublicKey(_) => "auth_public_key",
            Self::JwksUrl(_) => "auth_jwks_url",
            Self::NoUserClaim => "auth_no_user_claim",
        }
    }

    /// The setting where the mistake is.
    pub fn place(&self) -> &'static str {
        match self {
            Self::NoKey => "auth",
            Self::ShortSecret { .. } => "auth.secret",
            Self::NoAlgorithms | Self::UnknownAlgorithm(_) | Self::NoKeyFor { .. } => "auth.algorithms",
            Self::UnusedKey { key, .. } => key,
            Self::PublicKey(_) => "auth.public_key_file",
            Self::JwksUrl(_) => "auth.jwks_url",
            Self::NoUserClaim => "auth.user_claim",
        }
    }
}
