//! A JSON Web Key Set (RFC 7517) and its usable keys. Sans-IO.

use crate::auth::algorithm::Algorithm;
use crate::auth::key::Key;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// A set's keys after these are ignored.
pub(super) const MAX_KEYS: usize = 100;

/// The usable keys of a set, and the index of each other key with the reason why it is skipped.
pub(super) struct Document {
    pub keys: Vec<Key>,
    pub skipped: Vec<(usize, &'static str)>,
}

/// Reads the text of a set.
///
/// # Errors
/// If it is not a set, or has no usable key.
pub(super) fn parse(body: &[u8], pinned: &[Algorithm]) -> Result<Document, String> {
    let value: Value = serde_json::from_slice(body).map_err(|_| "the answer is not JSON".to_owned())?;
    let Some(list) = value.get("keys").and_then(Value::as_array) else {
        return Err("the answer is not a JSON Web Key Set: it has no list `keys`".to_owned());
    };
    let mut document = Document { keys: Vec::new(), skipped: Vec::new() };
    for (index, item) in list.iter().enumerate().take(MAX_KEYS) {
        match item.as_object().ok_or("not an object").and_then(|jwk| key(jwk, pinned)) {
            Ok(key) => document.keys.push(key),
            Err(why) => document.skipped.push((index, why)),
        }
    }
    if list.len() > MAX_KEYS {
        document.skipped.push((MAX_KEYS, "the set has more than 100 keys; this one and the following are ignored"));
    }
    match document.keys.is_empty() {
        true => Err(format!("none of its {} keys can be used{}", list.len(), first_reason(&document.skipped))),
        false => Ok(document),
    }
}

fn first_reason(skipped: &[(usize, &'static str)]) -> String {
    skipped.first().map_or_else(String::new, |(index, why)| format!(" (key {index}: {why})"))
}

fn key(jwk: &Map<String, Value>, pinned: &[Algorithm]) -> Result<Key, &'static str> {
    // Issuers whose language has no absent members write `null` or an empty text.
    let member = |name: &str| jwk.get(name).filter(|value| !value.is_null());
    let text = |name: &str| match member(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err("a member that must be a string is not one"),
    };
    let optional = |name: &str| text(name).map(|text| text.filter(|text| !text.is_empty()));
    let bytes = |name: &str| {
        let text = text(name)?.ok_or("a member of its kind of key is missing")?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member is not base64url")
    };
    if optional("use")?.is_some_and(|purpose| purpose != "sig") {
        return Err("not for signatures (`use`)");
    }
    if let Some(operations) = member("key_ops")
        && !operations.as_array().is_some_and(|list| list.iter().any(|one| one == "verify"))
    {
        return Err("not for verifying (`key_ops`)");
    }
    if member("d").is_some() || member("k").is_some() {
        return Err("it is a private or shared key, and whoever can read it can sign");
    }
    let (id, only) = (optional("kid")?, optional("alg")?);
    let key = match (text("kty")?, text("crv")?) {
        (Some("RSA"), _) => Key::rsa(id, &bytes("n")?, &bytes("e")?, pinned, only)?,
        (Some("EC"), Some("P-256")) => Key::curve(id, &point(&bytes("x")?, &bytes("y")?, 32)?, pinned, only)?,
        (Some("EC"), Some("P-384")) => Key::curve(id, &point(&bytes("x")?, &bytes("y")?, 48)?, pinned, only)?,
        (Some("EC"), Some("P-521")) => Key::curve(id, &point(&bytes("x")?, &bytes("y")?, 66)?, pinned, only)?,
        (Some("OKP"), Some("Ed25519")) => Key::ed25519(id, &bytes("x")?, pinned, only)?,
        _ => return Err("its `kty` or `crv` is not supported"),
    };
    match key.algorithms().is_empty() {
        true => Err("auth.algorithms lists no algorithm of this key"),
        false => Ok(key),
    }
}

/// The uncompressed point of two coordinates, each of the curve's width in bytes (RFC 7518 section 6.2.1.2).
fn point(x: &[u8], y: &[u8], width: usize) -> Result<Vec<u8>, &'static str> {
    match x.len() == width && y.len() == width {
        true => Ok([&[4], x, y].concat()),
        false => Err("its coordinates are not of its curve's length"),
    }
}
