//! Tokens: any text, and a header and claims (cut at the first line break) with a valid signature. No error shows the
//! token, and an identity keeps the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::auth::config::AuthConfig;
use roomcast::auth::{AuthError, Authenticator, Identity};
use roomcast::model::secret::Secret;
use std::sync::{Arc, LazyLock};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_800_000_000;

static AUTHENTICATOR: LazyLock<Arc<Authenticator>> = LazyLock::new(|| {
    let config = AuthConfig { secret: Some(Secret::new(SECRET)), require_exp: false, ..AuthConfig::default() };
    Authenticator::new(&config).expect("a valid configuration")
});

fuzz_target!(|text: &str| {
    assert!(AUTHENTICATOR.verify(text, NOW).is_err(), "nobody guesses the secret");
    let (header, claims) = text.split_once('\n').unwrap_or((r#"{"alg":"HS256"}"#, text));
    check(AUTHENTICATOR.verify(&signed(header, claims), NOW));
});

fn signed(header: &str, claims: &str) -> String {
    use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = sign(&Key::new(HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn check(result: Result<Arc<Identity>, AuthError>) {
    match result {
        Ok(identity) => {
            let user = identity.user.as_ref().expect("a token names its user").as_str();
            assert!((1..=200).contains(&user.len()) && !user.chars().any(char::is_control));
            assert!(identity.grants.exact().count() <= 256);
            assert!(!identity.claims.contains('\n'));
        }
        Err(error) => assert!(error.to_string().len() < 400),
    }
}
