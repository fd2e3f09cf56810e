//! Why a token was refused, and why a configuration cannot be used. No message ever holds a token or a claim's value.

use crate::auth::grants::GrantError;
use std::fmt;

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// There is none, and anonymous clients are not let in.
    Missing,
    /// Not three base64url parts of JSON within the size limit; says which rule was broken.
    Malformed(&'static str),
    /// Signed with an algorithm that is not configured, or that does not fit the key.
    Algorithm,
    /// No key of this id is known (yet), and none can be asked for more.
    UnknownKey,
    /// The token names no key, and several would fit.
    AmbiguousKey,
    /// The signature is not the key's.
    Signature,
    /// Its `exp` has passed.
    Expired,
    /// It has no `exp`, and `require_exp` is on.
    NoExpiry,
    /// Its `nbf` has not come.
    NotYetValid,
    /// This time claim is not a number of seconds.
    Time(&'static str),
    /// Its `iss` is not the configured one.
    Issuer,
    /// Its `aud` does not hold the configured one.
    Audience,
    /// The requirement of `auth.require` at this path is not met.
    Claim(String),
    /// `user_claim` is missing or cannot name a user.
    User(&'static str),
    /// `rooms_claim` cannot be used.
    Rooms(GrantError),
}

impl AuthError {
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

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("a token is needed to connect"),
            Self::Malformed(rule) => write!(f, "the token is malformed: {rule}"),
            Self::Algorithm => f.write_str("the token is signed with an algorithm that is not accepted here"),
            Self::UnknownKey => f.write_str("the token is signed with a key that is not known here"),
            Self::AmbiguousKey => f.write_str("the token names no key (`kid`), and several would fit"),
            Self::Signature => f.write_str("the token's signature is wrong"),
            Self::Expired => f.write_str("the token has expired"),
            Self::NoExpiry => f.write_str("the token has no `exp`, and one is required"),
            Self::NotYetValid => f.write_str("the token is not valid yet (`nbf`)"),
            Self::Time(claim) => write!(f, "the token's `{claim}` must be a number of seconds since 1970, below 2^53"),
            Self::Issuer => f.write_str("the token's issuer (`iss`) is not the one expected"),
            Self::Audience => f.write_str("the token is meant for another audience (`aud`)"),
            Self::Claim(path) => write!(f, "the token's claim `{path}` does not have the required value"),
            Self::User(rule) => write!(f, "the token names no user: the claim {rule}"),
            Self::Rooms(error) => write!(f, "the token's list of rooms cannot be used: {error}"),
        }
    }
}

impl std::error::Error for AuthError {}

/// A mistake in `[auth]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// No key at all, and anonymous clients are not let in: nobody could ever connect.
    NoKey,
    /// The HMAC secret is under [`MIN_SECRET`](crate::auth::MIN_SECRET) bytes.
    ShortSecret {
        /// Its length in bytes.
        bytes: usize,
    },
    /// `algorithms` is empty although a key is configured.
    NoAlgorithms,
    /// A name that is no algorithm known here.
    UnknownAlgorithm(String),
    /// An algorithm is listed that no configured key can verify.
    NoKeyFor {
        /// The algorithm.
        algorithm: &'static str,
        /// The settings that would give it a key.
        needs: &'static str,
    },
    /// A key is configured that no listed algorithm uses.
    UnusedKey {
        /// The setting.
        key: &'static str,
        /// Names that would use it.
        suggestion: &'static str,
    },
    /// The public key cannot be read or is too weak.
    PublicKey(&'static str),
    /// The URL cannot be used.
    JwksUrl(&'static str),
    /// `user_claim` is empty.
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

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str(
                "no key to verify tokens with, so nobody could connect: set auth.secret, auth.public_key_file or \
                 auth.jwks_url, or auth.anonymous = true",
            ),
            Self::ShortSecret { bytes } => write!(
                f,
                "auth.secret has {bytes} bytes and could be guessed; it needs at least {} (try `openssl rand -hex 32`)",
                crate::auth::MIN_SECRET
            ),
            Self::NoAlgorithms => f.write_str("auth.algorithms is empty; list what your tokens are signed with"),
            Self::UnknownAlgorithm(name) => write!(
                f,
                "auth.algorithms: {name:?} is not known; use HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, \
                 PS512, ES256, ES384, ES512 or EdDSA"
            ),
            Self::NoKeyFor { algorithm, needs } => {
                write!(f, "auth.algorithms lists {algorithm}, for which there is no key: it needs {needs}")
            }
            Self::UnusedKey { key, suggestion } => {
                write!(f, "{key} is set, but auth.algorithms lists nothing that uses it (add for example {suggestion})")
            }
            Self::PublicKey(why) => write!(f, "auth.public_key_file: {why}"),
            Self::JwksUrl(why) => write!(f, "auth.jwks_url: {why}"),
            Self::NoUserClaim => f.write_str("auth.user_claim is empty; name the claim that identifies the user"),
        }
    }
}

impl std::error::Error for SetupError {}
