//! Mistakes in `[auth]`.

use super::*;

fn mistakes(config: AuthConfig) -> Vec<&'static str> {
    let mistakes = Authenticator::mistakes(&config);
    assert_eq!(Authenticator::new(&config).err(), mistakes.first().cloned());
    for mistake in &mistakes {
        let text = mistake.to_string();
        assert_eq!(mistake.key().is_none(), mistake.code() == "auth_no_key", "{text}");
        assert!(!text.contains("short secret"), "{text}");
    }
    mistakes.iter().map(SetupError::code).collect()
}

fn with(algorithms: &[&str], config: AuthConfig) -> AuthConfig {
    AuthConfig { algorithms: algorithms.iter().map(|name| Algorithm::from_name(name).unwrap()).collect(), ..config }
}

#[test]
fn each_is_found() {
    let none = AuthConfig::default;
    let pem = |text: &str| AuthConfig { public_key: Some(text.into()), ..AuthConfig::default() };
    let url = |text: &str| AuthConfig { jwks_url: Some(text.into()), ..AuthConfig::default() };
    let secret = |text: &str| AuthConfig { secret: Some(Secret::new(text)), ..AuthConfig::default() };
    let rsa = pem!("rsa.public");
    assert_eq!(mistakes(none()), ["auth_no_key"]);
    assert_eq!(mistakes(AuthConfig { anonymous: true, ..none() }), [""; 0]);
    assert_eq!(mistakes(hmac_config()), [""; 0]);
    assert_eq!(mistakes(secret("short secret")), ["auth_short_secret"]);
    assert_eq!(mistakes(secret(&SECRET[1..])), ["auth_short_secret"]);
    assert_eq!(mistakes(with(&[], hmac_config())), ["auth_no_algorithms"]);
    assert_eq!(mistakes(with(&["HS256", "RS256"], hmac_config())), ["auth_no_key_for_algorithm"]);
    assert_eq!(mistakes(with(&["RS256"], hmac_config())), ["auth_no_key_for_algorithm", "auth_unused_key"]);
    assert_eq!(mistakes(with(&["RS256", "PS512"], pem(rsa))), [""; 0]);
    assert_eq!(mistakes(pem(rsa)), ["auth_no_key_for_algorithm", "auth_unused_key"]);
    assert_eq!(mistakes(with(&["ES256"], pem(rsa))), ["auth_no_key_for_algorithm", "auth_unused_key"]);
    assert_eq!(mistakes(with(&["ES384"], pem(pem!("p256.public")))), ["auth_no_key_for_algorithm", "auth_unused_key"]);
    assert_eq!(mistakes(with(&["RS256"], pem("nonsense"))), ["auth_public_key"]);
    assert_eq!(mistakes(with(&["RS256"], pem(pem!("rsa.private")))), ["auth_public_key"]);
    assert_eq!(mistakes(with(&["RS256"], pem(pem!("rsa1024.public")))), ["auth_public_key"]);
    assert_eq!(mistakes(with(&["RS256", "ES512", "EdDSA"], url("https://a.example/jwks?x=1"))), [""; 0]);
    assert_eq!(mistakes(url("https://a.example/jwks")), ["auth_no_key_for_algorithm", "auth_unused_key"]);
    for bad in ["file:///etc/passwd", "ftp://a/b", "/jwks", "a", "", "https://", "https://u:p@a.example/", "http:/x"] {
        assert_eq!(mistakes(with(&["RS256"], url(bad))), ["auth_jwks_url"], "{bad}");
    }
    assert_eq!(mistakes(AuthConfig { user_claim: String::new(), ..hmac_config() }), ["auth_no_user_claim"]);
    assert_eq!(
        mistakes(AuthConfig { user_claim: String::new(), ..secret("short secret") }),
        ["auth_short_secret", "auth_no_user_claim"],
    );
}

#[test]
fn every_secret_is_accepted_and_the_first_signs() {
    let [new, old] = ["a new secret of at least thirty-two bytes", "an old secret of at least thirty-two bytes"];
    let mut config = AuthConfig::default();
    config.set_secrets([new, old].map(Secret::new).into_iter());
    let both = authenticator(&config);
    for secret in [new, old] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = signed(r#"{"alg":"HS256"}"#, &claims().to_string(), &key, jsonwebtoken::Algorithm::HS256);
        assert_eq!(code(both.verify(&token, NOW)), "ok");
    }
    assert_eq!(code(both.verify(&token(json!({})), NOW)), "token_signature");
    let map = claims().as_object().unwrap().clone();
    let ours = sign(&config, &map).unwrap();
    config.set_secrets(std::iter::once(Secret::new(new)));
    assert_eq!(code(authenticator(&config).verify(&ours, NOW)), "ok");
    config.set_secrets([new, "short"].map(Secret::new).into_iter());
    assert!(Authenticator::mistakes(&config).contains(&SetupError::ShortSecret));
}

#[test]
fn issuers_and_audiences_may_be_several() {
    let config = AuthConfig {
        issuer: vec!["https://a".into(), "https://b".into()],
        audience: vec!["chat".into(), "app".into()],
        ..hmac_config()
    };
    let auth = authenticator(&config);
    let of = |issuer: Value, audience: Value| code(auth.verify(&token(json!({"iss": issuer, "aud": audience})), NOW));
    assert_eq!(of(json!("https://a"), json!("app")), "ok");
    assert_eq!(of(json!("https://b"), json!(["other", "chat"])), "ok");
    assert_eq!(of(json!("https://c"), json!("chat")), "token_issuer");
    assert_eq!(of(json!("https://a"), json!(["other"])), "token_audience");
    assert_eq!(of(json!("https://a"), json!([])), "token_audience");
    let claims = claims().as_object().unwrap().clone();
    let signed = auth.verify(&sign(&config, &claims).unwrap(), NOW).unwrap();
    assert!(signed.claims.contains(r#""iss":"https://a""#) && signed.claims.contains(r#""aud":"chat""#));
}
