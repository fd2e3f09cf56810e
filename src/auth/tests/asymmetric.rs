//! Public keys: every algorithm, confusion of algorithms, choice by `kid`, and the cache.

use super::*;

const PUBLIC: [(KeyKind, &str); 5] = [
    (KeyKind::Rsa, pem!("rsa.public")),
    (KeyKind::P256, pem!("p256.public")),
    (KeyKind::P384, pem!("p384.public")),
    (KeyKind::P521, pem!("p521.public")),
    (KeyKind::Ed25519, pem!("ed25519.public")),
];

fn public(kind: KeyKind) -> &'static str {
    PUBLIC.iter().find(|(one, _)| *one == kind).unwrap().1
}

fn pinned(pem: &str, algorithm: Algorithm) -> AuthConfig {
    AuthConfig { public_key: Some(pem.into()), algorithms: vec![algorithm], ..AuthConfig::default() }
}

fn public_algorithms() -> impl Iterator<Item = Algorithm> {
    Algorithm::ALL.into_iter().filter(|algorithm| algorithm.key_kind() != KeyKind::Secret)
}

#[test]
fn every_algorithm_is_accepted_where_it_is_pinned_and_nowhere_else() {
    for algorithm in public_algorithms() {
        let token = asymmetric(algorithm, Some("any"), &claims());
        for configured in public_algorithms() {
            let auth = authenticator(&pinned(public(configured.key_kind()), configured));
            let expected = if configured == algorithm { "ok" } else { "token_algorithm" };
            assert_eq!(code(auth.verify(&token, NOW)), expected, "{algorithm:?} where {configured:?}");
        }
        // The signature of one algorithm under the name of another of the same key.
        for other in public_algorithms().filter(|o| *o != algorithm && o.key_kind() == algorithm.key_kind()) {
            let named = part(&json!({"alg": other.name()}).to_string());
            let lying = format!("{named}.{}", token.split_once('.').unwrap().1);
            let auth = authenticator(&pinned(public(other.key_kind()), other));
            assert_eq!(code(auth.verify(&lying, NOW)), "token_signature", "{algorithm:?} as {other:?}");
        }
    }
}

