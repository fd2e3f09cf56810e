//! Tokens as a backend would sign them.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// The secret of every server here.
pub(crate) const SECRET: &str = "a secret of the benches, longer than 32 bytes";

/// HS256, for this user, with these rooms joined at connect, valid for an hour.
pub(crate) fn sign(user: usize, rooms: &[&str]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
    let claims = json!({ "sub": user.to_string(), "iat": now, "exp": now + 3600, "rooms": rooms });
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("HS256 signs")
}
