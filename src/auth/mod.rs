//! From a token to an identity: which keys are trusted, what a token must say, and what remains of it.
//!
//! A token passes [`header`] (its parts), [`keyset`] (which key it must have been signed with: configuration and
//! `kid`, never the header's algorithm alone), [`key`] (the signature) and [`policy`] (its claims). With a JWKS,
//! [`refresh`] keeps the keys fresh; [`cache`] remembers what was verified.

mod algorithm;
mod cache;
pub mod claims;
pub mod config;
mod error;
mod fetch;
pub mod grants;
mod header;
pub mod identity;
mod jwk;
mod key;
mod keyset;
mod policy;
mod refresh;
mod setup;
mod sign;
#[cfg(test)]
mod tests;

pub use algorithm::Algorithm;
pub use error::{AuthError, SetupError};
pub use grants::Grants;
pub use header::MAX_TOKEN;
pub use identity::{Identity, UserId};
pub use refresh::JwksTiming;
pub use sign::{SignError, sign};

use algorithm::KeyKind;
use aws_lc_rs::digest::{SHA256, digest};
use cache::{Cache, token_hash};
use config::AuthConfig;
use header::Parts;
use hyper::Uri;
use keyset::KeySet;
use parking_lot::{Mutex, MutexGuard, RwLock};
use policy::Policy;
use refresh::Refresher;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Least bytes of an HMAC secret (RFC 7518 section 3.2 for HS256).
pub const MIN_SECRET: usize = 32;

/// Verifies tokens. One for the node, shared by all threads.
pub struct Authenticator {
    algorithms: Vec<Algorithm>,
    policy: Policy,
    /// `None`: a token is needed.
    anonymous: Option<Arc<Identity>>,
    keys: RwLock<Arc<KeySet>>,
    cache: Mutex<Cache>,
    jwks: Option<Jwks>,
}

struct Jwks {
    url: Uri,
    timing: JwksTiming,
    refresher: Refresher,
    /// SHA-256 of the set in use, to see whether a fetch brought anything new.
    document: Mutex<Option<[u8; 32]>>,
}

impl Authenticator {
    /// Checks the settings and makes the keys; does no I/O.
    ///
    /// # Errors
    /// The first of [`Authenticator::mistakes`].
    pub fn new(config: &AuthConfig) -> Result<Arc<Self>, SetupError> {
        Self::with_jwks_timing(config, JwksTiming::default())
    }

    /// As [`Authenticator::new`], with other times for JWKS fetches.
    ///
    /// # Errors
    /// As there.
    pub fn with_jwks_timing(config: &AuthConfig, timing: JwksTiming) -> Result<Arc<Self>, SetupError> {
        let setup = setup::Setup::new(config)
            .map_err(|mut mistakes| if mistakes.is_empty() { SetupError::NoKey } else { mistakes.swap_remove(0) })?;
        Ok(Arc::new(Self {
            algorithms: setup.algorithms,
            policy: Policy::new(config),
            anonymous: config.anonymous.then(|| Arc::new(Identity::anonymous())),
            keys: RwLock::new(Arc::new(setup.keys)),
            cache: Mutex::default(),
            jwks: setup.jwks_url.map(|url| Jwks {
                url,
                timing,
                refresher: Refresher::new(timing),
                document: Mutex::default(),
            }),
        }))
    }

    /// Tolerance at `exp` and `nbf`, in seconds.
    pub fn leeway(&self) -> u64 {
        self.policy.leeway
    }

    /// Whether clients without a token are let in.
    pub fn allows_anonymous(&self) -> bool {
        self.anonymous.is_some()
    }

    /// Whether keys come from a JWKS, so that [`Authenticator::run`] has something to do.
    pub fn has_key_set(&self) -> bool {
        self.jwks.is_some()
    }

    /// Every mistake in the settings.
    pub fn mistakes(config: &AuthConfig) -> Vec<SetupError> {
        setup::Setup::new(config).err().unwrap_or_default()
    }

    /// Verifies a token against the keys known now; `now` in Unix seconds. No I/O.
    ///
    /// # Errors
    /// Why it was refused; [`AuthError::UnknownKey`] when a refetch of the JWKS may help.
    pub fn verify(&self, token: &str, now: u64) -> Result<Arc<Identity>, AuthError> {
        let parts = Parts::read(token)?;
        let algorithm = Algorithm::from_name(&parts.header.alg)
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .ok_or(AuthError::Algorithm)?;
        let keys = self.keys.read().clone();
        // An HMAC costs no more than the cache's digest.
        let hash = (algorithm.key_kind() != KeyKind::Secret).then(|| token_hash(token));
        if let Some(identity) = hash.and_then(|hash| self.cache().get(&hash, keys.generation)) {
            return match self.policy.expired(identity.expires, now) {
                true => Err(AuthError::Expired),
                false => Ok(identity),
            };
        }
        let choice = keys.choose(algorithm, &parts.header)?;
        let message = parts.message.as_bytes();
        if !choice.keys.iter().any(|key| key.verifies(algorithm, message, parts.signature)) {
            return Err(choice.otherwise);
        }
        let identity = Arc::new(self.policy.identity(&parts.claims()?, now)?);
        if let Some(hash) = hash {
            self.cache().insert(hash, keys.generation, identity.clone());
        }
        Ok(identity)
    }