#[test]
fn hmac_over_the_public_key_is_refused() {
    // CVE-2023-48223: the attacker knows the public key and uses its text as an HMAC secret.
    let pem = public(KeyKind::Rsa);
    let both = AuthConfig { secret: Some(Secret::new(SECRET)), ..pinned(pem, Algorithm::RS256) };
    let both = AuthConfig { algorithms: vec![Algorithm::RS256, Algorithm::HS256], ..both };
    for bytes in [pem.as_bytes().to_vec(), pem.trim().as_bytes().to_vec(), der(pem), der(pem)[24..].to_vec()] {
        let key = EncodingKey::from_secret(&bytes);
        let token = signed(r#"{"alg":"HS256"}"#, &claims().to_string(), &key, jsonwebtoken::Algorithm::HS256);
        assert_eq!(code(authenticator(&pinned(pem, Algorithm::RS256)).verify(&token, NOW)), "token_algorithm");
        // Also where HS256 is allowed, for another key.
        assert_eq!(code(authenticator(&both).verify(&token, NOW)), "token_signature");
        let named = part(r#"{"alg":"RS256"}"#);
        let named = format!("{named}.{}", token.split_once('.').unwrap().1);
        assert_eq!(code(authenticator(&pinned(pem, Algorithm::RS256)).verify(&named, NOW)), "token_signature");
    }
    assert_eq!(code(authenticator(&both).verify(&token(json!({})), NOW)), "ok");
    assert_eq!(code(authenticator(&both).verify(&asymmetric(Algorithm::RS256, None, &claims()), NOW)), "ok");
}

#[test]
fn a_cached_token_still_expires() {
    for algorithm in [Algorithm::ES256, Algorithm::RS256] {
        let auth = authenticator(&pinned(public(algorithm.key_kind()), algorithm));
        let token = asymmetric(algorithm, None, &claims());
        let first = auth.verify(&token, NOW).unwrap();
        let second = auth.verify(&token, NOW + 64).unwrap();
        assert!(Arc::ptr_eq(&first, &second), "the second came from the cache");
        assert_eq!(code(auth.verify(&token, NOW + 65)), "token_expired");
        // One changed byte of the signature is another token.
        let (message, signature) = token.rsplit_once('.').unwrap();
        let swapped = if signature.starts_with('A') { "B" } else { "A" };
        assert_eq!(code(auth.verify(&format!("{message}.{swapped}{}", &signature[1..]), NOW)), "token_signature");
    }
}

/// The public keys as JWKs, read back from the PEM by the library.
fn jwk(kind: KeyKind, extra: Value) -> Value {
    let pem = public(kind).as_bytes();
    let mut jwk = match kind {
        KeyKind::P521 => {
            let point = &der(public(kind))[der(public(kind)).len() - 132..];
            let (x, y) = point.split_at(66);
            json!({"kty": "EC", "crv": "P-521", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
        }
        _ => {
            let key = match kind {
                KeyKind::Rsa => jsonwebtoken::DecodingKey::from_rsa_pem(pem),
                KeyKind::Ed25519 => jsonwebtoken::DecodingKey::from_ed_pem(pem),
                _ => jsonwebtoken::DecodingKey::from_ec_pem(pem),
            };
            let jwk = jsonwebtoken::jwk::Jwk::from_decoding_key(&key.unwrap(), None).unwrap();
            serde_json::to_value(jwk).unwrap()
        }
    };
    for (name, value) in extra.as_object().unwrap() {
        jwk[name] = value.clone();
    }
    jwk
}

fn with_jwks(algorithms: &[&str], keys: Value) -> Result<Arc<Authenticator>, String> {
    let auth = authenticator(&AuthConfig {
        jwks_url: Some("https://127.0.0.1:1/jwks".into()),
        algorithms: algorithms.iter().map(|name| Algorithm::from_name(name).unwrap()).collect(),
        ..AuthConfig::default()
    });
    let jwks = auth.checks.load().jwks.clone().unwrap();
    auth.install(&jwks, json!({"keys": keys}).to_string().as_bytes())?;
    Ok(auth)
}

#[test]
fn a_jwks_of_every_kind() {
    let names: Vec<_> = public_algorithms().map(Algorithm::name).collect();
    let keys: Vec<_> = PUBLIC.iter().map(|(kind, _)| jwk(*kind, json!({"kid": format!("{kind:?}")}))).collect();
    let auth = with_jwks(&names, json!(keys)).unwrap();
    for algorithm in public_algorithms() {
        let of = |kid: &str| code(auth.verify(&asymmetric(algorithm, Some(kid), &claims()), NOW));
        let own = format!("{:?}", algorithm.key_kind());
        assert_eq!(of(&own), "ok", "{algorithm:?}");
        assert_eq!(of("unheard-of"), "token_unknown_key");
        let other = if own == "Rsa" { "P256" } else { "Rsa" };
        assert_eq!(of(other), "token_algorithm", "{algorithm:?} with another kind's kid");
        // Exactly one key fits, so no kid is needed.
        assert_eq!(code(auth.verify(&asymmetric(algorithm, None, &claims()), NOW)), "ok");
        for bad in ["http://127.0.0.1/key", "file:///etc/passwd", "../../keys/a", "..\\a", "C:\\key"] {
            assert_eq!(of(bad), "token_malformed", "{bad}");
        }
    }
    // A JWKS never brings HMAC keys, whatever the header says.
    assert_eq!(code(auth.verify(&token(json!({})), NOW)), "token_algorithm");
}

#[test]
fn a_jwk_says_what_it_is_for() {
    let rsa = |extra: Value| jwk(KeyKind::Rsa, extra);
    let of = |auth: &Authenticator, algorithm| code(auth.verify(&asymmetric(algorithm, Some("k"), &claims()), NOW));
    let auth = with_jwks(&["RS256", "PS256"], json!([rsa(json!({"kid": "k", "alg": "RS256", "use": "sig"}))])).unwrap();
    assert_eq!(of(&auth, Algorithm::RS256), "ok");
    assert_eq!(of(&auth, Algorithm::PS256), "token_algorithm");
    for (bad, why) in [
        (rsa(json!({"use": "enc"})), "use"),
        (rsa(json!({"key_ops": ["encrypt"]})), "key_ops"),
        (rsa(json!({"alg": "RSA-OAEP"})), "auth.algorithms"),
        (rsa(json!({"alg": 7})), "string"),
        (rsa(json!({"d": "AAAA"})), "private"),
        (rsa(json!({"n": "AQAB"})), "2048"),
        (rsa(json!({"n": "!"})), "base64url"),
        (rsa(json!({"e": "AA"})), "valid RSA"),
        (json!({"kty": "oct", "k": "AAAA"}), "shared"),
        (json!({"kty": "RSA"}), "missing"),
        (json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}), "length"),
        (json!({"kty": "EC", "crv": "P-256", "x": part(&"a".repeat(32)), "y": part(&"a".repeat(32))}), "curve"),
        (json!({"kty": "EC", "crv": "secp256k1", "x": "", "y": ""}), "supported"),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}), "Ed25519"),
        (jwk(KeyKind::Ed25519, json!({})), "auth.algorithms"),
        (json!("key"), "object"),
    ] {
        let error = with_jwks(&["RS256", "PS256"], json!([bad])).err().unwrap_or_else(|| panic!("{bad} was used"));
        assert!(error.contains(why), "{bad}: {error}");
        // Beside a good one it is passed over.
        let auth = with_jwks(&["RS256"], json!([bad, rsa(json!({"kid": "k", "key_ops": ["verify"]}))])).unwrap();
        assert_eq!(of(&auth, Algorithm::RS256), "ok");
    }
    let ed = with_jwks(&["EdDSA"], json!([jwk(KeyKind::Ed25519, json!({"kid": "k", "alg": "Ed25519"}))])).unwrap();
    assert_eq!(of(&ed, Algorithm::EdDSA), "ok");
    assert!(with_jwks(&["RS256"], json!([])).is_err());
    assert!(with_jwks(&["RS256"], json!({})).is_err());
    let many: Vec<_> =
        (0..101).map(|n| rsa(json!({"kid": if n == 100 { "k".into() } else { n.to_string() }}))).collect();
    assert_eq!(of(&with_jwks(&["RS256"], json!(many)).unwrap(), Algorithm::RS256), "token_unknown_key");
}

