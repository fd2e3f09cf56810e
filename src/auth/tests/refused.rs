//! HMAC tokens: what is accepted, and every way to be refused.

use super::*;
use proptest::prelude::*;

#[test]
fn a_good_token_becomes_an_identity() {
    let auth = authenticator(&hmac_config());
    let text = "{\"sub\":7,\"exp\":1800000060.9,\n \"rooms\":[\"conversation:42\",\"team:*\"],\"org\":{\"id\":\"x\"},\"big\":1e2}\r\n";
    let identity = auth.verify(&raw(r#"{"alg":"HS256"}"#, text), NOW).unwrap();
    assert_eq!(identity.user.as_ref().map(UserId::as_json).as_deref(), Some("7"));
    assert_eq!(identity.expires(), Some(NOW + 60));
    assert_eq!(identity.claim("org.id"), Some(json!("x")));
    assert!(identity.grants.allows("team:1") && identity.grants.allows("conversation:42"));
    assert!(identity.claims.starts_with("{\"sub\":7,") && identity.claims.ends_with("\"big\":1e2}"));
    assert!(!identity.claims.contains(['\n', '\r']));
}

#[test]
fn malformed_tokens() {
    let auth = authenticator(&hmac_config());
    let good = token(json!({}));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let long = "a".repeat(MAX_TOKEN + 1);
    let claims = claims().to_string();
    for bad in [
        "garbage".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a.b.c".to_owned(),
        "é.é.é".to_owned(),
        long,
        message.to_owned(),
        format!("{good}.x"),
        format!(".{payload}.{signature}"),
        format!("{header}=.{payload}.{signature}"),
        format!(" {good}"),
        format!("Bearer {good}"),
        raw("[]", &claims),
        raw("{}", &claims),
        raw(r#"{"alg":7}"#, &claims),
        raw(r#"{"alg":null}"#, &claims),
        raw(r#"{"alg":"HS256","alg":"HS256"}"#, &claims),
        raw(r#"{"alg":"HS256","kid":["a"]}"#, &claims),
        raw(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, &claims),
        raw(&format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(257)), &claims),
        raw(r#"{"alg":"HS256","kid":"a\u0000"}"#, &claims),
        raw(&format!(r#"{{"alg":"HS256","x":{}}}"#, "[".repeat(3000)), &claims),
        raw(r#"{"alg":"HS256"}"#, "7"),
        raw(r#"{"alg":"HS256"}"#, r#"{"sub":"7","exp":1800000060,"sub":"8"}"#),
        raw(r#"{"alg":"HS256"}"#, r#"{"sub":"7","exp":1e400}"#),
        raw(r#"{"alg":"HS256"}"#, r#"{"sub":"7","exp":NaN}"#),
    ] {
        assert_eq!(code(auth.verify(&bad, NOW)), "token_malformed", "{bad}");
    }
    assert_eq!(code(auth.verify(&good, NOW)), "ok");
}

#[test]
fn headers_that_point_elsewhere_are_passed_over() {
    let auth = authenticator(&hmac_config());
    let header = r#"{"alg":"HS256","jku":"http://127.0.0.1:1/","x5u":"file:///etc/passwd","x5c":["AAAA"],"jwk":{"kty":"oct","k":"AAAA"},"kid":"../../dev/null"}"#;
    assert_eq!(code(auth.verify(&raw(header, &claims().to_string()), NOW)), "ok");
    // Signed with the key that its own header brings.
    let own = signed(
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#,
        &claims().to_string(),
        &EncodingKey::from_secret(&[0, 0, 0]),
        jsonwebtoken::Algorithm::HS256,
    );
    assert_eq!(code(auth.verify(&own, NOW)), "token_signature");
}

#[test]
fn algorithms_are_pinned() {
    let auth = authenticator(&hmac_config());
    let claims = claims().to_string();
    for name in ["none", "None", "NONE", "", "hs256", "HS257", "HS384", "HS512", "RS256", "EdDSA"] {
        let header = format!(r#"{{"alg":"{name}"}}"#);
        assert_eq!(code(auth.verify(&raw(&header, &claims), NOW)), "token_algorithm", "{name}");
        let unsigned = format!("{}.{}.", part(&header), part(&claims));
        assert_eq!(code(auth.verify(&unsigned, NOW)), "token_algorithm", "{name} without a signature");
    }
    let other = EncodingKey::from_secret(SECRET.as_bytes());
    for (name, library) in [("HS384", jsonwebtoken::Algorithm::HS384), ("HS512", jsonwebtoken::Algorithm::HS512)] {
        let token = signed(&format!(r#"{{"alg":"{name}"}}"#), &claims, &other, library);
        assert_eq!(code(auth.verify(&token, NOW)), "token_algorithm");
        let pinned = AuthConfig { algorithms: vec![Algorithm::from_name(name).unwrap()], ..hmac_config() };
        assert_eq!(code(authenticator(&pinned).verify(&token, NOW)), "ok");
    }
}

#[test]
fn signatures() {
    let auth = authenticator(&hmac_config());
    let good = token(json!({}));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let forged = good.replace(&part(&claims().to_string()), &part(r#"{"exp":1800000060,"sub":"8"}"#));
    assert_ne!(forged, good);
    let wrong = EncodingKey::from_secret(b"another secret of thirty-two byt");
    for bad in [
        forged,
        format!("{message}."),
        format!("{message}.{}", &signature[..signature.len() - 1]),
        format!("{message}.{signature}A"),
        format!("{message}.{signature}="),
        signed(r#"{"alg":"HS256"}"#, &claims().to_string(), &wrong, jsonwebtoken::Algorithm::HS256),
    ] {
        assert_eq!(code(auth.verify(&bad, NOW)), "token_signature", "{bad}");
    }
}

#[test]
fn times() {
    let auth = authenticator(&hmac_config());
    let of = |claims: Value| code(auth.verify(&token(claims), NOW));
    assert_eq!(of(json!({"exp": NOW - 4})), "ok", "within the leeway of 5 s");
    assert_eq!(of(json!({"exp": NOW - 5})), "token_expired");
    assert_eq!(of(json!({"exp": 0})), "token_expired");
    assert_eq!(of(json!({"exp": null})), "token_without_exp");
    assert_eq!(of(json!({"nbf": NOW + 5})), "ok");
    assert_eq!(of(json!({"nbf": NOW + 6})), "token_not_yet_valid");
    assert_eq!(of(json!({"nbf": (NOW + 6) as f64 + 0.5})), "token_not_yet_valid");
    assert_eq!(of(json!({"iat": NOW + 1000, "exp": NOW as f64 + 0.5})), "ok");
    for name in ["exp", "nbf", "iat"] {
        for bad in [
            json!("1900000000"),
            json!(-1),
            json!(-0.5),
            json!(1_u64 << 53),
            json!(1_u64 << 63),
            json!(9007199254740992.0),
            json!(1e300),
            json!(-1e300),
            json!(true),
            json!([NOW + 60]),
            json!({}),
        ] {
            assert_eq!(of(json!({name: bad})), "token_time", "{name} {bad}");
        }
        let text = format!(r#"{{"sub":"7","exp":1800000060,"{name}":null}}"#);
        assert_ne!(code(auth.verify(&raw(r#"{"alg":"HS256"}"#, &text), NOW)), "ok", "{name} null");
    }
    assert_eq!(of(json!({"exp": (1_u64 << 53) - 1})), "ok");

    let without = authenticator(&AuthConfig { require_exp: false, ..hmac_config() });
    let identity = without.verify(&token(json!({"exp": null})), NOW).unwrap();
    assert_eq!(identity.expires(), None);
    assert_eq!(code(without.verify(&token(json!({"exp": NOW - 5})), NOW)), "token_expired");
    assert_eq!(code(without.verify(&token(json!({"exp": "never"})), NOW)), "token_time");
}

#[test]
fn issuer_audience_and_requirements() {
    let config = AuthConfig {
        issuer: vec!["https://issuer".into()],
        audience: vec!["chat".into()],
        require: [("email_verified".to_owned(), json!(true)), ("org.plan".to_owned(), json!(["a", 1]))].into(),
        ..hmac_config()
    };
    let auth = authenticator(&config);
    let good = json!({"iss": "https://issuer", "aud": "chat", "email_verified": true, "org": {"plan": ["a", 1]}});
    let of = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        code(auth.verify(&token(claims), NOW))
    };
    assert_eq!(of("x", json!(1)), "ok");
    assert_eq!(of("aud", json!(["other", "chat"])), "ok");
    for bad in [json!(null), json!("https://issuer/"), json!("HTTPS://issuer"), json!(["https://issuer"]), json!(1)] {
        assert_eq!(of("iss", bad.clone()), "token_issuer", "{bad}");
    }
    for bad in [json!(null), json!("other"), json!("chat2"), json!([]), json!(["x"]), json!([["chat"]]), json!({})] {
        assert_eq!(of("aud", bad.clone()), "token_audience", "{bad}");
    }
    for bad in [json!(null), json!(false), json!("true"), json!(1)] {
        assert_eq!(of("email_verified", bad.clone()), "token_claim", "{bad}");
    }
    for bad in [json!(null), json!({}), json!({"plan": ["a"]}), json!({"plan": ["a", "1"]}), json!("plan")] {
        assert_eq!(of("org", bad.clone()), "token_claim", "{bad}");
    }
}

#[test]
fn users_and_rooms() {
    let auth = authenticator(&hmac_config());
    let of = |claims: Value| code(auth.verify(&token(claims), NOW));
    for bad in [json!(null), json!(""), json!(true), json!({}), json!(["7"]), json!("a\nb")] {
        assert_eq!(of(json!({"sub": bad})), "token_user", "{bad}");
    }
    for bad in
        [json!(true), json!(["a\nb"]), json!(["a*b"]), json!([""]), json!(["{x}"]), json!([true]), json!({"a": 1})]
    {
        assert_eq!(of(json!({"rooms": bad})), "token_rooms", "{bad}");
    }
    let numbers = auth.verify(&token(json!({"sub": 42.0, "rooms": [7, 42.0]})), NOW).unwrap();
    assert_eq!(numbers.user.as_ref().unwrap().as_str(), "42");
    assert_eq!(numbers.grants.exact().collect::<Vec<_>>(), ["7", "42"]);
    // Half of a surrogate pair is what remains of a name that was cut within an emoji.
    let cut = |claims: &str| auth.verify(&raw(r#"{"alg":"HS256"}"#, claims), NOW);
    let claims = r#"{"sub":"7","name":"x\ud83d","\ud83d":1,"exp":2000000000}"#;
    assert_eq!(cut(claims).unwrap().claim("name"), Some(json!("x\u{fffd}")));
    assert_eq!(code(cut(r#"{"sub":"7\ud83d","exp":2000000000}"#)), "token_user");
    assert_eq!(code(cut(r#"{"sub":"7","rooms":["a\ud83d"],"exp":2000000000}"#)), "token_rooms");
    let nested =
        authenticator(&AuthConfig { user_claim: "user.id".into(), rooms_claim: "user.rooms".into(), ..hmac_config() });
    let identity = nested.verify(&token(json!({"user": {"id": 9, "rooms": "a"}, "rooms": 7})), NOW).unwrap();
    assert_eq!(identity.user.as_ref().unwrap().as_str(), "9");
    assert_eq!(identity.grants.exact().collect::<Vec<_>>(), ["a"]);
    assert_eq!(code(nested.verify(&token(json!({})), NOW)), "token_user");
}

#[tokio::test]
async fn without_a_token() {
    let strict = authenticator(&hmac_config());
    assert_eq!(code(strict.authenticate(None, NOW).await), "token_missing");
    assert_eq!(code(strict.authenticate(Some(""), NOW).await), "token_missing");
    assert_eq!(code(strict.authenticate(Some(&token(json!({}))), NOW).await), "ok");
    let open = authenticator(&AuthConfig { anonymous: true, ..hmac_config() });
    assert_eq!(*open.authenticate(None, NOW).await.unwrap(), Identity::anonymous());
    // A token that is there must be good, also where none is needed.
    assert_eq!(code(open.authenticate(Some("x"), NOW).await), "token_malformed");
    assert_eq!(code(open.authenticate(Some(&token(json!({"exp": 1}))), NOW).await), "token_expired");
    let keyless = authenticator(&AuthConfig { anonymous: true, ..AuthConfig::default() });
    assert_eq!(code(keyless.authenticate(Some(&token(json!({}))), NOW).await), "token_algorithm");
}

#[test]
fn messages_hold_no_token_and_no_claim() {
    let auth = authenticator(&AuthConfig { require: [("plan".to_owned(), json!("pro"))].into(), ..hmac_config() });
    let hidden = "hunter2hunter2";
    for bad in [
        hidden.to_owned(),
        raw(&format!(r#"{{"alg":"{hidden}"}}"#), "{}"),
        raw(&format!(r#"{{"alg":"HS256","kid":"{hidden}","crit":[]}}"#), "{}"),
        token(json!({"exp": hidden})),
        token(json!({"plan": hidden})),
        token(json!({"plan": "pro", "sub": format!("{hidden}\n")})),
        token(json!({"plan": "pro", "rooms": [format!("<{hidden}>")]})),
    ] {
        let error = auth.verify(&bad, NOW).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(hidden) && !shown.contains(&bad), "{shown}");
    }
}

#[test]
fn what_is_signed_here_is_accepted_here() {
    let config = AuthConfig {
        algorithms: vec![Algorithm::RS256, Algorithm::HS384],
        issuer: vec!["me".into()],
        audience: vec!["you".into()],
        ..hmac_config()
    };
    let claims = json!({"sub": 7, "exp": NOW + 1}).as_object().unwrap().clone();
    let token = sign(&config, &claims).unwrap();
    let verifying = AuthConfig { algorithms: vec![Algorithm::HS384], ..config.clone() };
    assert_eq!(authenticator(&verifying).verify(&token, NOW).unwrap().claim("iss"), Some(json!("me")));
    let no_secret = AuthConfig { secret: None, ..config.clone() };
    assert_eq!(sign(&no_secret, &claims), Err(SignError::NoSecret));
    let short = AuthConfig { secret: Some(Secret::new("short")), ..config.clone() };
    assert_eq!(sign(&short, &claims), Err(SignError::ShortSecret));
    let no_algorithm = AuthConfig { algorithms: vec![Algorithm::RS256], ..config };
    assert_eq!(sign(&no_algorithm, &claims), Err(SignError::NoAlgorithm));
}

proptest! {
    /// Any change to any byte of a good token is refused, and nothing panics.
    #[test]
    fn one_byte_changed(at in 0..200usize, byte in 0x20u8..0x7f) {
        let auth = authenticator(&hmac_config());
        let good = token(json!({"name": "Ada Lovelace", "rooms": ["a:*"]}));
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert_eq!(auth.verify(&changed, NOW).is_ok(), changed == good);
    }

    /// Rightly signed nonsense makes an error or an identity, never a panic.
    #[test]
    fn any_claims(claims in ".{0,300}") {
        let auth = authenticator(&hmac_config());
        let token = raw(r#"{"alg":"HS256"}"#, &claims);
        prop_assert!(auth.verify(&token, NOW).is_err());
        prop_assert!(auth.verify(&claims, NOW).is_err());
    }
}
