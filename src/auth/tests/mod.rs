//! Valid and invalid tokens, against a whole [`Authenticator`].
#![allow(clippy::unwrap_used)]

mod asymmetric;
mod refused;
mod settings;

use super::*;
use crate::model::secret::Secret;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_800_000_000;

macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("../../../tests/keys/", $name, ".pem"))
    };
}
use pem;

fn hmac_config() -> AuthConfig {
    AuthConfig { secret: Some(Secret::new(SECRET)), ..AuthConfig::default() }
}

fn authenticator(config: &AuthConfig) -> Arc<Authenticator> {
    Authenticator::new(config).expect("a good configuration")
}

fn part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token with any header and claims, as text, correctly signed with HS256 and [`SECRET`].
fn raw(header: &str, claims: &str) -> String {
    signed(header, claims, &EncodingKey::from_secret(SECRET.as_bytes()), jsonwebtoken::Algorithm::HS256)
}

fn signed(header: &str, claims: &str, key: &EncodingKey, algorithm: jsonwebtoken::Algorithm) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// A token with these claims besides `sub` and `exp`; null removes one.
fn token(extra: Value) -> String {
    let mut claims = json!({"sub": "7", "exp": NOW + 60});
    for (name, value) in extra.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    raw(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string())
}

fn der(pem: &str) -> Vec<u8> {
    STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap()
}

/// A token signed with one of the keys of `tests/keys`.
fn asymmetric(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let mut header = json!({"alg": algorithm.name()});
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    let key = match algorithm.key_kind() {
        KeyKind::Secret => panic!("not for {algorithm:?}"),
        KeyKind::Rsa => EncodingKey::from_rsa_pem(pem!("rsa.private").as_bytes()),
        KeyKind::P256 => EncodingKey::from_ec_pem(pem!("p256.private").as_bytes()),
        KeyKind::P384 => EncodingKey::from_ec_pem(pem!("p384.private").as_bytes()),
        KeyKind::Ed25519 => EncodingKey::from_ed_pem(pem!("ed25519.private").as_bytes()),
        KeyKind::P521 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, &der(pem!("p521.private"))).unwrap();
            let message = format!("{}.{}", part(&header.to_string()), part(&claims.to_string()));
            let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
            return format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
        }
    };
    signed(&header.to_string(), &claims.to_string(), &key.unwrap(), algorithm.library().unwrap())
}

fn claims() -> Value {
    json!({"sub": "7", "exp": NOW + 60})
}

fn code(result: Result<Arc<Identity>, AuthError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}