/// The public half of another RSA key: its numbers are those of RFC 7515, appendix A.2.
fn other_rsa(extra: Value) -> Value {
    let mut key = json!({
        "kty": "RSA",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgN\
              MsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtd\
              VMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        "e": "AQAB",
    });
    key.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    key
}

#[test]
fn a_token_without_a_kid_may_be_of_any_key_that_fits() {
    let of = |auth: &Authenticator, kid| code(auth.verify(&asymmetric(Algorithm::RS256, kid, &claims()), NOW));
    let ours = jwk(KeyKind::Rsa, json!({"kid": "b"}));
    for keys in [json!([other_rsa(json!({"kid": "a"})), ours]), json!([ours, other_rsa(json!({"kid": "a"}))])] {
        let auth = with_jwks(&["RS256"], keys).unwrap();
        assert_eq!(of(&auth, None), "ok");
        assert_eq!(of(&auth, Some("b")), "ok");
        assert_eq!(of(&auth, Some("a")), "token_signature");
        assert_eq!(of(&auth, Some("c")), "token_unknown_key");
    }
    let other = with_jwks(&["RS256"], json!([other_rsa(json!({"kid": "a"}))])).unwrap();
    assert_eq!(of(&other, None), "token_unknown_key", "the set may have a newer one by now");
    // Keys without a name fit every name that no key has.
    let unnamed = with_jwks(&["RS256"], json!([other_rsa(json!({})), jwk(KeyKind::Rsa, json!({}))])).unwrap();
    assert_eq!((of(&unnamed, None), of(&unnamed, Some("x"))), ("ok", "ok"));
    // A key for encryption, or of another algorithm, is not tried.
    let unfit = json!([
        jwk(KeyKind::Rsa, json!({"use": "enc"})),
        jwk(KeyKind::Rsa, json!({"alg": "RS512"})),
        other_rsa(json!({}))
    ]);
    assert_eq!(of(&with_jwks(&["RS256"], unfit).unwrap(), None), "token_unknown_key");
}

