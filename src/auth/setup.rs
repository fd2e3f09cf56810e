//! From `[auth]` to keys, or the list of all mistakes.

use crate::auth::MIN_SECRET;
use crate::auth::algorithm::{Algorithm, KeyKind};
use crate::auth::config::AuthConfig;
use crate::auth::error::SetupError;
use crate::auth::key::Key;
use crate::auth::keyset::KeySet;
use crate::model::http_url;
use hyper::Uri;
use std::sync::Arc;

/// The checked settings and their keys.
pub(super) struct Setup {
    pub algorithms: Vec<Algorithm>,
    pub keys: KeySet,
    pub jwks_url: Option<Uri>,
}

impl Setup {
    /// # Errors
    /// All mistakes.
    pub(super) fn new(config: &AuthConfig) -> Result<Self, Vec<SetupError>> {
        let mut mistakes = Vec::new();
        let algorithms = config.algorithms.clone();
        let mut secrets = Vec::new();
        for secret in config.secret.iter().chain(&config.other_secrets) {
            let bytes = secret.reveal().as_bytes();
            match bytes.len() < MIN_SECRET {
                true => mistakes.push(SetupError::ShortSecret),
                false => secrets.push(Key::secret(bytes, &algorithms)),
            }
        }
        let mut keep = |result: Result<Key, &'static str>| match result {
            Ok(key) => Some(Arc::new(key)),
            Err(why) => {
                mistakes.push(SetupError::PublicKey(why));
                None
            }
        };
        let public = config.public_key.as_ref().and_then(|pem| keep(Key::from_pem(pem, &algorithms)));
        let jwks_url = config.jwks_url.as_ref().and_then(|url| match http_url::parse(url) {
            Ok(url) => Some(url),
            Err(why) => {
                mistakes.push(SetupError::JwksUrl(why));
                None
            }
        });
        check_fit(config, &algorithms, public.as_deref(), &mut mistakes);
        if config.user_claim.is_empty() {
            mistakes.push(SetupError::NoUserClaim);
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let fetched = jwks_url.is_some().then(|| Arc::from([]));
        Ok(Self { algorithms, keys: KeySet { generation: 0, secrets: secrets.into(), public, fetched }, jwks_url })
    }
}

/// Every algorithm needs a key and every key an algorithm; otherwise the operator relies on a check that never runs.
fn check_fit(config: &AuthConfig, algorithms: &[Algorithm], public: Option<&Key>, mistakes: &mut Vec<SetupError>) {
    let (secret, pem, url) = (config.secret.is_some(), config.public_key.is_some(), config.jwks_url.is_some());
    if !(secret || pem || url) {
        if !config.anonymous {
            mistakes.push(SetupError::NoKey);
        }
        return;
    }
    if config.algorithms.is_empty() {
        mistakes.push(SetupError::NoAlgorithms);
        return;
    }
    for algorithm in algorithms {
        let needs = match algorithm.key_kind() {
            KeyKind::Secret if !secret => {
                "`secret`; with a public key or a key set, list its algorithms instead, like [\"RS256\"]"
            }
            KeyKind::Secret => continue,
            _ if url => continue,
            kind => match (pem, public) {
                (false, _) => "`public_key_file` or `jwks_url`",
                (true, Some(key)) if key.kind() != kind => "a key of its kind in `public_key_file`",
                // A key that cannot be read is a mistake of its own.
                (true, _) => continue,
            },
        };
        mistakes.push(SetupError::NoKeyFor { algorithm: *algorithm, needs });
    }
    let symmetric = algorithms.iter().filter(|algorithm| algorithm.is_symmetric()).count();
    if secret && symmetric == 0 {
        mistakes.push(SetupError::UnusedSecret);
    }
    let mut unused = |key, suggestion| mistakes.push(SetupError::UnusedKey { key, suggestion });
    if let Some(key) = public.filter(|key| key.algorithms().is_empty()) {
        unused("public_key_file", key.kind().suggestion());
    }
    if url && symmetric == algorithms.len() {
        unused("jwks_url", Algorithm::RS256);
    }
}
