//! From `[auth]` to keys: every mistake at once, or the first key set.

use crate::auth::MIN_SECRET;
use crate::auth::algorithm::{Algorithm, KeyKind};
use crate::auth::config::AuthConfig;
use crate::auth::error::SetupError;
use crate::auth::key::Key;
use crate::auth::keyset::KeySet;
use hyper::Uri;
use std::sync::Arc;

/// Checked settings.
pub(super) struct Setup {
    pub algorithms: Vec<Algorithm>,
    pub keys: KeySet,
    pub jwks_url: Option<Uri>,
}

impl Setup {
    /// Reads the settings.
    ///
    /// # Errors
    /// Every mistake.
    pub(super) fn new(config: &AuthConfig) -> Result<Self, Vec<SetupError>> {
        let mut mistakes = Vec::new();
        let algorithms = algorithms(config, &mut mistakes);
        let secrets: Vec<Key> = config
            .secret
            .iter()
            .chain(&config.other_secrets)
            .filter_map(|secret| {
                let bytes = secret.reveal().as_bytes();
                if bytes.len() < MIN_SECRET {
                    mistakes.push(SetupError::ShortSecret { bytes: bytes.len() });
                    return None;
                }
                Some(Key::secret(bytes, &algorithms))
            })
            .collect();
        let mut keep = |result: Result<Key, &'static str>| match result {
            Ok(key) => Some(Arc::new(key)),
            Err(why) => {
                mistakes.push(SetupError::PublicKey(why));
                None
            }
        };
        let public = config.public_key.as_ref().and_then(|pem| keep(Key::from_pem(pem, &algorithms)));
        let jwks_url = config.jwks_url.as_ref().and_then(|url| match parse_url(url) {
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

fn algorithms(config: &AuthConfig, mistakes: &mut Vec<SetupError>) -> Vec<Algorithm> {
    let mut known = Vec::new();
    for name in &config.algorithms {
        match Algorithm::from_name(name) {
            Some(algorithm) => known.push(algorithm),
            None => mistakes.push(SetupError::UnknownAlgorithm(name.chars().take(40).collect())),
        }
    }
    known
}

/// Every algorithm needs a key and every key an algorithm, or somebody believes in a protection that is not there.
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
            KeyKind::Secret if !secret => "auth.secret",
            KeyKind::Secret => continue,
            _ if url => continue,
            kind => match (pem, public) {
                (false, _) => "auth.public_key_file or auth.jwks_url",
                (true, Some(key)) if key.kind() != kind => "a key of that kind in auth.public_key_file",
                // A key that cannot be read was reported as that.
                (true, _) => continue,
            },
        };
        mistakes.push(SetupError::NoKeyFor { algorithm: algorithm.name(), needs });
    }
    let mut unused = |key, suggestion| mistakes.push(SetupError::UnusedKey { key, suggestion });
    if secret && !algorithms.iter().any(|a| a.key_kind() == KeyKind::Secret) {
        unused("auth.secret", "HS256");
    }
    if let Some(key) = public.filter(|key| key.algorithms().is_empty()) {
        unused("auth.public_key_file", key.kind().suggestion());
    }
    if url && algorithms.iter().all(|a| a.key_kind() == KeyKind::Secret) {
        unused("auth.jwks_url", "RS256");
    }
}

fn parse_url(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text.parse().map_err(|_| "not a URL")?;
    match (url.scheme_str(), url.authority()) {
        (Some("https" | "http"), Some(authority)) if authority.as_str().contains('@') => {
            Err("a user or password in the URL is not supported")
        }
        (Some("https" | "http"), Some(_)) => Ok(url),
        _ => Err("must start with https:// or http://"),
    }
}