    /// Lets a client in, or not. With a JWKS, waits for one refetch (bounded and shared with everybody who waits)
    /// if the token's key is not known yet. For any thread and runtime; the fetch itself is done by
    /// [`Authenticator::run`]. An empty token counts as none.
    ///
    /// # Errors
    /// Why not.
    pub async fn authenticate(&self, token: Option<&str>, now: u64) -> Result<Arc<Identity>, AuthError> {
        let Some(token) = token.and_then(bare_token) else {
            return self.anonymous.clone().ok_or(AuthError::Missing);
        };
        match (self.verify(token, now), &self.jwks) {
            (Err(AuthError::UnknownKey), Some(jwks)) => {
                let start = Instant::now();
                let again = || match self.verify(token, now + start.elapsed().as_secs()) {
                    Err(AuthError::UnknownKey) => None,
                    result => Some(result),
                };
                jwks.refresher.wait_for(again).await.unwrap_or(Err(AuthError::UnknownKey))
            }
            (result, _) => result,
        }
    }

    /// Keeps the JWKS fresh, until dropped; returns at once without one. Runs on the control runtime.
    pub async fn run(self: Arc<Self>) {
        let Some(jwks) = &self.jwks else { return };
        if jwks.url.scheme_str() == Some("http") {
            tracing::warn!(url = %jwks.shown(), "the JWKS is fetched without TLS: whoever is on the way can replace it");
        }
        jwks.refresher.run(|| self.refresh(jwks)).await;
    }

    /// One fetch, for `roomcast check`: how many keys can be used.
    ///
    /// # Errors
    /// What went wrong, in words; also without a `jwks_url`.
    pub async fn check_jwks(&self) -> Result<usize, String> {
        let jwks = self.jwks.as_ref().ok_or("auth.jwks_url is not set")?;
        let fetched = fetch::fetch(&jwks.url, jwks.timing.timeout).await?;
        Ok(jwk::parse(&fetched.body, &self.algorithms)?.keys.len())
    }

    /// On any failure the old keys stay.
    async fn refresh(&self, jwks: &Jwks) -> Result<Option<Duration>, ()> {
        let result = match fetch::fetch(&jwks.url, jwks.timing.timeout).await {
            Ok(fetched) => self.install(jwks, &fetched.body).map(|()| fetched.max_age),
            Err(error) => Err(error),
        };
        result
            .map_err(|error| tracing::warn!(url = %jwks.shown(), %error, "fetching the JWKS failed; the old keys stay"))
    }

    fn install(&self, jwks: &Jwks, body: &[u8]) -> Result<(), String> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, body).as_ref());
        let mut document = jwks.document.lock();
        if *document == Some(hash) {
            return Ok(());
        }
        let parsed = jwk::parse(body, &self.algorithms)?;
        for (index, why) in &parsed.skipped {
            tracing::warn!(url = %jwks.shown(), index, "a key of the JWKS is not used: {why}");
        }
        tracing::info!(url = %jwks.shown(), keys = parsed.keys.len(), "new keys from the JWKS");
        let mut keys = self.keys.write();
        *keys = Arc::new(KeySet {
            generation: keys.generation + 1,
            fetched: Some(parsed.keys.into()),
            secrets: keys.secrets.clone(),
            public: keys.public.clone(),
        });
        *document = Some(hash);
        Ok(())
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock()
    }
}

/// The token of a text that a client gave as one: without the `Bearer ` that people copy along. `None` where nothing is left, so
/// that the next place is looked at.
pub fn bare_token(text: &str) -> Option<&str> {
    let text = text.trim();
    let token = match text.split_once(char::is_whitespace) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ if text.eq_ignore_ascii_case("bearer") => "",
        _ => text,
    };
    (!token.is_empty()).then_some(token)
}

impl Jwks {
    /// The URL without its query, which might hold a key.
    fn shown(&self) -> String {
        let (scheme, authority) = (self.url.scheme_str().unwrap_or_default(), self.url.authority());
        format!("{scheme}://{}{}", authority.map_or("", |authority| authority.as_str()), self.url.path())
    }
}
