//! Who a client is: what a session keeps of its verified token. Sans-IO.

use crate::auth::claims;
use crate::auth::claims::ClaimsDigest;
use crate::auth::grants::Grants;
use crate::model::number::number_text;
use crate::protocol::json_text::without_lone_surrogates;
use serde_json::Value;
use std::num::NonZeroU64;

/// Longest text of a user, in bytes.
pub const MAX_USER_BYTES: usize = 200;

/// The user that a token names, and whether the claim is a JSON number: `7` and `"7"` are the same user to rooms and
/// presence ([`UserId::as_str`]) and differ only where the claim is written as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserId {
    text: Box<str>,
    number: bool,
}

impl UserId {
    /// Reads the claim: a non-empty string without control characters, or a number, which is written as JavaScript
    /// writes it: `42.0` is the user `42`.
    ///
    /// # Errors
    /// The rule that the claim breaks, as the end of "the claim …".
    pub fn from_claim(claim: Option<&Value>) -> Result<Self, &'static str> {
        match claim {
            None => Err("is missing"),
            Some(Value::Number(number)) => Ok(Self { text: number_text(&number.to_string()).into(), number: true }),
            Some(Value::String(text)) if text.is_empty() => Err("is empty"),
            Some(Value::String(text)) if text.len() > MAX_USER_BYTES => Err("is longer than 200 bytes"),
            Some(Value::String(text)) if text.chars().any(char::is_control) => Err("contains a control character"),
            Some(Value::String(text)) => Ok(Self { text: text.as_str().into(), number: false }),
            Some(_) => Err("must be a string or a number"),
        }
    }

    /// The text in room names, presence and the admin API.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the claim was a JSON number.
    pub fn is_number(&self) -> bool {
        self.number
    }

    /// The claim as JSON: a number stays a number, a string is quoted.
    pub fn as_json(&self) -> String {
        match self.number {
            true => self.text.to_string(),
            false => Value::from(&*self.text).to_string(),
        }
    }
}

/// What a verified token says. Every session keeps one, so it has text and no parsed tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `None` for an anonymous client only.
    pub user: Option<UserId>,
    /// The JSON object of the claims, without line breaks; `{}` for an anonymous client.
    pub claims: Box<str>,
    /// `exp` in Unix seconds, without leeway: see [`Self::expires`]. 8 bytes instead of 16.
    pub expiry: Option<NonZeroU64>,
    /// Rooms that the token grants.
    pub grants: Grants,
}

impl Identity {
    /// A client without a token.
    pub fn anonymous() -> Self {
        Self { user: None, claims: "{}".into(), expiry: None, grants: Grants::default() }
    }

    /// `exp` as [`Self::expiry`] keeps it. The first second of 1970 is kept as the next one.
    pub fn expiry_at(expires: Option<u64>) -> Option<NonZeroU64> {
        expires.map(|seconds| NonZeroU64::new(seconds).unwrap_or(NonZeroU64::MIN))
    }

    /// `exp` in Unix seconds, without leeway.
    pub fn expires(&self) -> Option<u64> {
        self.expiry.map(NonZeroU64::get)
    }

    /// The claim at a path such as `user.id`.
    pub fn claim(&self, path: &str) -> Option<Value> {
        claims::find(&without_lone_surrogates(&self.claims), path)
    }

    /// Whether it is the same user, by a claim of the same type.
    pub fn is_same_user(&self, other: &Self) -> bool {
        self.user == other.user
    }

    /// What decisions about this client may depend on.
    pub fn deciding_claims(&self) -> ClaimsDigest {
        ClaimsDigest::of(&without_lone_surrogates(&self.claims))
    }

    /// The text of the claim at a path; a number, object or list as JSON writes it.
    pub fn claim_text(&self, path: &str) -> Option<String> {
        self.claim(path).map(|claim| match claim {
            Value::String(text) => text,
            other => other.to_string(),
        })
    }

    /// Approximate bytes in memory, for the limit of the cache.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.claims.len() + self.user.as_ref().map_or(0, |user| user.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_user_is_a_string_or_a_number() {
        let user = |claim: Value| UserId::from_claim(Some(&claim));
        let number = user(json!(7)).unwrap();
        assert_eq!((number.as_str(), number.as_json()), ("7", "7".to_owned()));
        let text = user(json!("7")).unwrap();
        assert_eq!((text.as_str(), text.as_json()), ("7", "\"7\"".to_owned()));
        assert_eq!(user(json!("a\"b")).unwrap().as_json(), r#""a\"b""#);
        assert_eq!(user(json!(u64::MAX)).unwrap().as_str(), "18446744073709551615");
        assert_eq!(user(json!(-3)).unwrap().as_json(), "-3");
        for (claim, text) in [(json!(42.0), "42"), (json!(-0.0), "0"), (json!(1.5), "1.5"), (json!(1e30), "1e+30")] {
            let number = user(claim).unwrap();
            assert_eq!((number.as_str(), number.as_json()), (text, text.to_owned()));
        }
        assert!(user(json!("a:b*<{}>")).is_ok());
        assert!(user(json!("x".repeat(200))).is_ok());
        for bad in [
            json!(""),
            json!("x".repeat(201)),
            json!("a\n"),
            json!("\u{9b}"),
            json!(true),
            json!(null),
            json!(["7"]),
            json!({}),
        ] {
            assert!(user(bad.clone()).is_err(), "{bad}");
        }
        assert!(UserId::from_claim(None).is_err());
    }

    #[test]
    fn an_identity_is_small() {
        assert_eq!(
            size_of::<Identity>(),
            64,
            "with the counters of its Arc 80 bytes, which is a size of the allocator"
        );
        for (exp, kept) in [(None, None), (Some(0), Some(1)), (Some(7), Some(7))] {
            let identity = Identity { expiry: Identity::expiry_at(exp), ..Identity::anonymous() };
            assert_eq!(identity.expires(), kept, "0 must not mean that a token never ends");
        }
        let anonymous = Identity::anonymous();
        assert_eq!(anonymous.claim("sub"), None);
        assert!(!anonymous.grants.allows("a"));
    }
}