#[test]
fn keys_with_the_same_kid_are_all_tried() {
    let of = |auth: &Authenticator| code(auth.verify(&asymmetric(Algorithm::RS256, Some("k"), &claims()), NOW));
    let named = json!({"kid": "k"});
    let (ours, other) = (jwk(KeyKind::Rsa, named.clone()), other_rsa(named.clone()));
    for keys in [json!([ours, other]), json!([other, ours]), json!([jwk(KeyKind::P256, named), ours])] {
        assert_eq!(of(&with_jwks(&["RS256", "ES256"], keys).unwrap()), "ok");
    }
    assert_eq!(of(&with_jwks(&["RS256"], json!([other, other])).unwrap()), "token_signature");
}

#[test]
fn empty_members_are_as_absent() {
    let of = |auth: &Authenticator, kid| code(auth.verify(&asymmetric(Algorithm::RS256, kid, &claims()), NOW));
    let empty = json!({"kid": "", "alg": "", "use": ""});
    let auth = with_jwks(&["RS256"], json!([jwk(KeyKind::Rsa, empty)])).unwrap();
    assert_eq!((of(&auth, None), of(&auth, Some("")), of(&auth, Some("x"))), ("ok", "ok", "ok"));
    let named = with_jwks(&["RS256"], json!([jwk(KeyKind::Rsa, json!({"kid": "k"}))])).unwrap();
    assert_eq!(of(&named, Some("")), "ok", "as without a kid");
}

#[test]
fn null_members_are_as_absent() {
    let null =
        json!({"kid": null, "alg": null, "use": null, "key_ops": null, "d": null, "k": null, "x5c": null, "crv": null});
    let auth = with_jwks(&["RS256"], json!([jwk(KeyKind::Rsa, null)])).unwrap();
    assert_eq!(code(auth.verify(&asymmetric(Algorithm::RS256, None, &claims()), NOW)), "ok");
    let missing = with_jwks(&["RS256"], json!([jwk(KeyKind::Rsa, json!({"n": null}))]));
    assert!(missing.is_err());
}

#[test]
fn a_public_key_beside_a_jwks() {
    let auth = authenticator(&AuthConfig {
        jwks_url: Some("https://127.0.0.1:1/jwks".into()),
        algorithms: vec![Algorithm::RS256],
        public_key: Some(pem!("rsa.public").into()),
        ..AuthConfig::default()
    });
    let good = asymmetric(Algorithm::RS256, Some("x"), &claims());
    assert_eq!(code(auth.verify(&good, NOW)), "ok");
    // Not this key's: the JWKS may have a newer one of that name.
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    assert_eq!(code(auth.verify(&forged, NOW)), "token_unknown_key");
}

#[test]
fn a_withdrawn_key_takes_its_cached_tokens_along() {
    let auth = with_jwks(&["RS256", "ES256"], json!([jwk(KeyKind::Rsa, json!({"kid": "a"}))])).unwrap();
    let token = asymmetric(Algorithm::RS256, Some("a"), &claims());
    let first = auth.verify(&token, NOW).unwrap();
    assert!(Arc::ptr_eq(&first, &auth.verify(&token, NOW).unwrap()));
    let jwks = &auth.checks.load().jwks.clone().unwrap();
    let next = json!({"keys": [jwk(KeyKind::P256, json!({"kid": "b"}))]}).to_string();
    auth.install(jwks, next.as_bytes()).unwrap();
    assert_eq!(code(auth.verify(&token, NOW)), "token_unknown_key");
    // What cannot be used changes nothing.
    for bad in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct"}]}"#] {
        assert!(auth.install(jwks, bad.as_bytes()).is_err(), "{bad}");
        assert_eq!(code(auth.verify(&asymmetric(Algorithm::ES256, Some("b"), &claims()), NOW)), "ok");
    }
}
