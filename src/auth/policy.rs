//! What the claims of a verified token must say, and the identity in them. Sans-IO.

use crate::auth::claims;
use crate::auth::config::AuthConfig;
use crate::auth::error::AuthError;
use crate::auth::grants::{GrantError, Grants};
use crate::auth::identity::{Identity, UserId};
use crate::protocol::json_text::without_lone_surrogates;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// 2^53. Greater JSON numbers are not exact (RFC 8259 section 6), and no clock gets there.
const MAX_SECONDS: u64 = 1 << 53;

/// The settings of `[auth]` about claims.
pub(super) struct Policy {
    user_claim: String,
    rooms_claim: String,
    issuers: Vec<String>,
    audiences: Vec<String>,
    require: BTreeMap<String, Value>,
    pub(super) leeway: u64,
    require_exp: bool,
}

impl Policy {
    pub(super) fn new(config: &AuthConfig) -> Self {
        Self {
            user_claim: config.user_claim.clone(),
            rooms_claim: config.rooms_claim.clone(),
            issuers: config.issuer.clone(),
            audiences: config.audience.clone(),
            require: config.require.clone(),
            leeway: config.leeway.as_secs(),
            require_exp: config.require_exp,
        }
    }

    /// The user of a token of which nothing is verified.
    pub(super) fn claimed_user(&self, text: &str) -> Option<String> {
        let claim = claims::find(&without_lone_surrogates(text), &self.user_claim);
        UserId::from_claim(claim.as_ref()).ok().map(|user| user.as_str().to_owned())
    }

    /// Checks the claims of a token whose signature is verified. `now` is in Unix seconds.
    pub(super) fn identity(&self, text: &str, now: u64) -> Result<Identity, AuthError> {
        let readable = without_lone_surrogates(text);
        let map = claims::parse(&readable)
            .ok_or(AuthError::Malformed("its claims are not a JSON object in which every key comes once"))?;
        let expires = self.check_times(&map, now)?;
        self.check_parties(&map)?;
        for (path, wanted) in &self.require {
            if claims::lookup(&map, path) != Some(wanted) {
                return Err(AuthError::Claim(path.clone()));
            }
        }
        let user = UserId::from_claim(claims::lookup(&map, &self.user_claim)).map_err(AuthError::User)?;
        let rooms = (!self.rooms_claim.is_empty()).then(|| claims::lookup(&map, &self.rooms_claim)).flatten();
        let grants = Grants::from_claim(rooms).map_err(AuthError::Rooms)?;
        // Elsewhere U+FFFD may stand for half of a surrogate pair. Two users, or two rooms, must not become one by it.
        if matches!(readable, Cow::Owned(_)) {
            if user.as_str().contains(char::REPLACEMENT_CHARACTER) {
                return Err(AuthError::User("contains half of a surrogate pair"));
            }
            if grants.as_text().contains(char::REPLACEMENT_CHARACTER) {
                return Err(AuthError::Rooms(GrantError::Surrogate));
            }
        }
        // A line break can only be white space between JSON tokens, because strings cannot contain one. Without them,
        // the claims can be written as one line.
        let claims = text.trim().replace(['\n', '\r'], " ").into();
        Ok(Identity { user: Some(user), claims, expiry: Identity::expiry_at(expires), grants })
    }

    /// Whether `exp` has passed: RFC 7519 section 4.1.4, "on or after" it.
    pub(super) fn expired(&self, expires: Option<u64>, now: u64) -> bool {
        expires.is_some_and(|exp| now >= exp.saturating_add(self.leeway))
    }

    fn check_times(&self, map: &Map<String, Value>, now: u64) -> Result<Option<u64>, AuthError> {
        let expires = seconds(map, "exp")?;
        let not_before = seconds(map, "nbf")?;
        seconds(map, "iat")?;
        if expires.is_none() && self.require_exp {
            return Err(AuthError::NoExpiry);
        }
        if self.expired(expires, now) {
            return Err(AuthError::Expired);
        }
        if not_before.is_some_and(|nbf| now.saturating_add(self.leeway) < nbf) {
            return Err(AuthError::NotYetValid);
        }
        Ok(expires)
    }

    fn check_parties(&self, map: &Map<String, Value>) -> Result<(), AuthError> {
        let is_listed = |list: &[String], value: &Value| list.iter().any(|one| value.as_str() == Some(one));
        if !self.issuers.is_empty() && !map.get("iss").is_some_and(|issuer| is_listed(&self.issuers, issuer)) {
            return Err(AuthError::Issuer);
        }
        if self.audiences.is_empty() {
            return Ok(());
        }
        // RFC 7519 section 4.1.3: one string or a list of them.
        let meant = match map.get("aud") {
            Some(Value::Array(list)) => list.iter().any(|one| is_listed(&self.audiences, one)),
            Some(one) => is_listed(&self.audiences, one),
            None => false,
        };
        if meant { Ok(()) } else { Err(AuthError::Audience) }
    }
}

/// A NumericDate (RFC 7519 section 2), without its fraction. A string, a negative number or one that is not exact is
/// refused instead of being read as a distant time (CVE-2026-25537).
fn seconds(map: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, AuthError> {
    let Some(value) = map.get(name) else { return Ok(None) };
    let seconds = match (value.as_u64(), value.as_f64()) {
        (Some(whole), _) => whole,
        // Exact: the range is checked first.
        (None, Some(float)) if float >= 0.0 && float < MAX_SECONDS as f64 => float.trunc() as u64,
        _ => return Err(AuthError::Time(name)),
    };
    if seconds < MAX_SECONDS { Ok(Some(seconds)) } else { Err(AuthError::Time(name)) }
}
